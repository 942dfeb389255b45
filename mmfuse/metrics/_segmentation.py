"""Confusion matrix and intersection over union of dense predictions, on the host."""

import numpy as np

ABSENT = ("zero", "skip")


def confusion(label, prediction, num_classes: int, *, void: int = -1) -> np.ndarray:
  """int64 [C, C]: how many places of class i (row) were called j (column); void places left out.

  Args:
    label: int [...], classes 0..C-1 or `void`. Truth that counts from 1, with 0 = void, is label - 1.
    prediction: int of the same shape, 0..C-1; what it says in void places is not read.
    num_classes: C.
    void: the label of places that do not count, default -1.

  Raises ValueError for unequal shapes and for values outside 0..C-1.
  """
  label, prediction = np.asarray(label), np.asarray(prediction)
  if label.shape != prediction.shape:
    raise ValueError(f"label is {list(label.shape)}, prediction {list(prediction.shape)}")
  truth, said = label[label != void], prediction[label != void]
  for name, values in (("label", truth), ("prediction", said)):
    if values.size and not (values.min() >= 0 and values.max() < num_classes):
      raise ValueError(
        f"{name} must lie in 0..{num_classes - 1}, got {values.min()}..{values.max()}"
      )
  flat = truth.astype(np.int64) * num_classes + said.astype(np.int64)
  return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def iou(counts) -> np.ndarray:
  """IoU_k = TP_k / (truth_k + called_k - TP_k) [..., C] of confusion matrices [..., C, C].

  NaN for a class that neither occurs nor is predicted.
  """
  counts = np.asarray(counts, np.float64)
  right = np.diagonal(counts, axis1=-2, axis2=-1)
  union = counts.sum(-1) + counts.sum(-2) - right
  return np.where(union > 0, right / np.where(union > 0, union, 1.0), np.nan)


def check_absent(absent: str) -> None:
  """Raises ValueError unless `absent` is one of ABSENT."""
  if absent not in ABSENT:
    raise ValueError(f"absent must be one of: {', '.join(ABSENT)}; got {absent!r}")


def iou_of(counts, absent: str) -> np.ndarray:
  """`mean_iou` of each of several confusion matrices [..., C, C]."""
  found = iou(counts)
  if absent == "zero":
    return np.asarray(np.nan_to_num(found, nan=0.0).mean(-1))
  known = ~np.isnan(found)
  number = known.sum(-1)
  total = np.where(known, found, 0.0).sum(-1)
  return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def mean_iou(counts, *, absent: str = "zero") -> float:
  """The mean of `iou` over classes.

  absent: a class that neither occurs nor is predicted counts 0 ("zero", the default, as in the code
  released with MMANet), or is left out of the mean ("skip"; NaN where none is left).
  Raises ValueError for another word.
  """
  check_absent(absent)
  return float(iou_of(counts, absent))
