"""MLA: modalities take turns inside a step, each with its own encoder and one head for all.

Zhang, Yoon, Bansal, Yao: "Multimodal Representation Learning by Alternating Unimodal Adaptation",
CVPR 2024. Projection of the head's gradient and fusion by entropy: `_mla_rules.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, objectives, train, tree
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Batch, Clock, Method, Outputs, State, Unavailable, label_weight, used
from mmfuse.fusion._late import named_key
from mmfuse.methods.balancing import _mla_rules as rule
from mmfuse.objectives._branches import check_classes
from mmfuse.tree import FUSED, HEADS

REST = "shared"  # the parameters of no encoder: the head, and whatever else the model shares


def shared_head(model: Any, fusion: str = "sample") -> train.Wrapped:
  r"""z_m = h_m W + b for every m, logits = \sum_m lambda_m z_m: a `core.Model` on a model's encoders.

  The model's own heads and fusion are left out. params["heads"]["fused"]: kernel W [D, C] and bias
  b [C]. lambda: `entropy_weights` under `fusion`. Outputs: logits [B, C], the z_m as
  unimodal_logits, features h_m [B, D]. The model's dropout rate on features, if it has one, holds.
  `init` raises Unavailable unless all features are [B, D].
  """
  return train.Wrapped(model, init_fn=_init_shared, heads_fn=_SharedHeads(fusion))


def _init_shared(model, key, inputs, mask):
  """The encoders' variables and one head."""
  variables = model.init(key, inputs, mask)
  if HEADS not in variables["params"]:
    raise Unavailable('mla needs a model with heads under params["heads"], to replace them')
  features, outputs = jax.eval_shape(lambda v: _shapes(model, v, inputs, mask), variables)
  width = _common_width(features)
  dense = nn.Dense(_num_classes(outputs))
  head = dense.init(named_key(key, f"{HEADS}/{FUSED}"), jnp.zeros((1, width)))["params"]
  params = {**variables["params"], HEADS: {FUSED: head}}
  stats = {k: v for k, v in variables.get("batch_stats", {}).items() if k != HEADS}
  return {"params": params, "batch_stats": stats}


def _shapes(model, variables, inputs, mask):
  variables = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  variables = {**variables, "batch_stats": stats}
  return features, model.heads(variables, features, mask, train=False, rngs=None)[0]


@dataclasses.dataclass(frozen=True)
class _SharedHeads:
  """Logits of every modality by the one head, and their fusion."""

  fusion: str

  def __call__(self, model, variables, features, mask, *, train, rngs=None):
    rate, params = getattr(model, "dropout", 0.0), variables["params"]
    branches = {
      m: branch(rate, params, h, m, train=train, rngs=rngs) for m, h in sorted(features.items())
    }
    logits = rule.fuse(branches, mask, self.fusion)
    return Outputs(logits, branches, dict(features)), variables["batch_stats"]


def branch(rate: float, params, h, modality: str, *, train, rngs=None) -> jax.Array:
  """z_m [B, C] of features h_m [B, D], of which dropout takes `rate` in training."""
  head = params[HEADS][FUSED]
  if train and rate:
    if not rngs:
      raise ValueError('dropout in training needs rngs={"dropout": key}, got none')
    key = named_key(rngs["dropout"], f"{HEADS}/{modality}")
    kept = draws.flat(jax.random.bernoulli, key, h.shape, p=1 - rate)
    h = jnp.where(kept, h / (1 - rate), jnp.zeros((), h.dtype))
  z: Any = nn.Dense(head["bias"].shape[0]).apply({"params": head}, h)
  return z


def _common_width(features: Mapping[str, Any]) -> int:
  shapes: dict[str, tuple[int, ...]] = {
    m: getattr(h, "shape", ()) for m, h in sorted(features.items())
  }
  odd = [m for m, s in shapes.items() if len(s) != 2]
  if odd:
    raise Unavailable(f"mla needs features [B, D]; those of {odd[0]!r} are no such array")
  if len({s[1] for s in shapes.values()}) > 1:
    widths = ", ".join(f"{m} {s[1]}" for m, s in shapes.items())
    raise Unavailable(
      f"mla has one head for all modalities and needs equally wide features; these are {widths}"
    )
  return next(iter(shapes.values()))[1]


def _num_classes(outputs: Outputs) -> int:
  found = [outputs.logits, *outputs.unimodal_logits.values()]
  logits = next((z for z in found if z is not None), None)
  if logits is None:
    raise Unavailable("mla reads the number of classes off the model's heads; it has none")
  return logits.shape[-1]


def mla(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  projection: str = "rls",
  alpha: float = 0.1,
  order: Sequence[str] | None = None,
  fusion: str = "sample",
  coast: bool = False,
) -> Method:
  r"""For m in order: a step of encoder m and the shared head W, b on CE(h_m W + b, y) of its rows.

  All M turns are taken inside one step, on one batch; the head of a turn is the one the turn before
  left. Its kernel's gradient G [D, C] becomes P G, where P [D, D] shrinks the directions of the
  mean features h of the batches that the head was updated on (the current one included):
  P <- P - (P h)(P h)^T / (alpha + h^T P h), P_0 = I, the first update as it is. P and the number
  of updates are in the memory "mla". Prediction: \sum_m lambda_m z_m, lambda_m ~ exp(-H_m), H_m being
  the entropy of softmax(z_m) of the row; absent modalities have weight 0.

  Budget: a row passes each encoder once forward and once backward a step, as in joint training, and
  counts as one gradient evaluation; the head alone is updated M times (1.03 x the FLOPs of a joint
  step where encoders dominate). Statistics of batch norm move once. Each encoder, and the head with
  all else that is shared, has its own state of `tx`, hence its own Adam count and clipping norm. A
  modality that no labelled row of a batch has gets no turn: nothing moves for it, neither P nor the
  head. Links of `tx` see one modality at a time; those that compare modalities (OGM) cannot work.

  Args:
    model: encoders whose features are [B, D] of one width D; its heads and fusion are not used.
    tx: the optimiser of all its parameters.
    projection: "rls", the paper's; "released": division entry by entry, P of norm 1 and alpha_i =
      .1^(batch / batches + 1); "bb_add": G + P G with that P, as BalanceBenchmark adds; "off":
      plain alternation, which is what the authors' code computes, for its projection is never
      reached.
    alpha: of "rls", > 0, default .1 (the start of the released schedule; the paper's value was not
      seen). Large = plain alternation.
    order: of the turns, default sorted names. The authors': audio, visual, text.
    fusion: "sample" (paper); "batch", as the authors evaluate: softmax over the rows of the
      evaluation batch, padding included, and one weight per modality and batch; "mean": 1/M.
    coast: as under torch 1.8: encoders that had their turn get, in each later turn of the batch,
      another update with zero gradient (momentum, decay).

  Raises:
    ValueError: an unknown option, alpha <= 0, an order that is not one of the modalities; at `init`,
      labels that are not one class per row.
    Unavailable: at `init`, features of other shapes.

  Reference: Zhang et al., CVPR 2024, arXiv 2311.10707; code of 2024 for "released". The recursion is
  that of orthogonal weight modification (Zeng et al., Nature Machine Intelligence 2019).
  """
  check_choice("projection", projection, rule.PROJECTIONS)
  check_choice("fusion", fusion, rule.FUSIONS)
  if not alpha > 0:
    raise ValueError(f"alpha must be above 0, got {alpha}")
  turns = tuple(sorted(model.modalities) if order is None else order)
  if sorted(turns) != sorted(model.modalities):
    raise ValueError(
      f"order must name each modality once, got {', '.join(turns)}; the model has "
      f"{', '.join(sorted(model.modalities))}"
    )
  tx = optax.with_extra_args_support(tx)
  shared = shared_head(model, fusion)
  method = train.supervised(shared, objectives.unimodal, tx)
  phase = train.only_phase(method)
  step = _AlternatingStep(shared, tx, turns, projection, alpha, coast, phase.name)

  def init(key, batch, num_rows):
    check_classes(batch.label, "mla")
    state = method.init(key, batch, num_rows)
    opt = {g: tx.init(part) for g, part in split(state.params, turns).items()}
    width = state.params[HEADS][FUSED]["kernel"].shape[0]
    memory = () if projection == "off" else rule.init_projection(width)
    state = train.remember(state, mla=memory)
    return state._replace(opt={phase.name: opt})

  return method._replace(init=init, phases=(phase._replace(step=step),))


def split(params: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
  """{m: {m: encoder m}, ..., "shared": the rest}: what a turn moves is its own part and the rest."""
  parts = {m: {m: params[m]} for m in modalities if m in params}
  return {**parts, REST: {k: v for k, v in params.items() if k not in modalities}}


def join(parts: Mapping[str, Mapping[str, Any]], like: Mapping[str, Any]) -> dict[str, Any]:
  """The parts of `split` as parameters in the order of `like`."""
  merged = {k: v for part in parts.values() for k, v in part.items()}
  return {k: merged[k] for k in like}


@dataclasses.dataclass(frozen=True)
class _AlternatingStep:
  """`Phase.step`: every modality's turn on one batch."""

  model: train.Wrapped  # `shared_head`
  tx: optax.GradientTransformationExtraArgs
  turns: tuple[str, ...]
  projection: str
  alpha: float
  coast: bool
  name: str  # of the phase

  def __call__(self, state: State, batch: Batch, key: jax.Array, clock: Clock):
    batch = used(train.counted(sorted(self.turns), batch))
    known = label_weight(batch) > 0
    parts, opt = split(state.params, self.turns), dict(state.opt[self.name])
    stats, memory = state.stats, state.memory["mla"]
    losses, squares = {}, []
    had_turn: dict[str, jax.Array] = {}  # whether the modalities before took theirs
    for turn, m in enumerate(self.turns):
      here = jnp.any(batch.mask[m] & known)
      before = (parts, opt, stats, memory)
      parts, opt, stats, memory, losses[m], square = self._turn(
        m, parts, opt, stats, memory, batch, had_turn, jax.random.fold_in(key, turn), clock
      )
      parts, opt, stats, memory = _where(here, (parts, opt, stats, memory), before)
      squares.append(jnp.where(here, square, 0.0))
      had_turn[m] = here
    log = {f"loss/{m}": losses[m] for m in sorted(losses)}
    log["gradient_norm"] = jnp.sqrt(sum(squares))
    log["finite"] = jnp.isfinite(sum(losses.values())) & jnp.isfinite(log["gradient_norm"])
    new = State(join(parts, state.params), stats, {**state.opt, self.name: opt}, state.memory)
    return train.remember(new, mla=memory), log

  def _turn(self, m, parts, opt, stats, memory, batch, had_turn, key, clock):
    """One update of encoder m and of the head, on the rows that have m."""
    moving = [g for g in (m, REST) if g in parts]
    still = {g: p for g, p in parts.items() if g not in moving}
    only = {j: v if j == m else jnp.zeros_like(v) for j, v in batch.mask.items()}
    weight = jnp.where(batch.mask[m], label_weight(batch), 0.0)
    dropout, rule_key = jax.random.split(key)
    rngs = {"dropout": dropout}

    def loss(own):
      params = join({**still, **own}, _keys(parts))
      variables = {"params": params, "batch_stats": stats}
      features, found = self.model.encode(variables, batch.inputs, only, train=True, rngs=rngs)
      h = features[m]
      rate = getattr(self.model.model, "dropout", 0.0)
      z = branch(rate, params, h, m, train=True, rngs=rngs)
      rows = objectives.row_losses(z, batch.label)
      return objectives.weighted_mean(rows, weight), (h, z, found)

    (value, seen), grads = jax.value_and_grad(loss, has_aux=True)({g: parts[g] for g in moving})
    h, z, found = jax.lax.stop_gradient(seen)
    # The other encoders' statistics come back as they were; by name, so that XLA drops their pass.
    stats = {k: v if k in self.turns and k != m else found[k] for k, v in stats.items()}
    if self.projection != "off":
      memory, grads = self._project(memory, grads, objectives.mean_rows(h, weight), clock)
    context = {
      "value": value,
      "losses": value[None],
      "present": jnp.any(weight > 0)[None],
      "unimodal_logits": {m: z},
      "features": {m: h},
      "label": batch.label,
      "weight": weight,
      "mask": only,
      "key": rule_key,
      "clock": clock,
    }
    parts, opt = dict(parts), dict(opt)
    for g in moving:
      self._update(g, grads[g], parts, opt, context)
    for j, took in had_turn.items():
      if self.coast:
        kept = (parts[j], opt[j])
        self._update(j, jax.tree.map(jnp.zeros_like, parts[j]), parts, opt, context)
        parts[j], opt[j] = _where(took, (parts[j], opt[j]), kept)
    return parts, opt, stats, memory, value, optax.tree.norm(grads, squared=True)

  def _project(self, memory, grads, mean, clock):
    alpha = (
      self.alpha if self.projection == "rls" else rule.released_alpha(clock.batch, clock.batches)
    )
    memory = rule.step_projection(memory, mean, alpha, self.projection)
    head = grads[REST][HEADS][FUSED]
    kernel = rule.project(memory, head["kernel"], self.projection)
    heads = {**grads[REST][HEADS], FUSED: {**head, "kernel": kernel}}
    return memory, {**grads, REST: {**grads[REST], HEADS: heads}}

  def _update(self, group, grads, parts, opt, context):
    """Moves one part and its optimiser state, in place."""
    owners = tree.owners_of(parts[group], self.turns)
    updates, opt[group] = self.tx.update(grads, opt[group], parts[group], owners=owners, **context)
    parts[group] = optax.apply_updates(parts[group], updates)


def _keys(parts):
  return {k: None for part in parts.values() for k in part}


def _where(condition, new, old):
  return jax.tree.map(lambda n, o: jnp.where(condition, n, o), new, old)
