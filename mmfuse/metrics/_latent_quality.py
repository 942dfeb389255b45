r"""How good a frozen representation is: the risk of the best head on it.

Huang, Du, Xue, Chen, Zhao, Huang: "What Makes Multi-Modal Learning Better than Single (Provably)",
NeurIPS 2021: eta(g) = \inf_h r(h o g) - r(h* o g*), the smaller the better. A set of modalities M is
worth more than N where gamma(M, N) = eta(g_M) - eta(g_N) < 0, up to a term O(1 / sqrt(n)) of
complexity: with few examples the larger set may lose.
"""

from collections.abc import Mapping

import numpy as np

# Of the Gram matrix: directions whose singular value is 1e-5 of the largest are rounding.
RCOND = 1e-10


def latent_quality(
  features: np.ndarray | Mapping[str, np.ndarray],
  label: np.ndarray,
  *,
  heldout: tuple[np.ndarray | Mapping[str, np.ndarray], np.ndarray] | None = None,
  ridge: float = 0.0,
  best: float = 0.0,
) -> float:
  r"""eta(g) = \min_h r(h(g(x)), y) - best over affine heads h, refitted to frozen features.

  Float labels: r is the mean squared error (in squared units of the label, mean over outputs). Int
  labels [N], one class per row: r is the share of wrong predictions, of the head that has the least
  squared error to the one-hot labels. In closed form, in float64 on the host: the least squares
  solution of minimal norm, which exists for fewer rows than columns too.

  Args:
    features: g(x) [N, D] of any encoder, or {modality: [N, ...]}, joined in sorted order; with no
      column at all, the head is a constant.
    label: [N] or [N, R].
    heldout: (features, label) that the fitted head is judged on; default: the rows it was fitted to
      (the definition: an infimum; below the population's by a factor of about 1 - D / N).
    ridge: lambda >= 0 of \sum |error|^2 / N + lambda |W|^2, default 0; the bias is free.
    best: r(h* o g*), default 0: that of labels without noise.

  Raises:
    ValueError: no rows, different numbers of rows or columns, a negative ridge, integer labels of
      two axes, or a held-out class that no fitted row has.
  """
  if not ridge >= 0:
    raise ValueError(f"ridge must be at least 0, got {ridge}")
  x, y = _columns(features), np.asarray(label)
  seen, judged = (x, y) if heldout is None else (_columns(heldout[0]), np.asarray(heldout[1]))
  _check(x, y, seen, judged)
  classes = None
  if not np.issubdtype(y.dtype, np.floating):
    classes = np.unique(y)
    if not np.isin(judged, classes).all():
      raise ValueError("the held-out rows have a class that no fitted row has")
  target = y.reshape(len(y), -1).astype(np.float64) if classes is None else (
    y[:, None] == classes[None]).astype(np.float64)  # fmt: skip
  centre, offset = x.mean(0, keepdims=True), target.mean(0, keepdims=True)
  kernel = least_squares(x - centre, target - offset, ridge)
  found = (seen - centre) @ kernel + offset
  if classes is not None:
    return float(np.mean(classes[found.argmax(-1)] != judged)) - best
  return float(np.mean(np.square(found - judged.reshape(found.shape)))) - best


def least_squares(x: np.ndarray, y: np.ndarray, ridge: float = 0.0) -> np.ndarray:
  """argmin |x W - y|^2 / N + ridge |W|^2, of minimal norm: x [N, D], y [N, R] -> W [D, R].

  By the smaller of the two Gram matrices, [D, D] or [N, N].
  """
  rows, columns = x.shape
  if columns <= rows:
    gram = x.T @ x + ridge * rows * np.eye(columns)
    return np.linalg.pinv(gram, rcond=RCOND, hermitian=True) @ (x.T @ y)
  gram = x @ x.T + ridge * rows * np.eye(rows)
  return x.T @ (np.linalg.pinv(gram, rcond=RCOND, hermitian=True) @ y)


def _columns(features) -> np.ndarray:
  """[N, D] float64."""
  parts = [features[m] for m in sorted(features)] if isinstance(features, Mapping) else [features]
  if not parts:
    raise ValueError("features of no modality; for a constant head give an array [N, 0]")
  arrays = [np.asarray(p, np.float64) for p in parts]
  if any(a.ndim == 0 for a in arrays):
    raise ValueError("features must be [N, ...], got a scalar")
  arrays = [a.reshape(len(a), int(np.prod(a.shape[1:]))) for a in arrays]
  if len({len(a) for a in arrays}) > 1:
    raise ValueError(f"modalities have different numbers of rows: {[len(a) for a in arrays]}")
  return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, 1)


def _check(x, y, seen, judged) -> None:
  for features, label, what in ((x, y, "fitted"), (seen, judged, "held-out")):
    if len(features) == 0 or len(features) != len(label):
      raise ValueError(f"{what}: {len(features)} rows of features, {len(label)} labels; "
                       "expected as many, and at least one")  # fmt: skip
  if x.shape[1] != seen.shape[1]:
    raise ValueError(f"features have {x.shape[1]} columns, held-out features {seen.shape[1]}")
  if not np.issubdtype(y.dtype, np.floating) and y.ndim != 1:
    raise ValueError(f"integer labels must be one class per row, [N]; got {list(y.shape)}")
