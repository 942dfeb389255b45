"""Bernoulli codes and Hamming retrieval on parity cases."""

import jax.numpy as jnp
import numpy as np

from mmfuse import metrics
from mmfuse.methods.representation import _codes

from ._cases import Case

CLIP = 1e-7


def _logits(p: np.ndarray) -> jnp.ndarray:
  p = np.clip(np.asarray(p, np.float64), CLIP, 1 - CLIP)
  return jnp.asarray(np.log(p) - np.log1p(-p), jnp.float32)


def information(case: Case) -> dict:
  """`in/p_<m>`, `in/b_<m>` of any modalities; a pair of them is called <m><n>."""
  names = [key.removeprefix("p_") for key in case.inputs if key.startswith("p_")]
  a = {m: _logits(case.inputs[f"p_{m}"]) for m in names}
  b = {m: jnp.asarray(case.inputs[f"b_{m}"], jnp.float32) for m in names}
  weight = jnp.ones(len(a[names[0]]))
  out = {}
  for m in names:
    out |= {
      f"intra_{m}": _codes.information_bound(b[m], a[m], weight),
      f"exact_{m}": _codes.exact_information(a[m]),
    }
    for n in names:
      out[f"logp_{m}{n}"] = _codes.code_log_prob(b[m], a[n])
      if m != n:
        out[f"inter_{m}{n}"] = _codes.information_bound(b[m], a[n], weight)
        out[f"kl_{m}{n}"] = _codes.code_divergence(a[m], a[n])
  return out


def ranking(case: Case) -> dict:
  """Of packed codes; labels are 0/1."""
  query, database = (metrics.pack_bits(case.inputs[f"{x}_codes"]) for x in "qd")
  order = metrics.hamming_ranking(query, database)
  relevant = metrics.relevance(case.inputs["q_labels"], case.inputs["d_labels"])
  hits, total, k = np.take_along_axis(relevant, order, 1), relevant.sum(1), int(case.hp["k"])
  found = metrics.average_precision_of_hits(hits, total, k)
  whole = metrics.average_precision_of_hits(hits, total)
  return {
    "ap_k": found,
    "ap_k_all": metrics.average_precision_of_hits(hits, total, k, "all"),
    "ap_full": whole,
    "map_k": found.mean(),
    "map_full": whole.mean(),
    "prec_k": metrics.precision_of_hits(hits)[:, min(k, hits.shape[1]) - 1],
  }
