"""Scores on parity cases: modality values, and what missing-modality evaluation counts."""

import re

import numpy as np

from mmfuse import masks, metrics

from ._cases import Case


def shapley(case: Case) -> dict:
  """`in/v_<subset>` scores, modalities joined by underscores, `v_empty` for none."""
  names = [key.removeprefix("phi_") for key in case.outputs]
  scores = {}
  for key, value in case.inputs.items():
    inside = re.findall("|".join(sorted(names, key=len, reverse=True)), key.removeprefix("v_"))
    scores[() if key == "v_empty" else tuple(inside)] = float(value)
  return {f"phi_{m}": v for m, v in metrics.shapley(scores).items()}


def acer(case: Case) -> dict:
  """`live_label` says which class is live; the released helpers give lists."""
  found = {
    variant: metrics.acer(
      case.inputs["logits"], case.inputs["label"], live=int(case.hp["live_label"]), variant=variant
    )
    for variant in ("iso", "released", "released_old")
  }
  return {
    "released": list(found["released"].values()),
    "old_released": list(found["released_old"].values()),
    **{f"iso_{name}": found["iso"][name] for name in ("apcer", "bpcer", "acer")},
  }


def segmentation(case: Case) -> dict:
  """Their truth counts from 1 where 0 is void; ours from 0."""
  void = int(case.hp["void_label"])
  shift = 1 if void == 0 else 0
  counts = metrics.confusion(
    case.inputs["label"] - shift,
    case.inputs["prediction"],
    int(case.hp["n_classes"]),
    void=void - shift,
  )
  each = np.nan_to_num(metrics.iou(counts), nan=0.0)
  return {"confusion": counts, "iou": each, "miou": metrics.mean_iou(counts)}


def combinations(case: Case) -> dict:
  """As rows of zeros and ones."""
  names = [f"m{i}" for i in range(int(case.hp["M"]))]
  return {"combos": [[m in subset for m in names] for subset in masks.combinations(names)]}


def mean_over_combinations(case: Case) -> dict:
  """Rows are runs; the spread over them is that of the population."""
  scores = case.inputs["metric"]
  subsets = masks.combinations(map(str, range(int(scores.shape[1] + 1).bit_length() - 1)))
  means = [metrics.over_subsets(dict(zip(subsets, row)))["mean"] for row in scores]
  return {"mean": means, "mean_std": [np.mean(means), np.std(means)]}


def f1(case: Case) -> dict:
  """Scores before the sigmoid."""
  found = metrics.f1(
    case.inputs["scores"], case.inputs["label"], threshold=float(case.hp["threshold"])
  )
  return {
    "f1_macro": found["macro"],
    "f1_micro": found["micro"],
    "f1_per_class": found["per_label"],
  }


def auroc(case: Case) -> dict:
  """One column."""
  return {"auroc": metrics.auroc(case.inputs["score"], case.inputs["label"])}


def missing_table(case: Case) -> dict:
  """The rule on the rows that were drawn there; of two modalities, the image is lost first."""
  rows, drawn = int(case.hp["n"]), case.inputs["missing_index"].tolist()
  first = case.inputs["image_missing_index"].tolist()
  kind = str(case.hp["type"])
  if kind != "both":
    lost = masks.losses(drawn, ("image", "text"), kind)
  elif float(case.hp.get("both_ratio", 0.5)) == 0.5:
    lost = masks.losses([*first, *(r for r in drawn if r not in first)], ("image", "text"))
  else:  # another share than that of `even`
    lost = {"image": first, "text": [r for r in drawn if r not in first]}
  table = masks.lose(rows, lost)
  return {"table": 1 * ~table["text"] + 2 * ~table["image"]}
