"""The supervised step: a pass, the gradients a rule needs, the rule, the optimiser."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, tree
from mmfuse import objectives as objectives_lib
from mmfuse.core import Batch, Clock, Outputs, State, label_weight, used
from mmfuse.names import REGRESSION, SEGMENTATION
from mmfuse.train import _gradient_plans, _update
from mmfuse.train._counted import counted, is_supervised
from mmfuse.train._forward import Forward, Minimised, evaluated
from mmfuse.train._gradient_plans import Pulled
from mmfuse.train._initial import init_module
from mmfuse.train._row_groups import over_parts, part_shares, row_weights
from mmfuse.train._separable import Structure, feature_owners, structure


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Spine:
  """The functions of a supervised method; holds what `supervised` was given, checked."""

  minimised: Minimised
  tx: optax.GradientTransformationExtraArgs
  aggregator: balancing.Aggregator | None
  augment: Callable[..., Batch] | None
  plan: str  # "auto", one of `_gradient_plans.PLANS`, or "features"
  coast: bool
  log: Callable[..., dict[str, jax.Array]] | None = None  # further entries of a step's log

  def init(self, key: jax.Array, batch: Batch, num_rows: int) -> State:
    """`Method.init`."""
    del num_rows
    of = self.minimised
    batch = counted(of.modalities, batch)
    variables = init_module(of.model, key, batch.inputs, batch.mask)
    params, stats = variables["params"], variables.get("batch_stats", {})
    outputs = jax.eval_shape(lambda: evaluated(of.model, params, stats, batch.inputs, batch.mask))
    opt = _update.init_opt(self.tx, params, of.modalities, self.coast)
    if self.aggregator is not None:
      like = params if self.plan != "features" else _zeros(dict(outputs.features))
      opt["aggregator"] = self.aggregator.init(like)
    return State(params, stats, {of.name: opt}, {of.memory: of.objective.init(batch, outputs)})

  def step(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    """One optimisation step: pure, jit-able."""
    of = self.minimised
    augment_key, forward_key, rule_key = jax.random.split(key, 3)
    if self.augment is not None:
      batch = self.augment(batch, augment_key)
    batch = counted(of.modalities, batch)
    forward = of.forward(state, batch, forward_key, clock)
    plan, (reads, owners, separable) = self._planned(forward)
    # From here on, what the step drops counts as absent: the encoders alone still see it.
    batch = used(batch)
    context = {
      # Objectives without a row are left out of a rule's minima, means and Gram matrices.
      "present": jnp.stack([jnp.any(w > 0) for w in row_weights(reads, batch)]),
      "owners": owners,
      "key": rule_key,
      "clock": clock,
      "label": batch.label,
      "weight": label_weight(batch),  # read with `label`: 0 where that is unknown
      "mask": batch.mask,
    }
    pulled = self._pulled(plan, forward, separable, reads, batch, context)
    losses, (outputs, stats, memory) = pulled.losses, pulled.passed
    opt = dict(state.opt[of.name])
    if self.aggregator is not None:
      opt["aggregator"] = pulled.carried
    # Links of `tx` read what a rule read, and the losses over all parts.
    context |= seen(outputs, batch)
    # A row without a label moves nothing where every loss reads it.
    moving = label_weight(batch) > 0 if all(reads.values()) else batch.weight > 0
    present = None if self.coast else _update.present_in(batch.mask, moving)
    context |= {"losses": losses, "value": losses.sum()}
    if of.parts > 1:
      context["parts"] = pulled.rows
    gradient = pulled.gradient
    params, opt = _update.move(self.tx, gradient, opt, state.params, owners, present, context)
    if getattr(self.aggregator, "after", None) is not None:
      opt["aggregator"] = self._after(forward, params, reads, batch, opt["aggregator"])
    log = {f"loss/{n}": l for n, l in zip(pulled.names, losses)}
    if self.log is not None:
      log |= self.log(outputs, batch)
    log = _update.guarded(log, losses.sum(), gradient)
    opts, memories = {**state.opt, of.name: opt}, {**state.memory, of.memory: memory}
    return State(params, stats, opts, memories), log

  def _chosen(self, separable: bool) -> str:
    """The plan: the one asked for, or the cheapest that is exact."""
    if self.plan == "stacked" and not separable:
      raise ValueError(
        "plan='stacked' needs a model whose encoders touch one modality each; use 'general'"
      )
    if self.plan != "auto":
      return self.plan
    if self.aggregator is None:
      return "sum"
    if isinstance(self.aggregator, balancing.Weighting) and self.minimised.parts == 1:
      return "weights"
    if separable:
      return "stacked"
    calls = self.minimised.through_encoders
    cause = (
      f"the objective calls `{calls[0]}`" if calls else "the model is not separable by modality"
    )
    warnings.warn(f"{cause}: one full backward pass per objective", stacklevel=2)
    return "general"

  def _planned(self, forward: Forward) -> tuple[str, Structure]:
    """The plan, and what it is chosen by."""
    params = forward.state.params
    plan = self._chosen(separable=True)
    if plan in ("sum", "weights"):
      # Neither asks which loss reaches which leaf, and finding out takes further traces.
      return plan, Structure(
        forward.reads_label(), tree.owners_of(params, forward.modalities), False
      )
    found = structure(forward, params)
    found = found._replace(separable=found.separable and not self.minimised.through_encoders)
    return self._chosen(found.separable), found

  def _pulled(
    self,
    plan: str,
    forward: Forward,
    separable: bool,
    reads: Mapping[str, bool],
    batch: Batch,
    context: Mapping[str, Any],
  ) -> Pulled:
    """Losses [K] and the one gradient of the step, by the plan and the rule."""
    params: Any = forward.state.params
    rule: Any = self.aggregator
    kept = forward.state.opt[self.minimised.name].get("aggregator")
    if plan == "sum":
      return _gradient_plans.sum_gradient(forward, params)
    if plan == "weights":

      def weigh(losses, passed):
        extra = {"value": losses.sum(), **context, **seen(passed.outputs, batch)}
        return rule.weigh(losses, kept, params, **extra)

      return _gradient_plans.weighted_gradient(forward, params, weigh)
    if plan == "features":
      context = {**context, "owners": feature_owners(tuple(reads), forward.modalities, separable)}

      def aggregate(losses, rows, features, passed):
        extra = {"losses": losses, "value": losses.sum(), "heads": params.get(tree.HEADS, {})}
        return rule.update(rows, kept, features, **extra, **context, **seen(passed.outputs, batch))

      return _gradient_plans.feature_gradient(forward, params, aggregate)
    stacked = plan == "stacked"
    pull = _gradient_plans.stacked_gradients if stacked else _gradient_plans.general_gradients
    return self._combined(pull(forward, params), params, kept, reads, batch, context)

  def _combined(
    self,
    pulled: Pulled,
    params: Any,
    kept: Any,
    reads: Mapping[str, bool],
    batch: Batch,
    context: Mapping[str, Any],
  ) -> Pulled:
    """One gradient of the rows of all losses: the rule's, or their sum; `rows` are those of the parts."""
    losses, rows, parts, num = pulled.losses, pulled.rows, None, self.minimised.parts
    context = {**context, **seen(pulled.passed.outputs, batch)}
    if num > 1:
      parts = jax.tree.map(lambda g: g.reshape(num, len(reads), *g.shape[1:]), rows)
      context["parts"] = parts
      shares = part_shares(reads, batch, num)
      rows = jax.tree.map(lambda g: over_parts(shares, g), parts)
      losses = over_parts(shares, losses.reshape(num, len(reads)))
    carried = None
    if self.aggregator is None:
      combined = jax.tree.map(lambda g: g.sum(0), rows)
    else:
      extra = {"losses": losses, "value": losses.sum(), **context}
      combined, carried = self.aggregator.update(rows, kept, params, **extra)
    gradient = jax.tree.map(jnp.add, combined, pulled.probe)
    return pulled._replace(losses=losses, gradient=gradient, rows=parts, carried=carried)

  def _after(self, forward: Forward, params: Any, reads: Mapping[str, bool], batch: Batch, kept):
    """The rule's state once it has seen the losses of the same batch after the update (FAMO)."""
    losses, num = forward.run(params)[0][0].stacked(), self.minimised.parts
    if num > 1:
      losses = over_parts(part_shares(reads, batch, num), losses.reshape(num, -1))
    return self.aggregator.after(losses, kept)  # type: ignore[union-attr]


def _zeros(tree_: Any) -> Any:
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree_)


def seen(outputs: Outputs, batch: Batch) -> dict[str, Any]:
  """The part of the extra arguments that comes from the outputs; no gradient flows back."""
  outputs = jax.lax.stop_gradient(outputs)
  out = {
    "logits": outputs.logits,
    "unimodal_logits": outputs.unimodal_logits,
    "features": outputs.features,
    "split_logits": outputs.aux.get("split_logits"),
  }
  split = outputs.aux.get("split_logits") or outputs.unimodal_logits
  scored = is_supervised(batch.label) and objectives_lib.task_of(batch.label)
  classes = scored and scored not in (REGRESSION, SEGMENTATION)
  if split and classes:
    known = label_weight(batch) > 0
    mask = {m: v & known for m, v in batch.mask.items()}
    out["scores"] = balancing.scores(split, batch.label, mask)
  return out
