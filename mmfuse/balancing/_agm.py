"""AGM: each modality's part of the prediction is slowed down or sped up by how far it runs ahead.

Li, Li, Hu, Lei, Li, Zhou: "Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation", ICCV 2023. Here are the rule and its light form, a modulator of encoder gradients; the
exact form, which scales cotangents of 2^M - 1 head passes, is the method `agm`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, tree
from mmfuse.balancing import _groups

VARIANTS = ("default", "released")
HIGHEST = 18.420681  # -log(1e-8): the authors clip probabilities there


class AgmState(NamedTuple):
  """Running means of the scores, and what they decided last."""

  running: dict[str, jax.Array]  # {modality: plain mean of its scores so far}, 0 before the first
  steps: dict[str, jax.Array]  # {modality: float32, the steps that had it}
  coefficients: dict[str, jax.Array]  # {modality: scalar > 0}, multiplier of its gradients


def check_agm(alpha: float, cap: float | None, variant: str) -> None:
  """alpha >= 0, a cap > 0 or None, a known variant; or a ValueError."""
  if not alpha >= 0:
    raise ValueError(f"alpha must be at least 0, got {alpha}")
  if cap is not None and not cap > 0:
    raise ValueError(f"cap must be above 0, or None for no cap, got {cap}")
  _groups.check_choice("variant", variant, VARIANTS)


def agm_ratios(
  scores: Mapping[str, jax.Array],
  *,
  present: Mapping[str, jax.Array] | None = None,
  variant: str = "default",
) -> dict[str, jax.Array]:
  r"""ratio_m = exp(n/(n-1) (mean(s) - s_m)): above 1 for a modality that does better than the mean.

  Args:
    scores: {modality: scalar}, cross-entropies, in nats.
    present: {modality: bool scalar}; absent ones count in neither n nor the mean and get ratio 1.
      None = all present. One modality alone gets ratio 1.
    variant: "released" has the exponent's sign reversed, as in the BalanceBenchmark code: there the
      modality that does worse is slowed down.
  """
  names = list(scores)
  values = jnp.stack([jnp.asarray(scores[m], jnp.float32) for m in names])
  here = jnp.ones(len(names), bool)
  if present is not None:
    here = jnp.stack([jnp.asarray(present[m], bool) for m in names])
  count = here.sum().astype(jnp.float32)
  mean = jnp.where(here, values, 0.0).sum() / jnp.maximum(count, 1.0)
  ahead = jnp.where(here, mean - values, 0.0) * (-1.0 if variant == "released" else 1.0)
  return dict(zip(names, jnp.exp(count / jnp.maximum(count - 1.0, 1.0) * ahead)))


def agm_coefficients(
  scores: Mapping[str, jax.Array],
  running: Mapping[str, jax.Array],
  alpha: float = 1.0,
  cap: float | None = 10.0,
  variant: str = "default",
  *,
  present: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
  r"""coeff_m = exp(alpha min(target_m - ratio_m, cap)), the ratios of running and present scores.

  A modality further ahead now than it has been on average is slowed down. alpha = 0 or a modality
  alone: 1.

  Args:
    scores: {modality: scalar}, the mean cross-entropy of phi_m on the batch, in nats.
    running: {modality: scalar}, the mean of the scores of all steps before.
    alpha: strength >= 0.
    cap: of the exponent's difference; authors: 10 (CREMA-D), 7 (UR-Funny), None (AV-MNIST).
    variant: see `agm_ratios`.
    present: see `agm_ratios`; absent modalities get 1.

  Raises:
    ValueError: alpha negative, cap not positive, an unknown variant.
  """
  check_agm(alpha, cap, variant)
  now = agm_ratios(scores, present=present, variant=variant)
  target = agm_ratios({m: running[m] for m in scores}, present=present, variant=variant)
  top = jnp.inf if cap is None else cap
  return {m: jnp.exp(alpha * jnp.minimum(target[m] - now[m], top)) for m in scores}


def init_agm(modalities: Iterable[str]) -> AgmState:
  """No step done, coefficients 1."""
  names = sorted(modalities)
  each = lambda value: {m: jnp.full((), value, jnp.float32) for m in names}
  return AgmState(each(0.0), each(0.0), each(1.0))


def step_agm(
  state: AgmState,
  scores: Mapping[str, jax.Array],
  present: Mapping[str, jax.Array],
  alpha: float,
  cap: float | None,
  variant: str = "default",
  on: jax.Array | bool = True,
) -> AgmState:
  r"""Coefficients from the running means before this step, then S_m <- S_m t/(t+1) + s_m/(t+1).

  t counts the steps that had modality m. One that had none so far stands at the mean of the others.
  `on`: whether the coefficients apply now; the means move in any case.
  """
  names = sorted(scores)
  seen = {m: state.steps[m] > 0 for m in names}
  many = jnp.maximum(sum(state.steps[m] > 0 for m in names), 1)
  mean = sum(jnp.where(seen[m], state.running[m], 0.0) for m in names) / many
  running = {m: jnp.where(seen[m], state.running[m], mean) for m in names}
  ks = agm_coefficients(scores, running, alpha, cap, variant, present=present)
  moved, steps = {}, {}
  for m in names:
    t, here = state.steps[m], present[m]
    moved[m] = jnp.where(
      here, state.running[m] * t / (t + 1) + scores[m] / (t + 1), state.running[m]
    )
    steps[m] = t + here.astype(jnp.float32)
  return AgmState(moved, steps, {m: jnp.where(on, ks[m], 1.0) for m in names})


def scale_by_agm(
  modalities: Iterable[str] | None = None,
  alpha: float = 1.0,
  *,
  cap: float | None = 10.0,
  variant: str = "default",
  owners: Any = None,
) -> optax.GradientTransformationExtraArgs:
  r"""g <- coeff_m g for every leaf of encoder m: the light form of AGM, without coalition passes.

  The score of m is the mean cross-entropy of the extra argument `split_logits` {m: [B, C]}, which
  for an additive head is phi_m without the zero inputs' features, else of `unimodal_logits`. Needs
  `label` too; `mask` and `weight` say which rows count. Heads keep their gradients.

  Args:
    modalities: None = the top-level subtrees of the parameters.
    alpha: strength >= 0.
    cap: see `agm_coefficients`.
    variant: see `agm_ratios`.
    owners: as in `scale_by_ogm_ge`.

  Raises:
    ValueError: see `agm_coefficients`; a modality without logits.
    TypeError: `unimodal_logits` or `label` is not passed to `update`.
  """
  check_agm(alpha, cap, variant)
  given = None if modalities is None else sorted(modalities)

  def init_fn(params):
    return init_agm(given if given is not None else sorted(set(params) - set(tree.RESERVED)))

  def update_fn(
    updates,
    state,
    params=None,
    *,
    unimodal_logits,
    label,
    split_logits=None,
    mask=None,
    weight=None,
    **extra_args,
  ):
    del params
    logits = unimodal_logits if split_logits is None else split_logits
    names = sorted(state.running)
    lacking = sorted(set(names) - set(logits))
    if lacking:
      raise ValueError(
        f"modality {lacking[0]!r} has no logits; available: {', '.join(sorted(logits))}"
      )
    scores, present = agm_scores({m: logits[m] for m in names}, label, mask, weight)
    state = step_agm(state, scores, present, alpha, cap, variant)
    found = owners if owners is not None else extra_args.get("owners")
    found = tree.top_level_owners if found is None else found
    tags = found(updates) if callable(found) else found

    def scale(g, tag):
      owner = tag if isinstance(tag, str) else tag.modality if tag.part == "encoder" else None
      return g * state.coefficients[owner].astype(g.dtype) if owner in scores else g

    return jax.tree.map(scale, updates, tags), state

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def agm_scores(
  logits: Mapping[str, jax.Array],
  label: jax.Array,
  mask: Mapping[str, jax.Array] | None = None,
  weight: jax.Array | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
  r"""({m: mean over present rows of -log max(softmax(z_m)[label], 1e-8)}, {m: any row present}).

  Args:
    logits: {modality: [B, C]}.
    label: int [B]; or int [B, L] 0/1: the mean binary cross-entropy over labels.
    mask: {modality: bool [B]}, True = present; None = all.
    weight: [B] of the rows; None = 1 each.

  Raises:
    ValueError: float labels.
  """
  if jnp.issubdtype(label.dtype, jnp.floating):
    raise ValueError(f"AGM scores need class labels (integers), got {label.dtype}")
  weight = jnp.ones(label.shape[0], jnp.float32) if weight is None else weight
  scores, present = {}, {}
  for m in sorted(logits):
    rows = weight > 0 if mask is None else (weight > 0) & mask[m]
    used = jnp.where(rows, weight, 0.0)
    loss = jnp.where(rows, _row_loss(logits[m].astype(jnp.float32), label), 0.0)
    total = used.sum()
    scores[m] = (loss * used).sum() / jnp.where(total > 0, total, 1.0)
    present[m] = rows.any()
  return scores, present


def _row_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
  if label.ndim == 1:
    loss = objectives.row_losses(logits, label)
    return jnp.minimum(loss, HIGHEST)
  loss = optax.sigmoid_binary_cross_entropy(logits, label.astype(jnp.float32))
  return jnp.minimum(loss, HIGHEST).mean(-1)


def clip_if_head_exceeds(
  threshold: float = 1.0, max_norm: float = 1.0
) -> optax.GradientTransformationExtraArgs:
  r"""g <- g min(1, max_norm / |g|) over all leaves, if an entry of the fused head exceeds threshold.

  The clipping of the authors' AV-MNIST run: only the weights of the fused head are looked at (two
  or more axes), the norm is global; uni-modal heads, mere probes there, take no part. Authors: 1
  and 1; BalanceBenchmark: 5 and 5. Needs `owners` (a tree of `tree.Owner`), which every training
  step passes.

  Raises:
    ValueError: a number that is not positive.
    TypeError: `owners` is not passed to `update`.
  """
  if not (threshold > 0 and max_norm > 0):
    raise ValueError(f"threshold and max_norm must be above 0, got {threshold} and {max_norm}")

  def update_fn(updates, state, params=None, *, owners, **extra_args):
    del params, extra_args
    leaves, treedef = jax.tree.flatten(updates)
    tags = jax.tree.leaves(owners)
    probe = [t.part == "head" and t.modality is not None for t in tags]
    tops = [
      jnp.max(jnp.abs(g), initial=0.0)
      for g, t in zip(leaves, tags)
      if t.part == "head" and t.modality is None and g.ndim > 1
    ]
    top = jnp.stack(tops).max() if tops else jnp.zeros(())
    norm = optax.tree.norm([g for g, p in zip(leaves, probe) if not p])
    scale = jnp.where(top > threshold, jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12)), 1.0)
    out = [g if p else g * scale.astype(g.dtype) for g, p in zip(leaves, probe)]
    return jax.tree.unflatten(treedef, out), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update_fn)
