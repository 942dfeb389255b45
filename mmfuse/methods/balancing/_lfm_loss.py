"""LFM: a learned trade-off between the fused loss and the agreement of the branches.

Yang, Wan, Jiang and Xu, Facilitating Multimodal Classification via Dynamically Learning Modality
Gap, NeurIPS 2024. The between-epoch update is in `_lfm.py`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, Objective, Outputs
from mmfuse.objectives._branches import branch_logits, check_classes, pairs
from mmfuse.objectives._classification import fused, weighted_mean
from mmfuse.tree import FUSED


def _kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def reverse_js(z1: jax.Array, z2: jax.Array) -> jax.Array:
  """.5 (KL(m || p) + KL(m || q)), m = (p + q) / 2, p, q the softmaxes of z1, z2 [B, C]; nats [B].

  The usual Jensen-Shannon divergence has its arguments the other way round.
  """
  log_p, log_q = (
    jax.nn.log_softmax(z1.astype(jnp.float32)),
    jax.nn.log_softmax(z2.astype(jnp.float32)),
  )
  log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0)
  return 0.5 * (_kl(log_m, log_p) + _kl(log_m, log_q))


def alignment(
  logits: Mapping[str, jax.Array], mask: Mapping[str, jax.Array], weight: jax.Array
) -> jax.Array:
  """Mean over pairs of modalities of the mean of `reverse_js` over rows that have both.

  logits {m: [B, C]}, mask {m: bool [B]}, weight [B]. Pairs that no row has are left out; one
  modality alone gives 0.
  """
  total, count = jnp.zeros(()), jnp.zeros(())
  for a, b in pairs(logits):
    both = jnp.where(mask[a] & mask[b], weight, 0.0)
    total += weighted_mean(reverse_js(logits[a], logits[b]), both)
    count += jnp.any(both > 0).astype(jnp.float32)
  return total / jnp.maximum(count, 1.0)


def lfm_losses(outputs: Outputs, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """(CE of the fused head, `alignment` of the branches), classification only.

  The alignment reads no label: rows without one count in it.
  """
  check_classes(batch.label, "lfm")
  loss = fused(outputs, batch)[FUSED]
  return loss, alignment(branch_logits(outputs), batch.mask, batch.weight)


def lfm_objective(a1: float = 0.05, *, learning_rate: float = 1e-4) -> Objective:
  r"""L = 2 (a0 CE(fused) + a1 `alignment`), a0 = 1 - a1.

  Memory: "weights" [2] = (a0, a1) and "rate" of their update, which `lfm` does between epochs;
  without it they stay. Returns {"fused", "alignment"}.

  Args:
    a1: where the weight of the alignment starts, in [.05, .95]; default .05, as the code.
    learning_rate: of a1, default 1e-4.
  """
  if not 0.05 <= a1 <= 0.95:
    raise ValueError(f"a1 must lie in [0.05, 0.95], got {a1}")

  def init(batch, outputs):
    del batch, outputs
    return {
      "weights": jnp.asarray([1.0 - a1, a1], jnp.float32),
      "rate": jnp.asarray(learning_rate, jnp.float32),
    }

  def apply(outputs, batch, memory, **extra):
    del extra
    loss, gap = lfm_losses(outputs, batch)
    a = memory["weights"]
    return {FUSED: 2 * a[0] * loss, "alignment": 2 * a[1] * gap}, memory

  return Objective(init, apply)
