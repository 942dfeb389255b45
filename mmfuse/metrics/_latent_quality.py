r"""How good a frozen representation is: the risk of the best head on it.

Huang, Du, Xue, Chen, Zhao, Huang: "What Makes Multi-Modal Learning Better than Single (Provably)",
NeurIPS 2021: eta(g) = \inf_h r(h o g) - r(h* o g*), the smaller the better. A set of modalities M is
worth more than N where gamma(M, N) = eta(g_M) - eta(g_N) < 0, up to a term O(1 / sqrt(n)) of
complexity: with few examples the larger set may lose.
"""

from collections.abc import Mapping

import numpy as np
import scipy.optimize

# Of the Gram matrix: directions whose singular value is 1e-5 of the largest are rounding.
RCOND = 1e-10
# ftol = 0: the gradient alone says when it is enough.
LBFGS = {"maxiter": 10_000, "maxfun": 20_000, "gtol": 1e-6, "ftol": 0.0}


def latent_quality(
  features: np.ndarray | Mapping[str, np.ndarray],
  label: np.ndarray,
  *,
  heldout: tuple[np.ndarray | Mapping[str, np.ndarray], np.ndarray] | None = None,
  ridge: float = 0.0,
  best: float = 0.0,
) -> float:
  r"""eta(g) = \min_h r(h(g(x)), y) - best over affine heads h, refitted to frozen features.

  Float labels: r is the mean squared error (in squared units of the label, mean over outputs), the
  head the least squares solution of minimal norm, which exists for fewer rows than columns too.
  Int labels [N], one class per row: r is the share of wrong predictions (1 - r is the accuracy), of
  multinomial logistic regression fitted to convergence. Both in float64 on the host, without a draw.

  Args:
    features: g(x) [N, D] of any encoder, or {modality: [N, ...]}, joined in sorted order; with no
      column at all, the head is a constant.
    label: [N] or [N, R].
    heldout: (features, label) that the fitted head is judged on; default: the rows it was fitted to
      (the definition: an infimum; below the population's by a factor of about 1 - D / N).
    ridge: lambda >= 0 of \sum error / N + lambda |W|^2, default 0, with the squared error or the
      cross-entropy in nats; the bias is free. Neither head depends then on an invertible linear map
      of the features, which lambda > 0 does.
    best: r(h* o g*), default 0: that of labels without noise.

  Raises:
    ValueError: no rows, different numbers of rows or columns, a negative ridge, integer labels of
      two axes, or a held-out class that no fitted row has.
    RuntimeError: a logistic regression that has not converged (`logistic_regression`).
  """
  if not ridge >= 0:
    raise ValueError(f"ridge must be at least 0, got {ridge}")
  x, y = _columns(features), np.asarray(label)
  seen, judged = (x, y) if heldout is None else (_columns(heldout[0]), np.asarray(heldout[1]))
  _check(x, y, seen, judged)
  centre = x.mean(0, keepdims=True)
  if np.issubdtype(y.dtype, np.floating):
    target = y.reshape(len(y), -1).astype(np.float64)
    offset = target.mean(0, keepdims=True)
    found = (seen - centre) @ least_squares(x - centre, target - offset, ridge) + offset
    return float(np.mean(np.square(found - judged.reshape(found.shape)))) - best
  classes, number = np.unique(y, return_inverse=True)
  if not np.isin(judged, classes).all():
    raise ValueError("the held-out rows have a class that no fitted row has")
  kernel, bias = logistic_regression(x - centre, number, len(classes), ridge)
  found = ((seen - centre) @ kernel + bias).argmax(-1)
  return float(np.mean(classes[found] != judged)) - best


def logistic_regression(
  x: np.ndarray, label: np.ndarray, num_classes: int, ridge: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
  r"""argmin \sum_n CE(x_n W + b, label_n) / N + ridge |W|^2: x [N, D] -> W [D, C], b [1, C].

  By L-BFGS from 0 on whitened features x = z (S V^T), z^T z = N I, so that ill-conditioned features
  cost no steps. Classes that a plane separates have no minimum without a ridge: there the descent
  ends where no entry of the gradient exceeds 1e-6, or after 10,000 steps, at a finite W that errs
  nowhere on these rows. Raises RuntimeError where 10,000 steps do not suffice and some row errs.
  """
  left, scale, right = np.linalg.svd(x, full_matrices=False)
  kept = scale > RCOND**0.5 * scale.max(initial=0.0)
  rows, (left, scale, right) = len(x), (left[:, kept], scale[kept], right[kept])
  z, back = left * rows**0.5, right.T * (rows**0.5 / scale)[None]  # x back = z
  onehot = np.eye(num_classes)[label]
  decay = ridge * np.square(rows**0.5 / scale)[:, None]  # |W|^2 = |back V|^2, V [r, C]

  # In units in which the curvature is about that of a logit: the penalty of a thin direction is steep.
  unit = np.concatenate([np.ones((1, 1)), 1 / np.sqrt(1 + 8 * decay)])

  def value(flat):
    v = flat.reshape(-1, num_classes) * unit
    logits = z @ v[1:] + v[:1]
    logits -= logits.max(-1, keepdims=True)
    log_total = np.log(np.exp(logits).sum(-1, keepdims=True))
    residual = (np.exp(logits - log_total) - onehot) / rows
    loss = (log_total.sum() - np.sum(onehot * logits)) / rows + np.sum(decay * v[1:] ** 2)
    grad = np.concatenate([residual.sum(0)[None], z.T @ residual + 2 * decay * v[1:]])
    return loss, (grad * unit).ravel()

  start = np.zeros((1 + z.shape[1]) * num_classes)
  found = scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", options=LBFGS)
  v = found.x.reshape(-1, num_classes) * unit
  separated = ridge == 0 and np.all(np.argmax(z @ v[1:] + v[:1], -1) == label)
  if not found.success and not separated:
    raise RuntimeError(f"the logistic regression has not converged: {found.message}")
  return back @ v[1:], v[:1]


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
      raise ValueError(
        f"{what}: {len(features)} rows of features, {len(label)} labels; "
        "expected as many, and at least one"
      )
  if x.shape[1] != seen.shape[1]:
    raise ValueError(f"features have {x.shape[1]} columns, held-out features {seen.shape[1]}")
  if not np.issubdtype(y.dtype, np.floating) and y.ndim != 1:
    raise ValueError(f"integer labels must be one class per row, [N]; got {list(y.shape)}")
