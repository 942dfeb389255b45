"""The parts of a prediction by modality: Shapley values of the logits, which AGM pulls back.

Li, Li, Hu, Lei, Li, Zhou: "Boosting Multi-modal Model Performance with Adaptive Gradient
Modulation", ICCV 2023. The rule on them stands in `balancing/_agm.py`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.balancing._agm import VARIANTS
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Unavailable

MOST = 8  # modalities: 2^M - 1 passes through the heads


def shapley_logits(
  subset_logits: Mapping[Any, jax.Array], variant: str = "default"
) -> dict[str, jax.Array]:
  r"""phi_i = \sum_{S \ni i} w_S (f(S) - f(S \ i)), w_S = (|S|-1)! (M-|S|)! / M!, f(empty) = 0.

  The parts of a prediction by modality; \sum_i phi_i = f(all) exactly. For M = 2 the authors'
  phi_a = (f(av) - f(v) + f(a)) / 2, and theirs for M = 3; for more an extension.

  Args:
    subset_logits: {tuple or frozenset of modalities: [B, C]}, all 2^M - 1 non-empty subsets.
    variant: "released" leaves the term of the empty set out, S = {i}, as the BalanceBenchmark code
      does; the parts then no longer sum to the prediction.

  Returns:
    {modality: [B, C]}.

  Raises:
    ValueError: more than 8 modalities, a subset without logits, an unknown variant.
  """
  check_choice("variant", variant, VARIANTS)
  logits = {frozenset(s): z for s, z in subset_logits.items()}
  names = sorted(frozenset().union(*logits))
  check_modality_count(names)
  subsets = [frozenset(s) for s in masks.combinations(names)]
  missing = [s for s in subsets if s not in logits]
  if missing:
    raise ValueError(f"shapley_logits needs every subset; missing: {', '.join(sorted(missing[0]))}")
  num, phi = len(names), {}
  for m in names:
    terms = []
    for s in subsets:
      rest = s - {m}
      if m not in s or (variant == "released" and not rest):
        continue
      share = math.factorial(len(rest)) * math.factorial(num - len(s)) / math.factorial(num)
      terms.append(share * (logits[s] - logits[rest] if rest else logits[s]))
    phi[m] = sum(terms, jnp.zeros_like(logits[frozenset(names)]))
  return phi


def check_modality_count(modalities: Iterable[str]) -> None:
  """At most 8: AGM passes 2^M - 1 coalitions through the heads."""
  count = len(tuple(modalities))
  if count > MOST:
    raise Unavailable(
      f"AGM evaluates 2^M - 1 coalitions of modalities, at most {MOST} modalities; got {count}"
    )
