"""Calibration and ranking metrics on the host, in numpy float64: they need all rows at once."""

import numpy as np


def _rows(values, label, name: str) -> tuple[np.ndarray, np.ndarray]:
  values, label = np.asarray(values, np.float64), np.asarray(label)
  if len(values) != len(label):
    raise ValueError(f"{name} has {len(values)} rows, label has {len(label)}")
  if len(values) == 0:
    raise ValueError(f"{name} needs at least one row, got none")
  if not np.isfinite(values).all():
    row = int(np.argwhere(~np.isfinite(values))[0][0])
    raise ValueError(f"{name} must be finite, row {row} is not")
  return values, label


def ece(probabilities, label, bins: int = 15) -> float:
  r"""Expected calibration error of the top class, in [0, 1].

  ECE = \sum_b |B_b| / n * |acc(B_b) - conf(B_b)| over equal-width bins (lo, hi] of the confidence
  max_c p_c.

  Args:
    probabilities: [B, C], rows summing to one.
    label: int [B].
    bins: number of bins, 15 as in the paper.

  Raises ValueError for unequal lengths, no rows, values outside [0, 1] and fewer than one bin.
  Reference: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
  """
  probabilities, label = _rows(probabilities, label, "probabilities")
  if probabilities.ndim != 2 or label.ndim != 1:
    raise ValueError(
      f"ece expects probabilities [B, C] and label [B], got {list(probabilities.shape)} and "
      f"{list(label.shape)}"
    )
  if bins < 1:
    raise ValueError(f"bins must be at least 1, got {bins}")
  if probabilities.min() < 0 or probabilities.max() > 1 + 1e-6:
    raise ValueError("probabilities must lie in [0, 1]; apply softmax to logits first")
  confidence = probabilities.max(1)
  right = (probabilities.argmax(1) == label).astype(np.float64)
  index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
  gap = np.bincount(index, weights=right - confidence, minlength=bins)
  return float(np.abs(gap).sum() / len(label))


def _auroc(score: np.ndarray, positive: np.ndarray) -> float | None:
  hits, total = int(positive.sum()), len(positive)
  if hits in (0, total):
    return None
  _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
  ranks = np.cumsum(counts) - (counts - 1) / 2  # average ranks: a tie between classes counts 1/2
  rank_sum = ranks[inverse][positive].sum()
  return float((rank_sum - hits * (hits + 1) / 2) / (hits * (total - hits)))


def _average_precision(score: np.ndarray, positive: np.ndarray) -> float | None:
  if not positive.any():
    return None
  order = np.argsort(-score, kind="stable")
  score, positive = score[order], positive[order]
  last = np.flatnonzero(np.append(np.diff(score) != 0, True))  # tied scores are one threshold
  hits = np.cumsum(positive)[last]
  return float(np.sum(np.diff(hits, prepend=0) * hits / (last + 1.0)) / hits[-1])


def _mean_over_columns(metric, score, label, name: str, need: str) -> float:
  score, label = _rows(score, label, "score")
  if score.ndim == 1 and label.ndim == 1:
    columns = [(score, label == 1)]
  elif score.ndim == 2 and label.ndim == 1:
    columns = [(score[:, c], label == c) for c in range(score.shape[1])]
  elif score.ndim == 2 and label.shape == score.shape:
    columns = [(score[:, c], label[:, c] == 1) for c in range(score.shape[1])]
  else:
    raise ValueError(
      f"{name} expects score [B] with label [B] of 0/1, or score [B, C] with label [B] or "
      f"[B, C]; got {list(score.shape)} and {list(label.shape)}"
    )
  if label.ndim == score.ndim and not np.isin(label, (0, 1)).all():
    raise ValueError(f"{name} expects labels of 0 and 1, got {label.min()}..{label.max()}")
  values = [v for v in (metric(s, p) for s, p in columns) if v is not None]
  if not values:
    raise ValueError(f"{name} is undefined here: it needs {need}")
  return float(np.mean(values))


def auroc(score, label) -> float:
  """Area under the ROC curve: P(score of a positive > score of a negative), ties counting 1/2.

  score [B] with label [B] of 0/1; score [B, C] with classes [B] (mean of one-against-rest) or with
  label [B, C] of 0/1 (mean over labels). Columns with one kind of row only are left out.
  Raises ValueError for unequal lengths, non-finite scores, and where no column has both kinds.
  """
  return _mean_over_columns(_auroc, score, label, "auroc", "a positive and a negative row")


def average_precision(score, label) -> float:
  r"""Area under the precision-recall curve, not interpolated.

  AP = \sum_n (R_n - R_{n-1}) P_n over distinct thresholds. Shapes and errors as in `auroc`; columns
  without a positive row are left out.
  """
  return _mean_over_columns(_average_precision, score, label, "average_precision", "a positive row")


def f1(logits, label, *, threshold: float = 0.0) -> dict[str, float | np.ndarray]:
  """{"macro", "micro", "per_label" [L]}: F1 = 2 TP / (2 TP + FP + FN) of a multi-label prediction.

  A label that neither occurs nor is predicted counts 0. As `multi_label` has it, from all rows at
  once.

  Args:
    logits: [B, L].
    label: [B, L] of 0/1.
    threshold: a label is predicted where its logit is above it, default 0 (a sigmoid of one half).

  Raises:
    ValueError: other shapes, logits that are not finite.
  """
  logits, label = _rows(logits, label, "logits")
  if logits.ndim != 2 or label.shape != logits.shape:
    raise ValueError(
      f"f1 expects logits and label [B, L], got {list(logits.shape)} and {list(label.shape)}"
    )
  truth, said = label > 0.5, logits > threshold
  hit, wrong = (truth & said).sum(0), (truth ^ said).sum(0)
  share = lambda hit, wrong: 2 * hit / np.maximum(2 * hit + wrong, 1)
  each = share(hit, wrong)
  return {
    "macro": float(each.mean()),
    "micro": float(share(hit.sum(), wrong.sum())),
    "per_label": each,
  }
