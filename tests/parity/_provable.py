"""Overlapping modalities and latent quality on parity cases."""

import numpy as np

from mmfuse.data import _provable
from mmfuse.metrics._latent_quality import latent_quality as quality

from ._cases import Case


def generator(case: Case) -> dict:
  x, y = _provable.overlapping(case.inputs["base"], case.hp["w"])
  return {"x": x, "y": y}


def risk_table(case: Case) -> dict:
  """A row per subset (`in/subset_mask` [S, M]), a column per overlap."""
  shape = {"num_modalities": case.hp["M"], "width": case.hp["d"]}
  subsets = [np.flatnonzero(row) + 1 for row in case.inputs["subset_mask"]]
  overlaps = case.inputs["w"]
  risk = lambda s, w: _provable.overlapping_risk([*map(int, s)], float(w), **shape)
  return {
    "mse": np.array([[risk(s, w) for w in overlaps] for s in subsets]),
    "corr_with_m1": np.array([_provable.overlapping_correlation(float(w)) for w in overlaps]),
    "var_y": np.array([risk((), w) for w in overlaps]),
  }


def latent_quality(case: Case) -> dict:
  more, fewer = (quality(case.inputs[f"z_{s}"], case.inputs["y"]) for s in "MN")
  return {"eta_M": more, "eta_N": fewer, "gamma_MN": more - fewer}
