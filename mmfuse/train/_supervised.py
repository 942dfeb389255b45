"""The supervised spine: model, objectives, rule and optimiser become a `Method`."""

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, masks, metrics, tree
from mmfuse import objectives as objectives_lib
from mmfuse.core import (
  Batch,
  Clock,
  Method,
  Model,
  Objective,
  Outputs,
  Phase,
  State,
  label_weight,
  used,
)
from mmfuse.names import REGRESSION
from mmfuse.train import _plans, _update
from mmfuse.train._dependence import dependence
from mmfuse.train._lens import FROZEN


def _as_objective(objective: Any) -> Objective:
  if isinstance(objective, Objective):
    return objective
  if not callable(objective):
    raise TypeError(
      f"an objective is a function (outputs, batch) -> losses, got {type(objective).__name__}"
    )

  def apply(outputs, batch, memory, **extra):
    return objective(outputs, batch, **extra), memory

  return Objective(lambda batch, outputs: (), apply)


# What an objective gets by naming it: the model itself, in evaluation mode, and the batch before the
# step dropped anything (`Batch.keep`). Those that go through the encoders make a loss depend on all of
# them, which the stacked plan cannot see. `frozen`: `parts`.
HANDLES = ("forward", "encode", "heads", "complete", FROZEN)
THROUGH_ENCODERS = ("forward", "encode")


def _wanted(fn: Any) -> tuple[str, ...]:
  """Which of the handles a function names."""
  fn = fn.apply if isinstance(fn, Objective) else fn
  return tuple(h for h in HANDLES if h in inspect.signature(fn).parameters)


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
  name: str = "train",
) -> Method:
  """A `Method` that minimises `objectives` of `model` under a balancing rule.

  Args:
    model: the contract of `core.Model` (`fusion.LateFusion`, `fusion.from_linen(...)`).
    objectives: `fn(outputs, batch, **extra) -> {name: scalar}` or an `Objective` with memory. Of
      the model in evaluation mode it may name `forward(inputs, mask) -> Outputs`, `encode(inputs,
      mask) -> features` and `heads(features, mask) -> Outputs`, all differentiable; `complete`, the batch
      with what this step drops (`Batch.keep`), which its own `batch.mask` leaves out; and `frozen`, the
      parts that `train.parts` lets it read.
    tx: any Optax transform, modulators included; `train.sgd()` if None.
    aggregator: a rule on the K losses or gradients; None minimises their sum.
    augment: `(batch, key) -> batch`, inside the compiled step.
    perturb: `(features, batch, key, clock) -> features`, between encoders and heads. It may name
      `heads(features, mask) -> Outputs`, and return `(features, batch)` to change the rows' weights.
    parts: S row groups per objective, for rules that need a variance (batch norm couples them).
    plan: "auto" takes the cheapest exact one; or "sum", "weights", "stacked", "general".
    aggregate_on: "parameters": exact; "features": the rule sees the gradients [K, B, D_m] of the
      losses with respect to the features, and one backward pass through the encoders follows: about
      the cost of a plain step, and another algorithm (MGDA-UB, BOGC's route 1). Heads keep their
      plain gradients.
    coast: let momentum and decay move an encoder that is absent from a whole batch.
    predict: `(outputs, mask) -> outputs`: how this method's own prediction is made, if not by the
      fused head.
    name: of the phase, of its optimiser state `opt[name]` and, with "objective", of its memory.

  Uni-modal heads that no objective trains are fitted on `stop_gradient(features)`, a running linear
  probe that leaves the rule's gradients as they are (only a `tx` that looks at all of them at once,
  such as clipping by the global norm, sees the probes' too). `scores` come from the additive split of the
  fused head where it has one (concat, sum: z_m = h_m W_m + b/M), else from the uni-modal heads.

  Raises:
    ValueError: an impossible plan, or `parts` < 1.
  """
  if parts < 1:
    raise ValueError(f"parts must be at least 1, got {parts}")
  if plan not in ("auto", *_plans.PLANS):
    raise ValueError(f"unknown plan {plan!r}; expected one of: auto, {', '.join(_plans.PLANS)}")
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
  objective = _as_objective(objectives)
  wanted = _wanted(objectives)
  through = [h for h in wanted if h in THROUGH_ENCODERS]
  if through and (plan == "stacked" or aggregate_on == "features"):
    what = (
      "the stacked plan; use plan='general'" if plan == "stacked" else "aggregate_on='features'"
    )
    raise ValueError(f"an objective that calls `{through[0]}` cannot use {what}")
  tx = optax.with_extra_args_support(tx if tx is not None else _default_tx())
  spine = _Spine(
    model,
    objective,
    wanted,
    tx,
    aggregator,
    augment,
    perturb,
    parts,
    "features" if aggregate_on == "features" else plan,
    coast,
    name,
  )
  return Method(
    spine.init,
    _Predict(model, predict),
    (Phase(name, spine.step),),
    {"diagnose": _Gradients(model, perturb, True), "gradients": _Gradients(model, perturb, False)},
  )


def _default_tx():
  from mmfuse.train._optimizer import sgd

  return sgd()


@functools.partial(jax.jit, static_argnames=("model",))
def _init_model(model, key, inputs, mask):
  """Compiled on its own: every method of a table starts from the same program."""
  return model.init(key, inputs, mask)


def _view(modalities, inputs, mask):
  """The model's modalities of a batch, absent rows zeroed."""
  missing = [m for m in modalities if m not in inputs]
  if missing:
    raise ValueError(
      f"modality {missing[0]!r} not in batch; available: {', '.join(sorted(inputs))}"
    )
  mask = {m: mask[m] for m in modalities}
  return masks.fill({m: inputs[m] for m in modalities}, mask), mask


def counted(modalities, batch: Batch) -> Batch:
  """What a step sees of a batch: a row of weight 0 has no modality, an unknown label reads 0.

  Absent inputs are zeroed. So neither padding nor what stands in place of a label is ever read.
  """
  real, known = batch.weight > 0, label_weight(batch) > 0
  inputs, mask = _view(modalities, batch.inputs, {m: batch.mask[m] & real for m in modalities})

  def select(x):
    x = jnp.asarray(x)
    return jnp.where(known.reshape((-1,) + (1,) * (x.ndim - 1)), x, jnp.zeros((), x.dtype))

  keep = None if batch.keep is None else {m: batch.keep[m] for m in mask}
  return batch._replace(
    inputs=inputs, mask=mask, keep=keep, label=jax.tree.map(select, batch.label)
  )


def _eval(model, params, stats, inputs, mask) -> Outputs:
  variables = {"params": params, "batch_stats": stats}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  variables = {"params": params, "batch_stats": stats}
  return model.heads(variables, features, mask, train=False, rngs=None)[0]


@dataclasses.dataclass(frozen=True)
class _Predict:
  """`Method.predict`. Equal for equal models, so that methods share compiled evaluations."""

  model: Any
  own: Callable[[Outputs, dict], Outputs] | None

  def __call__(self, state: State, inputs: dict, mask: dict) -> Outputs:
    inputs, mask = _view(tuple(sorted(self.model.modalities)), inputs, mask)
    outputs = _eval(self.model, state.params, state.stats, inputs, mask)
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
    if not _is_supervised(batch.label):
      return {}
    spine = _Spine(
      self.model,
      _as_objective(_every_head),
      (),
      optax.identity(),
      None,
      None,
      self.perturb,
      1,
      "auto",
      True,
      "train",
    )
    batch = counted(spine.modalities, batch)
    state = state._replace(memory={"objective": ()})
    forward, owners, separable, _ = spine._plans(state, batch, key, clock, probe=False)
    pull = _plans.stacked_gradients if separable else _plans.general_gradients
    rows = pull(forward, state.params)[1]
    return metrics.conflict(rows, owners, forward.names) if self.compare else rows


class _Spine:
  """The functions of a supervised method; holds only what `supervised` was given."""

  def __init__(
    self, model, objective, wanted, tx, aggregator, augment, perturb, parts, plan, coast, name
  ):
    self.model, self.objective, self.wanted = model, objective, wanted
    self.tx, self.aggregator, self.augment, self.perturb = tx, aggregator, augment, perturb
    self.parts, self.plan, self.coast, self.name = parts, plan, coast, name
    self.memory = "objective" if name == "train" else f"objective/{name}"
    self.through_encoders = any(h in THROUGH_ENCODERS for h in wanted)
    self.modalities = tuple(sorted(model.modalities))

  def init(self, key: jax.Array, batch: Batch, num_rows: int) -> State:
    del num_rows
    batch = counted(self.modalities, batch)
    variables = _init_model(self.model, key, batch.inputs, batch.mask)
    params, stats = variables["params"], variables.get("batch_stats", {})
    outputs = jax.eval_shape(lambda: _eval(self.model, params, stats, batch.inputs, batch.mask))
    opt = _update.init_opt(self.tx, params, self.modalities, self.coast)
    if self.aggregator is not None:
      like = (
        params
        if self.plan != "features"
        else jax.tree.map(lambda f: jnp.zeros(f.shape, f.dtype), dict(outputs.features))
      )
      opt["aggregator"] = self.aggregator.init(like)
    return State(
      params, stats, {self.name: opt}, {self.memory: self.objective.init(batch, outputs)}
    )

  def _forward(
    self, state: State, batch: Batch, key: jax.Array, clock: Clock, objective=None, probe=True
  ):
    """The two halves of a pass as functions of parameters, and the objective names."""
    objective = objective or self.objective
    dropout, noise, loss_key = jax.random.split(key, 3)
    rngs = {"dropout": dropout}
    memory = state.memory[self.memory]
    perturbing = () if self.perturb is None else _wanted(self.perturb)
    names: list[str] = []

    def evaluated(params, stats):
      """The model in evaluation mode, for objectives and perturbations that ask for it."""
      variables = {"params": params, "batch_stats": stats}
      options = {"train": False, "rngs": None}
      return {
        "forward": lambda inputs, mask: _eval(
          self.model, params, stats, *_view(self.modalities, inputs, mask)
        ),
        "encode": lambda inputs, mask: self.model.encode(
          variables, *_view(self.modalities, inputs, mask), **options
        )[0],
        "heads": lambda features, mask: self.model.heads(variables, features, mask, **options)[0],
        "complete": batch,
        FROZEN: state.memory.get(FROZEN, {}),
      }

    def encode(params):
      variables = {"params": params, "batch_stats": state.stats}
      features, stats = self.model.encode(
        variables, batch.inputs, batch.mask, train=True, rngs=rngs
      )
      seen = used(batch)
      if batch.keep is not None:
        features = masks.fill(features, seen.mask)
      rows = (seen.weight, seen.mask)
      if self.perturb is not None:
        handles = evaluated(params, stats)
        features = self.perturb(
          features, seen, key=noise, clock=clock, **{h: handles[h] for h in perturbing}
        )
        if isinstance(features, tuple):
          features, changed = features
          rows = (changed.weight, changed.mask)
      return features, (stats, rows)

    def heads(params, features, carried):
      stats, (weight, mask) = carried
      seen = batch._replace(weight=weight, mask=mask, keep=None)

      def apply(features, params=params):
        variables = {"params": params, "batch_stats": stats}
        return self.model.heads(variables, features, mask, train=True, rngs=rngs)

      outputs, new_stats = apply(features)
      handles = evaluated(params, stats)
      extra = {"key": loss_key, "clock": clock, **{h: handles[h] for h in self.wanted}}
      losses, kept = [], memory
      for group in self._groups(seen):
        named, kept = objective.apply(outputs, group, kept, **extra)
        names[:] = list(named)
        losses += [l.astype(jnp.float32) for l in named.values()]
      probed = jnp.zeros((), jnp.float32)
      untrained = [m for m in sorted(outputs.unimodal_logits) if m not in names]
      if probe and untrained and _is_supervised(batch.label):
        free = apply(jax.lax.stop_gradient(features), self._probed(params))[0]
        fit = objectives_lib.unimodal(free, seen)
        probed = sum((fit[m] for m in untrained), probed)
      return (tuple(losses), probed), (outputs, new_stats, kept)

    return encode, heads, names

  def _groups(self, batch: Batch) -> list[Batch]:
    """The batch as `parts` batches, by the weights of its rows."""
    if self.parts == 1:
      return [batch]
    place = jnp.cumsum(batch.weight > 0) - 1  # among the rows that count: equal parts of those
    return [
      batch._replace(weight=jnp.where(place % self.parts == s, batch.weight, 0.0))
      for s in range(self.parts)
    ]

  def _part_shares(self, names, reads, batch: Batch) -> jax.Array:
    """[S, K]: the part of the rows of each objective that each part holds; 0 where there is none."""
    held = jnp.stack(
      [
        jnp.stack([w.sum() for w in self._row_weights(names, reads, g)])
        for g in self._groups(batch)
      ]
    )
    return held / jnp.maximum(held.sum(0, keepdims=True), 1e-12)

  def _probed(self, params):
    """Gradients for the uni-modal heads alone: what the rule's losses reach is the rule's."""
    return jax.tree.map(
      lambda p, l: p if l.part == "head" and l.modality else jax.lax.stop_gradient(p),
      params,
      tree.owners_of(params, self.modalities),
    )

  def _plans(self, state, batch, key, clock, objective=None, probe=True, rows=True):
    """-> (Forward with names, owners (with the rows that reach a leaf if asked for), separable,
    which objectives can depend on the label)."""
    names: tuple[str, ...] = ()

    def losses(label):
      nonlocal names
      encode, heads, found = self._forward(
        state, batch._replace(label=label), key, clock, objective, probe
      )
      out = heads(state.params, *encode(state.params))[0][0]
      names = tuple(found)
      return out

    reach = dependence(losses, batch.label)
    reads = tuple(any(map(bool, reach[k :: len(names)])) for k in range(len(names)))
    encode, heads, _ = self._forward(state, batch, key, clock, objective, probe)
    forward = _plans.Forward(encode, heads, names, self.parts, self.modalities)
    if not rows:
      return forward, tree.owners_of(state.params, self.modalities), False, reads
    owners, separable = _plans.structure(forward, state.params)
    return forward, owners, separable and not self.through_encoders, reads

  def _row_weights(self, names, reads, batch: Batch) -> list[jax.Array]:
    """K weights [B], of the rows that each objective is a mean over."""
    known = label_weight(batch)
    weights = [known if r else batch.weight for r in reads]
    return [
      jnp.where(batch.mask[n], w, 0.0) if n in batch.mask else w for n, w in zip(names, weights)
    ]

  def _choose(self, separable: bool) -> str:
    if self.plan != "auto":
      if self.plan == "stacked" and not separable:
        raise ValueError(
          "plan='stacked' needs a model whose encoders touch one modality each; use 'general'"
        )
      return self.plan
    if self.aggregator is None:
      return "sum"
    if isinstance(self.aggregator, balancing.Weighting) and self.parts == 1:
      return "weights"
    if not separable:
      calls = [h for h in self.wanted if h in THROUGH_ENCODERS]
      cause = (
        f"the objective calls `{calls[0]}`" if calls else ("the model is not separable by modality")
      )
      warnings.warn(f"{cause}: one full backward pass per objective", stacklevel=2)
    return "stacked" if separable else "general"

  def step(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    """One optimisation step: pure, jit-able."""
    augment_key, forward_key, rule_key = jax.random.split(key, 3)
    if self.augment is not None:
      batch = self.augment(batch, augment_key)
    batch = counted(self.modalities, batch)
    needs_rows = self._choose(True) in ("stacked", "general", "features")
    forward, owners, separable, reads = self._plans(
      state, batch, forward_key, clock, rows=needs_rows
    )
    batch = used(batch)  # from here on: what the step drops counts as absent
    plan = self._choose(separable)
    rows_of = self._row_weights(forward.names, reads, batch)
    opt = dict(state.opt[self.name])
    # `weight` is what rules read with `label`: 0 where the label is unknown.
    context = {
      "present": jnp.stack([jnp.any(w > 0) for w in rows_of]),
      "owners": owners,
      "key": rule_key,
      "clock": clock,
      "label": batch.label,
      "weight": label_weight(batch),
      "mask": batch.mask,
    }

    if plan == "sum":
      losses, grads, aux = _plans.sum_gradient(forward, state.params)
    elif plan == "weights":
      losses, grads, aux, opt["aggregator"] = _plans.weighted_gradient(
        forward,
        state.params,
        lambda l, aux: self.aggregator.weigh(
          l, opt["aggregator"], state.params, value=l.sum(), **context, **self._seen(aux[0], batch)
        ),
      )
    elif plan == "features":
      context["owners"] = _plans.feature_labels(forward, separable)
      losses, grads, aux, opt["aggregator"] = _plans.feature_gradient(
        forward,
        state.params,
        lambda l, rows, features, aux: self.aggregator.update(
          rows,
          opt["aggregator"],
          features,
          losses=l,
          value=l.sum(),
          heads=state.params.get(tree.HEADS, {}),
          **context,
          **self._seen(aux[0], batch),
        ),
      )
      context["owners"] = owners
    else:
      pull = _plans.stacked_gradients if plan == "stacked" else _plans.general_gradients
      losses, rows, probe, aux = pull(forward, state.params)
      context |= self._seen(aux[0], batch)
      if self.parts > 1:
        num = len(forward.names)
        context["parts"] = jax.tree.map(lambda g: g.reshape(self.parts, num, *g.shape[1:]), rows)
        shares = self._part_shares(forward.names, reads, batch)
        rows = jax.tree.map(lambda g: _over_parts(shares, g), context["parts"])
        losses = (shares * losses.reshape(self.parts, num)).sum(0)
      if self.aggregator is None:
        combined = jax.tree.map(lambda g: g.sum(0), rows)
      else:
        combined, opt["aggregator"] = self.aggregator.update(
          rows, opt["aggregator"], state.params, losses=losses, value=losses.sum(), **context
        )
      grads = jax.tree.map(jnp.add, combined, probe)

    outputs, stats, memory = aux
    context |= self._seen(outputs, batch)
    # A row without a label moves nothing where every loss reads it.
    moving = label_weight(batch) > 0 if all(reads) else batch.weight > 0
    present = None if self.coast else _update.present_in(batch.mask, moving)
    context |= {"losses": losses, "value": losses.sum()}
    params, opt = _update.move(self.tx, grads, opt, state.params, owners, present, context)
    new = State(params, stats, {**state.opt, self.name: opt}, {**state.memory, self.memory: memory})
    if getattr(self.aggregator, "after", None) is not None:
      after = jnp.stack(_plans.run(forward, params)[0][0])
      if self.parts > 1:
        after = (
          self._part_shares(forward.names, reads, batch) * after.reshape(self.parts, -1)
        ).sum(0)
      opt["aggregator"] = self.aggregator.after(after, opt["aggregator"])
    log = _update.guarded(
      {f"loss/{n}": l for n, l in zip(forward.names, losses)}, losses.sum(), grads
    )
    return new, log

  def _seen(self, outputs: Outputs, batch: Batch) -> dict:
    """The part of the extra arguments that comes from the outputs; no gradient flows back."""
    outputs = jax.lax.stop_gradient(outputs)
    seen = {
      "logits": outputs.logits,
      "unimodal_logits": outputs.unimodal_logits,
      "features": outputs.features,
      "split_logits": outputs.aux.get("split_logits"),
    }
    split = outputs.aux.get("split_logits") or outputs.unimodal_logits
    classes = _is_supervised(batch.label) and objectives_lib.task_of(batch.label) != REGRESSION
    if split and classes:
      known = label_weight(batch) > 0
      seen["scores"] = balancing.scores(
        split, batch.label, {m: v & known for m, v in batch.mask.items()}
      )
    return seen


def _is_supervised(label) -> bool:
  """Whether the supervised losses can read the label: one array, of rows or of rows and columns."""
  return hasattr(label, "dtype") and label.ndim <= 2


def _every_head(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  return objectives_lib.supervised_losses(fused=outputs.logits is not None)(outputs, batch, **extra)


def _over_parts(shares: jax.Array, gradients: jax.Array) -> jax.Array:
  """The mean over the batch from the means over its parts: [S, K] x [S, K, *param] -> [K, *param]."""
  shaped = shares.reshape(*shares.shape, *(1,) * (gradients.ndim - 2)).astype(gradients.dtype)
  return (shaped * gradients).sum(0)
