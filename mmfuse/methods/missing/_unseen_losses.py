"""The losses of learning unseen modality interaction: labels, pseudo-labels, alignment to tokens.

Zhang, Doughty and Snoek, Learning Unseen Modality Interaction, NeurIPS 2023. Sums over (row, modality)
run over what is present; weights are those of rows, 0 counts nowhere.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.balancing._groups import check_choice
from mmfuse.names import CLASSIFICATION, MULTILABEL

Each = Mapping[str, jax.Array]  # {modality: ...}
VARIANTS = ("guarded", "released")


def smoothed_loss(
  z: jax.Array, label: jax.Array, weight: jax.Array, smoothing: float = 0.1
) -> jax.Array:
  """Loss of z [B, C] with targets 1 - s at the label and s / (C - 1) at each other class, mean over rows.

  Multi-label: 1 - s and s of each label. Regression: the squared error as it is. s = 0 is the plain loss.

  Args:
    z: logits.
    label: as in `objectives.row_losses`.
    weight: [B].
    smoothing: s, default .1 (authors).
  """
  # What is usually called smoothing by e spreads it over all C classes, the right one included.
  count = 2 if label.ndim == 2 else z.shape[-1]
  usual = smoothing * count / (count - 1) if count > 1 else 0.0
  return objectives.weighted_mean(objectives.row_losses(z, label, label_smoothing=usual), weight)


def predicted(z: jax.Array, task: str) -> jax.Array:
  """What a pseudo-label [B, C] holds of logits: class probabilities, those of labels, or values."""
  if task == CLASSIFICATION:
    return jax.nn.softmax(z)
  return jax.nn.sigmoid(z) if task == MULTILABEL else z


def _relative_entropy(p: jax.Array, log_q: jax.Array) -> jax.Array:
  """p (log p - log q), 0 where p = 0; no gradient of p."""
  log_p = jnp.log(jnp.where(p > 0, p, 1.0))
  return jnp.where(p > 0, p * (log_p - log_q), 0.0)


def divergence(pseudo: jax.Array, z: jax.Array, task: str) -> jax.Array:
  """How far z [B, C] is from a pseudo-label [B, C], [B].

  classification: KL(pseudo || softmax(z)) in nats; multilabel: the mean over labels of that of each;
  regression: the mean squared difference.
  """
  z = z.astype(jnp.float32)
  if task == CLASSIFICATION:
    return _relative_entropy(pseudo, jax.nn.log_softmax(z)).sum(-1)
  if task == MULTILABEL:
    one = _relative_entropy(pseudo, jax.nn.log_sigmoid(z))
    return (one + _relative_entropy(1.0 - pseudo, jax.nn.log_sigmoid(-z))).mean(-1)
  return jnp.square(pseudo - z).mean(-1)


def best_pseudo(pseudo: Each, label: jax.Array, mask: Each) -> jax.Array:
  """int32 [B]: of the present modalities (sorted) the one whose pseudo-label is most like the label.

  Likeness is the cosine with the one-hot label, or the 0/1 labels; of regression the negative
  squared difference (ours: of one value the cosine is a sign). 0 for a row that has nothing.
  """
  names = sorted(pseudo)
  table = jnp.stack([pseudo[m] for m in names])
  if jnp.issubdtype(label.dtype, jnp.floating):
    target = label.reshape(label.shape[0], -1)
    like = -jnp.square(table - target[None]).mean(-1)
  else:
    target = jax.nn.one_hot(label, table.shape[-1]) if label.ndim == 1 else label
    target = target.astype(table.dtype)
    norms = jnp.linalg.norm(table, axis=-1) * jnp.linalg.norm(target, axis=-1)[None]
    like = (table * target[None]).sum(-1) / jnp.where(norms > 0, norms, 1.0)
  present = jnp.stack([mask[m] for m in names])
  return jnp.argmax(jnp.where(present, like, -jnp.inf), 0).astype(jnp.int32)


def pseudo_loss(
  z: jax.Array,
  pseudo: Each,
  mask: Each,
  weight: jax.Array,
  task: str = CLASSIFICATION,
  variant: str = "guarded",
) -> jax.Array:
  r"""(1 / B) \sum_m \sum_i s_im D(pseudo_im, z_i), D the `divergence`; B is the weight of all rows.

  Args:
    z: logits [B, C].
    pseudo: {m: [B, C]}.
    mask: {m: bool [B]}, s: the pseudo-labels that count.
    weight: [B].
    task: of the label.
    variant: "guarded" (default); "released": the mean over a modality's rows times their number, as
      in the code, NaN where there is none.

  Raises:
    ValueError: an unknown variant.
  """
  check_choice("variant", variant, VARIANTS)
  rows = jnp.where(weight > 0, weight, 0.0)
  total = jnp.zeros((), jnp.float32)
  for m in sorted(pseudo):
    counts = jnp.where(mask[m], rows, 0.0)
    each = jnp.where(counts > 0, divergence(pseudo[m], z, task), 0.0)
    number = counts.sum()
    found = jnp.sum(each * counts)
    total += found / number * number if variant == "released" else found
  everybody = rows.sum()
  return total / jnp.where(everybody > 0, everybody, 1.0)


def square_distances(latent: jax.Array, tokens: jax.Array) -> jax.Array:
  """|a_i - u_j|^2 [B, U] of a [B, d] and u [U, d]."""
  return jnp.square(latent[:, None] - tokens[None]).sum(-1)


def alignment_loss(
  latent: Each, tokens: jax.Array, label: jax.Array, mask: Each, weight: jax.Array, task: str
) -> jax.Array:
  """The mean over present (row, modality) of how far a [B, d] is from its token; 0 where there is none.

  classification: |a - u_y|^2 / d, the token of the label; otherwise |a - u|^2 to the nearest token.

  Args:
    latent: {m: a [B, d]}, means over a modality's slots.
    tokens: u [U, d], U = C of classification.
    label: of the rows.
    mask: {m: bool [B]}.
    weight: [B].
    task: of the label.
  """
  names = sorted(latent)
  if task == CLASSIFICATION:
    apart = [jnp.square(latent[m] - tokens[label]).mean(-1) for m in names]
  else:
    apart = [square_distances(latent[m], tokens).min(-1) for m in names]
  counts = [jnp.where(mask[m], weight, 0.0) for m in names]
  return objectives.weighted_mean(jnp.concatenate(apart), jnp.concatenate(counts))
