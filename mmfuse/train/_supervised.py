"""The supervised spine: model, objectives, rule and optimiser become a `Method`."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, masks, metrics, tree
from mmfuse import objectives as objectives_lib
from mmfuse.core import Batch, Clock, Method, Objective, Outputs, Phase, State
from mmfuse.train import _plans


def _as_objective(objective: Any) -> Objective:
  if isinstance(objective, Objective):
    return objective
  if not callable(objective):
    raise TypeError(f"an objective is a function (outputs, batch) -> losses, got {type(objective).__name__}")

  def apply(outputs, batch, memory, **extra):
    return objective(outputs, batch, **extra), memory

  return Objective(lambda batch, outputs: (), apply)


def _wants_forward(objective: Any) -> bool:
  fn = objective.apply if isinstance(objective, Objective) else objective
  return "forward" in inspect.signature(fn).parameters


def supervised(
    model: Any,
    objectives: Any = objectives_lib.fused_and_unimodal,
    tx: optax.GradientTransformation | None = None,
    *,
    aggregator: balancing.Aggregator | None = None,
    augment: Callable[..., Batch] | None = None,
    perturb: Callable[..., dict] | None = None,
    parts: int = 1,
    plan: str = "auto",
    coast: bool = False,
    predict: Callable[[Outputs, dict], Outputs] | None = None,
) -> Method:
  """A `Method` that minimises `objectives` of `model` under a balancing rule.

  Args:
    model: the contract of `core.Model` (`fusion.LateFusion`, `fusion.from_linen(...)`).
    objectives: `fn(outputs, batch, **extra) -> {name: scalar}` or an `Objective` with memory.
    tx: any Optax transform, modulators included; `train.sgd()` if None.
    aggregator: a rule on the K losses or gradients; None minimises their sum.
    augment: `(batch, key) -> batch`, inside the compiled step.
    perturb: `(features, batch, key, clock) -> features`, between encoders and heads.
    parts: S row groups per objective, for rules that need a variance (batch norm couples the parts).
    plan: "auto" takes the cheapest exact one; or "sum", "weights", "stacked", "general".
    coast: let momentum and decay move an encoder that is absent from a whole batch.
    predict: `(outputs, mask) -> outputs`: how this method's own prediction is made, if not the fused head.

  Uni-modal heads that no objective trains are fitted on `stop_gradient(features)`, a running linear
  probe that leaves the rule's gradients as they are. `scores` come from the additive split of the
  fused head where it has one (concat, sum: z_m = h_m W_m + b/M), else from the uni-modal heads.

  Raises:
    ValueError: an impossible plan, or `parts` < 1.
  """
  if parts < 1:
    raise ValueError(f"parts must be at least 1, got {parts}")
  if plan not in ("auto", *_plans.PLANS):
    raise ValueError(f"unknown plan {plan!r}; expected one of: auto, {', '.join(_plans.PLANS)}")
  if aggregator is not None and not isinstance(aggregator, balancing.Aggregator):
    raise TypeError("aggregator= takes a balancing.Aggregator ([K, *param] -> [*param]); "
                    f"a {type(aggregator).__name__} that keeps shapes belongs into tx=")
  if plan == "sum" and (aggregator is not None or parts > 1):
    raise ValueError("plan='sum' takes neither an aggregator nor parts")
  if plan == "weights" and (not isinstance(aggregator, balancing.Weighting) or parts > 1):
    raise ValueError("plan='weights' needs a balancing.Weighting and parts=1")
  if plan == "stacked" and _wants_forward(objectives):
    raise ValueError("an objective that calls `forward` cannot use the stacked plan; use plan='general'")
  tx = optax.with_extra_args_support(tx if tx is not None else _default_tx())
  spine = _Spine(model, _as_objective(objectives), _wants_forward(objectives), tx, aggregator,
                 augment, perturb, parts, plan, coast, predict)
  return Method(spine.init, spine.predict, (Phase("train", spine.step),), {"diagnose": spine.diagnose})


def _default_tx():
  from mmfuse.train._optimizer import sgd
  return sgd()


class _Spine:
  """The functions of a supervised method; holds only what `supervised` was given."""

  def __init__(self, model, objective, wants_forward, tx, aggregator, augment, perturb, parts, plan, coast, predict):
    self.model, self.objective, self.wants_forward = model, objective, wants_forward
    self.tx, self.aggregator, self.augment, self.perturb = tx, aggregator, augment, perturb
    self.parts, self.plan, self.coast, self.own_predict = parts, plan, coast, predict
    self.modalities = tuple(sorted(model.modalities))

  # What a step sees of a batch.

  def _view(self, inputs, mask):
    missing = [m for m in self.modalities if m not in inputs]
    if missing:
      raise ValueError(f"modality {missing[0]!r} not in batch; available: {', '.join(sorted(inputs))}")
    mask = {m: mask[m] for m in self.modalities}
    return masks.fill({m: inputs[m] for m in self.modalities}, mask), mask

  def _batch(self, batch: Batch) -> Batch:
    real = batch.weight > 0
    inputs, mask = self._view(batch.inputs, {m: batch.mask[m] & real for m in self.modalities})
    return batch._replace(inputs=inputs, mask=mask)

  def init(self, key: jax.Array, batch: Batch) -> State:
    batch = self._batch(batch)
    variables = self.model.init(key, batch.inputs, batch.mask)
    params, stats = variables["params"], variables.get("batch_stats", {})
    outputs = jax.eval_shape(lambda: self._eval(params, stats, batch.inputs, batch.mask))
    opt = {"tx": self.tx.init(params)}
    if self.aggregator is not None:
      opt["aggregator"] = self.aggregator.init(params)
    return State(params, stats, {"train": opt}, {"objective": self.objective.init(batch, outputs)})

  def _eval(self, params, stats, inputs, mask) -> Outputs:
    variables = {"params": params, "batch_stats": stats}
    features, stats = self.model.encode(variables, inputs, mask, train=False, rngs=None)
    variables = {"params": params, "batch_stats": stats}
    return self.model.heads(variables, features, mask, train=False, rngs=None)[0]

  def predict(self, state: State, inputs: dict, mask: dict) -> Outputs:
    inputs, mask = self._view(inputs, mask)
    outputs = self._eval(state.params, state.stats, inputs, mask)
    return outputs if self.own_predict is None else self.own_predict(outputs, mask)

  def _forward(self, state: State, batch: Batch, key: jax.Array, clock: Clock, objective=None, probe=True):
    """The two halves of a pass as functions of parameters, and the objective names."""
    objective = objective or self.objective
    dropout, noise, loss_key = jax.random.split(key, 3)
    rngs = {"dropout": dropout}
    memory = state.memory["objective"]
    groups = [batch] if self.parts == 1 else [
        batch._replace(weight=jnp.where(jnp.arange(batch.weight.shape[0]) % self.parts == s, batch.weight, 0.0))
        for s in range(self.parts)]
    names: list[str] = []

    def encode(params):
      variables = {"params": params, "batch_stats": state.stats}
      features, stats = self.model.encode(variables, batch.inputs, batch.mask, train=True, rngs=rngs)
      if self.perturb is not None:
        features = self.perturb(features, batch, key=noise, clock=clock)
      return features, stats

    def heads(params, features, stats):
      def apply(features):
        variables = {"params": params, "batch_stats": stats}
        return self.model.heads(variables, features, batch.mask, train=True, rngs=rngs)

      outputs, new_stats = apply(features)
      extra = {"key": loss_key, "clock": clock}
      if self.wants_forward:
        extra["forward"] = lambda inputs, mask: self._eval(
            params, state.stats, *self._view(inputs, mask))
      losses, carried = [], memory
      for group in groups:
        named, carried = objective.apply(outputs, group, carried, **extra)
        names[:] = list(named)
        losses += [l.astype(jnp.float32) for l in named.values()]
      probed = jnp.zeros((), jnp.float32)
      untrained = [m for m in sorted(outputs.unimodal_logits) if m not in names]
      if probe and untrained and batch.label is not None:
        free = apply(jax.lax.stop_gradient(features))[0]
        fit = objectives_lib.unimodal(free, batch)
        probed = sum((fit[m] for m in untrained), probed)
      return (tuple(losses), probed), (outputs, new_stats, carried)

    return encode, heads, names

  def _plans(self, state, batch, key, clock, objective=None, probe=True, rows=True):
    """-> (Forward with names, labels (with the rows that reach a leaf if asked for), separable)."""
    encode, heads, names = self._forward(state, batch, key, clock, objective, probe)
    jax.eval_shape(lambda p: heads(p, *encode(p)), state.params)  # fills the names
    forward = _plans.Forward(encode, heads, tuple(names), self.parts, self.modalities)
    if not rows:
      return forward, tree.label_leaves(state.params, self.modalities), False
    labels, separable = _plans.structure(forward, state.params)
    return forward, labels, separable and not self.wants_forward

  def _present(self, names, batch):
    rows = batch.weight > 0
    return jnp.stack([jnp.any(batch.mask[n] & rows if n in batch.mask else rows) for n in names])

  def _choose(self, separable: bool) -> str:
    if self.plan != "auto":
      if self.plan == "stacked" and not separable:
        raise ValueError("plan='stacked' needs a model whose encoders touch one modality each; use 'general'")
      return self.plan
    if self.aggregator is None:
      return "sum"
    if isinstance(self.aggregator, balancing.Weighting) and self.parts == 1:
      return "weights"
    if not separable:
      warnings.warn("the model is not separable by modality: one full backward pass per objective",
                    stacklevel=2)
    return "stacked" if separable else "general"

  def step(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    """One optimisation step: pure, jit-able."""
    augment_key, forward_key, rule_key = jax.random.split(key, 3)
    if self.augment is not None:
      batch = self.augment(batch, augment_key)
    batch = self._batch(batch)
    needs_rows = self._choose(True) in ("stacked", "general")
    forward, labels, separable = self._plans(state, batch, forward_key, clock, rows=needs_rows)
    plan = self._choose(separable)
    present = self._present(forward.names, batch)
    opt = dict(state.opt["train"])
    context = {"present": present, "labels": labels, "key": rule_key, "clock": clock,
               "label": batch.label, "weight": batch.weight, "mask": batch.mask}

    if plan == "sum":
      losses, grads, aux = _plans.sum_gradient(forward, state.params)
    elif plan == "weights":
      losses, grads, aux, opt["aggregator"] = _plans.weighted_gradient(
          forward, state.params,
          lambda l: self.aggregator.weigh(l, opt["aggregator"], state.params, **context))
    else:
      pull = _plans.stacked_gradients if plan == "stacked" else _plans.general_gradients
      losses, rows, probe, aux = pull(forward, state.params)
      context |= self._seen(aux[0], batch)
      if self.parts > 1:
        num = len(forward.names)
        context["parts"] = jax.tree.map(
            lambda g: g.reshape(self.parts, num, *g.shape[1:]), rows)
        rows = jax.tree.map(lambda g: g.mean(0), context["parts"])
        losses = losses.reshape(self.parts, num).mean(0)
      if self.aggregator is None:
        combined = jax.tree.map(lambda g: g.sum(0), rows)
      else:
        combined, opt["aggregator"] = self.aggregator.update(
            rows, opt["aggregator"], state.params, losses=losses, value=losses.sum(), **context)
      grads = jax.tree.map(jnp.add, combined, probe)

    outputs, stats, memory = aux
    context |= self._seen(outputs, batch)
    updates, opt["tx"] = self.tx.update(
        grads, opt["tx"], state.params, losses=losses, value=losses.sum(), **context)
    if not self.coast:
      updates = _freeze_absent(updates, labels, batch.mask)
    params = optax.apply_updates(state.params, updates)
    new = State(params, stats, {**state.opt, "train": opt}, {**state.memory, "objective": memory})
    if plan == "weights" and self.aggregator.after is not None:
      after = jnp.stack(_plans.run(forward, params)[0][0])
      opt["aggregator"] = self.aggregator.after(after, opt["aggregator"])
    log = {f"loss/{n}": l for n, l in zip(forward.names, losses)}
    log["gradient_norm"] = optax.tree.norm(grads)
    log["finite"] = jnp.isfinite(losses.sum()) & jnp.isfinite(log["gradient_norm"])
    return new, log

  def _seen(self, outputs: Outputs, batch: Batch) -> dict:
    """The part of the extra-argument vocabulary that comes from the outputs; no gradient flows back."""
    outputs = jax.lax.stop_gradient(outputs)
    seen = {"logits": outputs.logits, "unimodal_logits": outputs.unimodal_logits, "features": outputs.features}
    split = outputs.aux.get("split_logits") or outputs.unimodal_logits
    if split and batch.label is not None and objectives_lib.task_of(batch.label) != "regression":
      seen["scores"] = balancing.scores(split, batch.label, batch.mask)
    return seen

  def diagnose(self, state: State, batch: Batch, key: jax.Array, clock: Clock) -> dict[str, jax.Array]:
    """Fused against own gradient of each encoder on one batch: cosine, conflict, norms."""
    batch = self._batch(batch)
    objective = _as_objective(objectives_lib.fused_and_unimodal)
    state = state._replace(memory={"objective": ()})
    spine = self if self.parts == 1 else _Spine(
        self.model, objective, False, self.tx, None, None, self.perturb, 1, "auto", True, None)
    forward, labels, separable = spine._plans(state, batch, key, clock, objective, probe=False)
    pull = _plans.stacked_gradients if separable else _plans.general_gradients
    _, rows, _, _ = pull(forward, state.params)
    return metrics.conflict(rows, labels, forward.names)


def _freeze_absent(updates, labels, mask):
  """Zero update for every leaf of a modality that is absent from the whole batch."""
  moved = {m: jnp.any(v) for m, v in mask.items()}
  return jax.tree.map(
      lambda u, l: u if l.modality not in moved else jnp.where(moved[l.modality], u, jnp.zeros_like(u)),
      updates, labels)
