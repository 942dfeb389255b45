"""The supervised builder: model, objectives, rule and optimiser become a `Method`.

`_forward` is the pass, `_gradient_plans` what is pulled back of it, `_spine` the step.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from mmfuse import balancing, metrics
from mmfuse import objectives as objectives_lib
from mmfuse.core import Batch, Clock, Method, Model, Outputs, Phase, State
from mmfuse.train import _gradient_plans
from mmfuse.train._counted import counted, is_supervised, view
from mmfuse.train._forward import Minimised, as_objective, evaluated, wanted_of
from mmfuse.train._optimizer import sgd
from mmfuse.train._separable import structure
from mmfuse.train._spine import Spine


def supervised(
  model: Model,
  objectives: Any = objectives_lib.fused_and_unimodal,
  tx: optax.GradientTransformation | None = None,
  *,
  aggregator: balancing.Aggregator | None = None,
  augment: Callable[..., Batch] | None = None,
  perturb: Callable[..., dict] | None = None,
  parts: int = 1,
  plan: str = "auto",
  aggregate_on: str = "parameters",
  coast: bool = False,
  predict: Callable[[Outputs, dict], Outputs] | None = None,
  log: Callable[[Outputs, Batch], dict[str, jax.Array]] | None = None,
  name: str = "train",
) -> Method:
  """A `Method` that minimises `objectives` of `model` under a balancing rule.

  Args:
    model: the contract of `core.Model` (`fusion.LateFusion`, `fusion.from_linen(...)`).
    objectives: `fn(outputs, batch, **extra) -> {name: scalar}` or an `Objective` with memory; default:
      the supervised losses of the fused head and of each modality's (`objectives.fused_and_unimodal`). Of
      the model in evaluation mode it may name `forward(inputs, mask) -> Outputs`, `encode(inputs,
      mask) -> features` and `heads(features, mask) -> Outputs`, all differentiable; `complete`, the batch
      with what this step drops (`Batch.keep`), which its own `batch.mask` leaves out; and `frozen`, the
      parts that `train.parts` lets it read.
    tx: any Optax transform, modulators included; `train.sgd()` if None.
    aggregator: a rule on the K losses or gradients; None minimises their sum.
    augment: `(batch, key) -> batch`, inside the compiled step; None = as it is.
    perturb: `(features, batch, key, clock) -> features`, between encoders and heads. It may name
      `heads(features, mask) -> Outputs`, and return `(features, batch)` to change the rows' weights.
      None = as they are.
    parts: S row groups per objective, default 1, for rules that need a variance (batch norm couples them).
    plan: "auto" (default) takes the cheapest exact one; or "sum", "weights", "stacked", "general".
    aggregate_on: "parameters" (default): exact; "features": the rule sees the gradients [K, B, D_m] of the
      losses with respect to the features, and one backward pass through the encoders follows: about
      the cost of a plain step, and another algorithm (MGDA-UB, BOGC's route 1). Heads keep their
      plain gradients.
    coast: let momentum and decay move an encoder that is absent from a whole batch; default False.
    predict: `(outputs, mask) -> outputs`: how this method's own prediction is made, if not by the
      fused head (None).
    log: `(outputs, batch) -> {name: scalar}`, further entries of a step's log, without a gradient, of a
      batch of which `perturb` dropped nothing. None = none.
    name: (default "train") of the phase, of its optimiser state `opt[name]` and, with "objective", of
      its memory.

  Uni-modal heads that no objective trains are fitted on `stop_gradient(features)`, a running linear
  probe that leaves the rule's gradients as they are (only a `tx` that looks at all of them at once,
  such as clipping by the global norm, sees the probes' too). `scores` come from the additive split of the
  fused head where it has one (concat, sum: z_m = h_m W_m + b/M), else from the uni-modal heads.

  Raises:
    ValueError: an impossible plan, or `parts` < 1.
    TypeError: an objective that cannot be called, a transform that keeps shapes as `aggregator`.
  """
  _check(parts, plan, aggregator, aggregate_on)
  minimised = Minimised(
    model=model,
    objective=as_objective(objectives),
    wanted=wanted_of(objectives),
    perturb=perturb,
    parts=parts,
    name=name,
  )
  _check_calls(minimised, plan, aggregate_on)
  spine = Spine(
    minimised=minimised,
    tx=optax.with_extra_args_support(sgd() if tx is None else tx),
    aggregator=aggregator,
    augment=augment,
    plan="features" if aggregate_on == "features" else plan,
    coast=coast,
    log=log,
  )
  return Method(
    spine.init,
    _Predict(model, predict),
    (Phase(name, spine.step),),
    {"diagnose": _Gradients(model, perturb, True), "gradients": _Gradients(model, perturb, False)},
  )


def _check(parts: int, plan: str, aggregator: Any, aggregate_on: str) -> None:
  """Raises for what cannot go together, whatever the objective."""
  if parts < 1:
    raise ValueError(f"parts must be at least 1, got {parts}")
  if plan not in ("auto", *_gradient_plans.PLANS):
    known = ", ".join(("auto", *_gradient_plans.PLANS))
    raise ValueError(f"unknown plan {plan!r}; expected one of: {known}")
  if aggregator is not None and not isinstance(aggregator, balancing.Aggregator):
    raise TypeError(
      "aggregator= takes a balancing.Aggregator ([K, *param] -> [*param]); "
      f"a {type(aggregator).__name__} that keeps shapes belongs into tx="
    )
  if parts > 1 and aggregator is None:
    raise ValueError(
      f"parts={parts} is for an aggregator that looks at them; give aggregator=, or parts=1"
    )
  if plan == "sum" and (aggregator is not None or parts > 1):
    raise ValueError("plan='sum' takes neither an aggregator nor parts")
  if plan == "weights" and (not isinstance(aggregator, balancing.Weighting) or parts > 1):
    raise ValueError("plan='weights' needs a balancing.Weighting and parts=1")
  if aggregate_on not in ("parameters", "features"):
    raise ValueError(f"aggregate_on must be 'parameters' or 'features', got {aggregate_on!r}")
  if aggregate_on == "features":
    if aggregator is None or isinstance(aggregator, balancing.Weighting) or parts > 1:
      raise ValueError("aggregate_on='features' is for an aggregator of gradients, with parts=1")
    if plan != "auto":
      raise ValueError("aggregate_on='features' is a plan of its own; leave plan='auto'")


def _check_calls(minimised: Minimised, plan: str, aggregate_on: str) -> None:
  """Raises where an objective that goes through the encoders meets a plan that cannot see it do so."""
  calls = minimised.through_encoders
  if calls and (plan == "stacked" or aggregate_on == "features"):
    what = (
      "the stacked plan; use plan='general'" if plan == "stacked" else "aggregate_on='features'"
    )
    raise ValueError(f"an objective that calls `{calls[0]}` cannot use {what}")


@dataclasses.dataclass(frozen=True)
class _Predict:
  """`Method.predict`. Equal for equal models, so that methods share compiled evaluations."""

  model: Any
  own: Callable[[Outputs, dict], Outputs] | None

  def __call__(self, state: State, inputs: dict, mask: dict) -> Outputs:
    inputs, mask = view(tuple(sorted(self.model.modalities)), inputs, mask)
    outputs = evaluated(self.model, state.params, state.stats, inputs, mask)
    return outputs if self.own is None else self.own(outputs, mask)


@dataclasses.dataclass(frozen=True)
class _Gradients:
  """Gradients [K, *param] of the fused loss and each uni-modal loss, whatever the method minimises.

  With `compare`, cosine, conflict and norms of the fused against the own gradient of each encoder.
  """

  model: Any
  perturb: Callable[..., dict] | None
  compare: bool

  def __call__(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    if not is_supervised(batch.label):
      return {}
    heads = Minimised(model=self.model, objective=as_objective(_every_head), perturb=self.perturb)
    batch = counted(heads.modalities, batch)
    state = state._replace(memory={heads.memory: ()})
    forward = heads.forward(state, batch, key, clock, probe=False)
    _, owners, separable = structure(forward, state.params)
    pull = _gradient_plans.stacked_gradients if separable else _gradient_plans.general_gradients
    pulled = pull(forward, state.params)
    return metrics.conflict(pulled.rows, owners, pulled.names) if self.compare else pulled.rows


def _every_head(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  return objectives_lib.supervised_losses(fused=outputs.logits is not None)(outputs, batch, **extra)
