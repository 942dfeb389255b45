"""Class prototypes per modality, and the prototype loss that PMR gives to the slower modality.

Fan, Xu, Wang, Wang, Guo: "PMR: Prototypical Modal Rebalance for Multimodal Learning", CVPR 2023.
The method, which estimates prototypes between epochs, is `pmr`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

_FAR = 1e9  # the distance of a class that was never seen: no probability, and a finite gradient


def class_sums(
  features: jax.Array, label: jax.Array, weight: jax.Array, num_classes: int
) -> tuple[jax.Array, jax.Array]:
  """(sum of the features of each class [C, D], their weight [C]), float32; add them over batches.

  Args:
    features: [B, D].
    label: int [B].
    weight: [B]; a row of weight 0 is never read.
    num_classes: C.
  """
  used = weight > 0
  clean = jnp.where(used[:, None], features.astype(jnp.float32), 0.0)
  share = jax.nn.one_hot(label, num_classes) * jnp.where(used, weight, 0.0)[:, None]
  return jnp.matmul(share.T, clean, precision=jax.lax.Precision.HIGHEST), share.sum(0)


def prototypes(
  sums: jax.Array,
  counts: jax.Array,
  old: jax.Array | None = None,
  *,
  seen: jax.Array | None = None,
  momentum: float = 0.2,
  variant: str = "default",
) -> jax.Array:
  r"""c_k = (1 - mu) mean_k + mu old_k; mean_k alone for a first estimate. [C, D]

  Args:
    sums, counts: of `class_sums`.
    old: [C, D] the previous estimate; None = there is none.
    seen: bool [C], classes that `old` knows; None = all. Others take the mean alone.
    momentum: mu in [0, 1), default .2 as released.
    variant: a class without rows keeps its old prototype (0 if it has none); "released": NaN, 0/0
      as in the authors' code.

  Raises:
    ValueError: momentum outside [0, 1), an unknown variant.
  """
  if not 0 <= momentum < 1:
    raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
  if variant not in ("default", "released"):
    raise ValueError(f"variant must be one of default, released; got {variant!r}")
  here = (counts > 0)[:, None]
  counts = counts[:, None]
  mean = sums / (counts if variant == "released" else jnp.where(here, counts, 1.0))
  if old is None:
    return mean if variant == "released" else jnp.where(here, mean, 0.0)
  known = jnp.ones(old.shape[0], bool) if seen is None else seen
  new = jnp.where(known[:, None], (1 - momentum) * mean + momentum * old, mean)
  return new if variant == "released" else jnp.where(here, new, old)


def prototype_logits(
  features: jax.Array,
  prototypes: jax.Array,
  seen: jax.Array | None = None,
  *,
  eps: float = 1e-12,
) -> jax.Array:
  """-sqrt(|h - c_k|^2 + eps): minus the distance to every prototype, [B, C] float32.

  The distance itself, not its square.

  Args:
    features: h [B, D].
    prototypes: c [C, D].
    seen: bool [C]: classes without a prototype get no probability; None = all have one.
    eps: gives the distance a gradient at 0; default 1e-12 (ours).
  """
  features, prototypes = features.astype(jnp.float32), prototypes.astype(jnp.float32)
  square = jnp.sum(jnp.square(features[:, None, :] - prototypes[None, :, :]), -1)
  logits = -jnp.sqrt(square + eps)
  return logits if seen is None else jnp.where(seen[None, :], logits, -_FAR)


def pmr_coefficients(
  scores: Mapping[str, jax.Array],
  alpha: float = 1.0,
  present: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:
  r"""alpha for a modality whose score lies below the mean of the others', else 0.

  For two modalities the authors' rule: the lower score gets alpha, equal scores get 0 both. For
  more an extension. A modality alone gets 0.

  Args:
    scores: {modality: scalar}, mean softmax of the prototype logits at the right class.
    alpha: weight of the prototype loss, >= 0; authors: 1.
    present: {modality: bool scalar}; absent ones get 0 and are no one's others. None = all present.

  Raises:
    ValueError: alpha negative.
  """
  if not alpha >= 0:
    raise ValueError(f"alpha must be at least 0, got {alpha}")
  names = sorted(scores)
  values = jnp.stack([jnp.asarray(scores[m], jnp.float32) for m in names])
  here = jnp.ones(len(names), bool)
  if present is not None:
    here = jnp.stack([jnp.asarray(present[m], bool) for m in names])
  out = {}
  for i, m in enumerate(names):
    others = here & (jnp.arange(len(names)) != i)
    mean = jnp.where(others, values, 0.0).sum() / jnp.maximum(others.sum(), 1)
    out[m] = jnp.where(here[i] & others.any() & (values[i] < mean), alpha, 0.0)
  return out
