r"""TCMax: the fused head tells the pairs that belong together from all pairs of a batch.

Yu, Wu, Yang and Lu, Multimodal Classification via Total Correlation Maximization, ICLR 2026.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import choose, fusion, objectives, train
from mmfuse.core import Batch, Method, Outputs, Unavailable, label_weight
from mmfuse.tree import FUSED

ADDITIVE = (fusion.Concat, fusion.Sum, fusion.Cosine)  # f(x) = sum_m f_m(x_m)


def tcmax_loss(outputs: Outputs, batch: Batch, **extra: Any) -> dict[str, jax.Array]:
  r"""{"fused": L}, minus a lower bound of the total correlation of modalities and label, in nats.

  L = -mean_i log(exp f(x_i)_{y_i} / sum_{j, k, ..., c} exp f(a_j, b_k, ...)_c) - log(C prod_m n_m)

  over all combinations of the n_m rows that have modality m. With f = sum_m f_m [B, C] the sum is one
  over c of prod_m sum_j exp f_m(x_mj)_c: O(M B C), not B^M. Rows without a modality, or without a
  label, are left out of its sum; 0 at f = 0.

  Args:
    outputs: of a head with `aux["split_logits"]`, {m: f_m [B, C]}.
    batch: labels int [B].
    extra: not read.

  Raises:
    ValueError: a head that is not additive.
  """
  split = outputs.aux.get("split_logits")
  if not split:
    raise ValueError("TCMax needs aux['split_logits'] of an additive head, these outputs have none")
  weight = label_weight(batch)
  classes = outputs.logits.shape[-1]
  of_classes = jnp.zeros(classes, jnp.float32)
  combinations = jnp.log(float(classes))
  for m in sorted(split):
    rows = jnp.where(batch.mask[m], weight, 0.0)
    some = jnp.any(rows > 0)  # a modality that no row has is in no combination
    counted = jnp.where(some, rows, 1.0)
    total = jax.nn.logsumexp(split[m].astype(jnp.float32), axis=0, b=counted[:, None])
    of_classes += jnp.where(some, total, 0.0)
    combinations += jnp.where(some, jnp.log(counted.sum()), 0.0)
  of_all = jax.nn.logsumexp(of_classes) - combinations
  own = choose.along(outputs.logits.astype(jnp.float32), batch.label, -1)
  there = jnp.any(weight > 0)  # else there is nothing to learn from
  return {FUSED: jnp.where(there, of_all, 0.0) - objectives.weighted_mean(own, weight)}


def tcmax(model: Any, tx: optax.GradientTransformation) -> Method:
  """`tcmax_loss` alone, without a hyper-parameter; classification, additive heads.

  Args:
    model: a `fusion.LateFusion` with the fusion concat, sum or cosine.
    tx: the optimiser of all its parameters.

  Raises:
    Unavailable: another fusion, whose sum over all combinations does not factorise.
  """
  head = getattr(model, "fusion", None)
  if not isinstance(head, ADDITIVE):
    raise Unavailable(
      "its sum over all combinations of rows factorises for additive heads alone: needs the fusion "
      f"concat, sum or cosine, got {type(head).__name__}"
    )
  return train.supervised(model, tcmax_loss, tx)
