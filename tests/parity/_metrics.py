"""Modality values on parity cases."""

import re

from mmfuse import metrics

from ._cases import Case


def shapley(case: Case) -> dict:
  """`in/v_<subset>` scores, modalities joined by underscores, `v_empty` for none."""
  names = [key.removeprefix("phi_") for key in case.outputs]
  scores = {}
  for key, value in case.inputs.items():
    inside = re.findall("|".join(sorted(names, key=len, reverse=True)), key.removeprefix("v_"))
    scores[() if key == "v_empty" else tuple(inside)] = float(value)
  return {f"phi_{m}": v for m, v in metrics.shapley(scores).items()}
