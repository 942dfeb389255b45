"""Multi-modal boosting by self-distillation (MBSD): branches that learn from the better one.

The rule is that of the BalanceBenchmark code (Xu et al., arXiv 2502.10816), the only published
form the parity fixtures cover.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse import choose
from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.objectives._branches import branch_logits, check_classes, pairs
from mmfuse.objectives._classification import fused, row_losses, weighted_mean
from mmfuse.tree import FUSED

VARIANTS = ("released", "logarithm")


def _pair(z1, z2, label, weight, space: str, variant: str) -> jax.Array:
  """mean(w RS) + mean(w KL) of two branches [B, C] over rows of positive weight."""
  p1, p2 = jax.nn.softmax(z1), jax.nn.softmax(z2)
  own1, own2 = choose.along(p1, label, -1), choose.along(p2, label, -1)
  right = (jnp.argmax(z1, -1) == label) | (jnp.argmax(z2, -1) == label)
  w = jnp.where(right, jnp.abs(own1 - own2), 0.0)
  strong, weak = jnp.maximum(own1, own2), jnp.minimum(own1, own2)
  gap = z1 - z2 if space == "logits" else p1 - p2
  similarity = jnp.mean(jnp.square(gap), axis=-1)
  # A probability that underflows to 0 has the limit 0 log 0 = 0 and no gradient.
  used = jnp.where(weak > 0, weak, 1.0)
  target = jnp.log(jnp.maximum(strong, jnp.finfo(strong.dtype).tiny))
  target = strong if variant == "released" else target
  divergence = jnp.where(weak > 0, used * (jnp.log(used) - target), 0.0)
  return weighted_mean(w * similarity, weight) + weighted_mean(w * divergence, weight)


def mutual_distillation(
  logits: Mapping[str, jax.Array],
  label: jax.Array,
  mask: Mapping[str, jax.Array],
  weight: jax.Array,
  *,
  variant: str = "released",
) -> jax.Array:
  r"""mean over pairs (i, j) of mean_b w (|z_i - z_j|^2 / C) + mean_b w p_w (log p_w - p_s).

  p = softmax(z); w = |p_i[y] - p_j[y]| where either branch is right, else 0; p_s, p_w the larger
  and the smaller of p_i[y], p_j[y]. All of them pass gradients, as in the code. With three
  modalities that code takes the squared distance of the probabilities instead of the logits; so do
  we for any other number than two (an extension). Pairs that no row has are left out of the mean;
  one modality alone gives 0.

  Args:
    logits: {m: [B, C]} of the branches.
    label: int [B].
    mask: {m: bool [B]}, True = present; a row counts for a pair it has both of.
    weight: [B].
    variant: "released" uses p_s where a Kullback-Leibler term would have log p_s; as a function of
      p_w that term has its minimum at exp(p_s - 1) >= p_s, so it lifts the weak branch. "logarithm"
      puts log p_s, whose minimum is at p_s / e.
  """
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")
  space = "logits" if len(logits) == 2 else "probabilities"
  total, count = jnp.zeros(()), jnp.zeros(())
  for a, b in pairs(logits):
    both = jnp.where(mask[a] & mask[b], weight, 0.0)
    here = jnp.any(both > 0).astype(jnp.float32)
    z1, z2 = (logits[m].astype(jnp.float32) for m in (a, b))
    total += here * _pair(z1, z2, label, both, space, variant)
    count += here
  return total / jnp.maximum(count, 1.0)


def mbsd(*, variant: str = "released"):
  r"""L = CE(fused) + \sum_m CE(z_m) + `mutual_distillation`, an objective for `train.supervised`.

  Returns {"fused", "branches", "distillation"}: float32 scalars, nats. z_m are the branches of the
  fused head where it is additive; classification only (ValueError otherwise).
  """
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")

  def objective(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
    del extra
    check_classes(batch.label, "mbsd")
    branches = branch_logits(outputs)
    return {
      FUSED: fused(outputs, batch)[FUSED],
      "branches": branch_losses(branches, batch),
      "distillation": mutual_distillation(
        branches, batch.label, batch.mask, label_weight(batch), variant=variant
      ),
    }

  return objective


def branch_losses(branches: Mapping[str, jax.Array], batch: Batch) -> jax.Array:
  r"""\sum_m CE(z_m), each a mean over the labelled rows in which m is present."""
  weight = label_weight(batch)
  return sum(
    (
      weighted_mean(row_losses(z, batch.label), jnp.where(batch.mask[m], weight, 0.0))
      for m, z in branches.items()
    ),
    jnp.zeros(()),
  )
