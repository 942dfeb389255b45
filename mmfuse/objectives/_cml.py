"""Calibrating multi-modal learning (CML): removing a modality must not raise the confidence.

Ma, Zhang, Wu, Fu, Zhou and Hu, Calibrating Multimodal Learning, ICML 2023.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.objectives._branches import check_classes
from mmfuse.objectives._classification import row_losses, weighted_mean
from mmfuse.tree import FUSED

RANKINGS = ("batch", "row")


def confidence(logits: jax.Array) -> jax.Array:
  """max_c softmax(z)_c, [B] from [B, C]."""
  return jnp.max(jax.nn.softmax(logits.astype(jnp.float32)), axis=-1)


def ranking_penalty(
  chain: Sequence[jax.Array], weights: Sequence[jax.Array], *, ranking: str = "batch"
) -> jax.Array:
  r"""\sum_i max(0, \sum_b conf_b(after removal i) - conf_b(before it)).

  Args:
    chain: logits [B, C], all modalities first, then one fewer each time.
    weights: [B] of each link; a row counts for removal i where the later link has it.
    ranking: "batch" clamps the sum over the batch, as the code the fixtures come from; "row" takes
      the mean over rows of each row's own max(0, .), the paper's sum over samples.
  """
  if ranking not in RANKINGS:
    raise ValueError(f"unknown ranking {ranking!r}; expected one of: {', '.join(RANKINGS)}")
  total = jnp.zeros(())
  for before, after, weight in zip(chain[:-1], chain[1:], weights[1:]):
    rise = confidence(after) - confidence(before)
    if ranking == "row":
      total += weighted_mean(jax.nn.relu(rise), weight)
    else:
      total += jax.nn.relu(jnp.sum(jnp.where(weight > 0, rise * weight, 0.0)))
  return total


def _only_if(kept: jax.Array, features):
  return jax.tree.map(lambda h: jnp.where(kept, h, jnp.zeros((), h.dtype)), features)


def removal_chain(outputs: Outputs, batch: Batch, heads, order: jax.Array):
  """(logits [B, C] after each removal, all modalities first; the weights [B] of their rows).

  order: int [M], a permutation of sorted(modalities); they go from its end, all but the last. The
  head sees zeros and a False mask for what was removed: for concat that is z - z_m + b / M. A row
  with nothing left has weight 0.
  """
  if outputs.logits is None:
    raise ValueError("cml removes modalities from fused logits; this model has no fused head")
  names = sorted(outputs.features)
  place = jnp.argsort(order)  # place of each modality in the order
  # In evaluation mode like the others: dropout alone would make the next link more confident.
  chain, weights = [heads(outputs.features, batch.mask).logits], [batch.weight]
  for left in range(len(names) - 1, 0, -1):
    kept = {m: place[i] < left for i, m in enumerate(names)}
    mask = {m: batch.mask[m] & kept[m] for m in names}
    features = {m: _only_if(kept[m], outputs.features[m]) for m in names}
    chain.append(heads(features, mask).logits)
    weights.append(jnp.where(jnp.stack(list(mask.values())).any(0), batch.weight, 0.0))
  return chain, weights


def cml(lam: float = 0.1, *, ranking: str = "batch", order_seed: int = 0):
  r"""L = (1/M) \sum_{i<M} CE(logits after i removals) + lam `ranking_penalty`.

  The penalty reads no label: rows without one count in it. The order of removal is drawn once an
  epoch, from the epoch and `order_seed`. An objective for `train.supervised`, which hands it `heads`
  and `clock`. Returns {"fused": the mean of the M cross-entropies, "ranking": lam times the penalty}.
  Any number of modalities and any fusion head (the published code subtracts branches of a concat
  head, the same for that head).

  Args:
    lam: weight of the penalty, default .1 (BalanceBenchmark).
    ranking: see `ranking_penalty`.
    order_seed: of the removal orders, the same in all runs.

  Raises:
    ValueError: a negative lam, an unknown ranking, labels that are not one class per row.
  """
  if lam < 0:
    raise ValueError(f"lam must not be negative, got {lam}")
  if ranking not in RANKINGS:
    raise ValueError(f"unknown ranking {ranking!r}; expected one of: {', '.join(RANKINGS)}")

  def objective(outputs: Outputs, batch: Batch, *, heads, clock, **extra) -> dict[str, jax.Array]:
    del extra
    check_classes(batch.label, "cml")
    key = jax.random.fold_in(jax.random.key(order_seed), clock.epoch)
    order = jax.random.permutation(key, len(outputs.features))
    chain, weights = removal_chain(outputs, batch, heads, order)
    links = [outputs.logits, *chain[1:]]  # the loss of all modalities is the training pass itself
    known = [label_weight(batch._replace(weight=w)) for w in weights]
    losses = [weighted_mean(row_losses(z, batch.label), w) for z, w in zip(links, known)]
    return {
      FUSED: jnp.mean(jnp.stack(losses)),
      "ranking": lam * ranking_penalty(chain, weights, ranking=ranking),
    }

  return objective
