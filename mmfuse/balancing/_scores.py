"""How well each modality does alone on a batch: the signal of the OGM family."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse import choose


def scores(
  unimodal_logits: Mapping[str, jax.Array],
  label: jax.Array,
  mask: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
  r"""s_m = mean over present rows of softmax(z_m)[label]; {modality: float32 scalar}.

  0 for a modality that is absent from the whole batch. Under `jit` on a mesh the mean is global.

  Args:
    unimodal_logits: {modality: [B, C]}.
    label: int [B], or int [B, L] of 0/1 for multi-label logits [B, L] (mean sigmoid probability of
      the right value).
    mask: {modality: bool [B]}, True = present; None = all present.

  Raises:
    ValueError: float labels, an unexpected rank, a modality without a mask.
  """
  if not (jnp.issubdtype(label.dtype, jnp.integer) or label.dtype == bool):
    raise ValueError(
      f"scores need class labels (integers); got {label.dtype} labels, a regression task, "
      "for which a probability of the right answer is not defined"
    )
  if label.ndim not in (1, 2):
    raise ValueError(f"scores take labels [B] or multi-label [B, L], got shape {list(label.shape)}")
  missing = [] if mask is None else sorted(set(unimodal_logits) - set(mask))
  if mask is not None and missing:
    raise ValueError(f"modality {missing[0]!r} not in mask; available: {', '.join(sorted(mask))}")
  return {
    m: _score(unimodal_logits[m], label, None if mask is None else mask[m])
    for m in sorted(unimodal_logits)
  }


def _score(logits: jax.Array, label: jax.Array, present: jax.Array | None) -> jax.Array:
  logits = logits.astype(jnp.float32)
  if label.ndim == 1:
    right = choose.along(jax.nn.softmax(logits), label, -1)
  else:
    right = jax.nn.sigmoid(jnp.where(label.astype(bool), logits, -logits)).mean(1)
  rows = jnp.ones(right.shape, bool) if present is None else present.astype(bool)
  return jnp.sum(jnp.where(rows, right, 0.0)) / jnp.maximum(rows.sum(), 1).astype(jnp.float32)
