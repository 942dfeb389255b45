"""OPM: how often to drop the features of a modality that runs ahead.

Wei, Hu, Du and Wen, On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

_EPS = 1e-5  # added to a divisor by the released code


def opm_drop_rates(
  scores: Mapping[str, jax.Array],
  *,
  q_base: float = 0.4,
  alpha: float = 0.5,
  variant: str = "clean",
) -> dict[str, jax.Array]:
  r"""q_m = q_base (1 + alpha tanh(relu(r_m - 1))) where r_m > 1, else 0; clipped to [0, 1].

  r_m = s_m / s_other; for more than two modalities the mean of the other present scores (an
  extension, as in OGM). A modality with score 0 is absent: q = 0, and it is
  no "other".

  Args:
    scores: {m: s_m}, float32 scalars: mean (or sum) over the batch of softmax(z_m)[label]. The
      order of the mapping matters for "released" alone.
    q_base, alpha: defaults .4 and .5 (BalanceBenchmark).
    variant: "clean", or "released": that code divides in place, so a modality is compared with the
      already divided scores of those before it, and three modalities with the sum of the others.

  Returns:
    {m: q_m in [0, 1]}.

  Raises:
    ValueError: q_base outside [0, 1], a negative alpha, an unknown variant.
  """
  if not 0 <= q_base <= 1:
    raise ValueError(f"q_base must lie in [0, 1], got {q_base}")
  if alpha < 0:
    raise ValueError(f"alpha must not be negative, got {alpha}")
  if variant not in ("clean", "released"):
    raise ValueError(f"unknown variant {variant!r}; expected clean or released")
  ratios = _aliased_ratios(scores) if variant == "released" else _ratios(scores)
  excess = {m: jnp.tanh(jax.nn.relu(r - 1.0)) for m, r in ratios.items()}
  return {
    m: jnp.clip(jnp.where(e > 0, q_base * (1.0 + alpha * e), 0.0), 0.0, 1.0)
    for m, e in excess.items()
  }


def _ratios(scores):
  here = {m: s > 0 for m, s in scores.items()}
  ratios = {}
  for m, s in scores.items():
    others = [j for j in scores if j != m]
    total = sum((jnp.where(here[j], scores[j], 0.0) for j in others), jnp.zeros(()))
    count = sum((here[j].astype(jnp.float32) for j in others), jnp.zeros(()))
    ratios[m] = jnp.where(count > 0, s * count / jnp.where(count > 0, total + _EPS, 1.0), 0.0)
  return ratios


def _aliased_ratios(scores):
  table, ratios = dict(scores), {}
  for m in scores:
    table[m] = table[m] / (sum(table[j] for j in scores if j != m) + _EPS)
    ratios[m] = table[m]
  return ratios
