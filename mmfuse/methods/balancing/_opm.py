"""OPM: features of the modality that runs ahead are dropped on the fly.

Wei, Hu, Du and Wen, On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024. The rates
are in `_opm_rates.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, objectives, train
from mmfuse.core import Method, label_weight
from mmfuse.methods.balancing._opm_rates import opm_drop_rates

_EPS = 1e-5  # in the divisor, as in the released code


def drop_features(features, mask, weight, rates, drawn):
  r"""(features, mask, weight) with modality m of row b dropped where not `drawn`[m][b].

  What is left is divided by 1 - theta + 1e-5, theta = \sum_m D_m q_m / \sum_m D_m. A row that lost
  everything gets weight 0, and never a row of fewer.

  Args:
    features: {m: [B, D_m]}; mask: {m: bool [B]}; weight: [B].
    rates: {m: q_m}; drawn: {m: bool [B]}, True = kept.
  """
  names = sorted(features)
  widths = {m: features[m].shape[-1] for m in names}
  theta = sum(widths[m] * rates[m] for m in names) / sum(widths.values())
  kept = {m: mask[m] & drawn[m] for m in names}
  scaled = {}
  for m in names:
    h = features[m]
    here = kept[m].reshape((-1,) + (1,) * (h.ndim - 1))
    scaled[m] = jnp.where(here, h / (1.0 - theta + _EPS).astype(h.dtype), jnp.zeros((), h.dtype))
  some = jnp.stack([kept[m] for m in names]).any(0)
  return scaled, kept, jnp.where(some, weight, 0.0)


def opm(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  q_base: float = 0.4,
  alpha: float = 0.5,
  p_exe: float = 0.7,
  variant: str = "clean",
) -> Method:
  """CE(fused) on features of which, with probability p_exe a batch, some are dropped row by row.

  Modality m of a row is kept with probability 1 - q_m (`opm_drop_rates`), from the scores of the
  clean features' branches in this batch, without gradient. Any number of modalities; a modality
  alone is never dropped. Classification and multi-label.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    q_base, alpha, p_exe: defaults .4, .5, .7 (BalanceBenchmark).
    variant: see `opm_drop_rates`.

  Raises:
    ValueError: a probability outside [0, 1], an unknown variant.
  """
  if not 0 <= p_exe <= 1:
    raise ValueError(f"p_exe must lie in [0, 1], got {p_exe}")
  names = tuple(sorted(model.modalities))
  opm_drop_rates({}, q_base=q_base, alpha=alpha, variant=variant)  # checks them at the door

  def perturb(features, batch, key, clock, heads):
    del clock
    clean = jax.lax.stop_gradient(heads(jax.lax.stop_gradient(features), batch.mask))
    present = {m: batch.mask[m] & (label_weight(batch) > 0) for m in names}
    # Only scores are read off them, so that probes beside a head that is not additive will do.
    branches = clean.aux.get("split_logits") or clean.unimodal_logits
    scores = balancing.scores(branches, batch.label, present)
    rates = opm_drop_rates(scores, q_base=q_base, alpha=alpha, variant=variant)
    rates = rates if len(names) > 1 else {m: jnp.zeros(()) for m in names}
    execute, draw = jax.random.split(key)
    # With all rates 0 nothing is dropped and theta is 0; what is left is the epsilon.
    on = jax.random.bernoulli(execute, p_exe)
    keys = jax.random.split(draw, len(names))
    drawn = {
      m: jax.random.bernoulli(k, 1.0 - rates[m], batch.weight.shape) for m, k in zip(names, keys)
    }
    dropped, mask, weight = drop_features(features, batch.mask, batch.weight, rates, drawn)
    pick = lambda new, old: jax.tree.map(lambda a, b: jnp.where(on, a, b), new, old)
    return pick(dropped, dict(features)), batch._replace(
      mask=pick(mask, {m: batch.mask[m] for m in names}), weight=pick(weight, batch.weight)
    )

  return train.supervised(model, objectives.fused, tx, perturb=perturb)
