"""`linear`: logistic or ridge regression on flattened inputs, what every table is measured against."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
from scipy.special import expit, log_softmax

from mmfuse.core import Unavailable
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION
from mmfuse.protocol import _flat

GRID = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)  # of C, the inverse penalty of scikit-learn
ENOUGH = 2  # values of C beyond the best, all worse, that end the search
MOST_COLUMNS = 200_000
MOST_CELLS = 200_000_000  # rows x columns of a fit
CHOICE_ROWS, CHOICE_CELLS, LEAST_ROWS = 10_000, 50_000_000, 1_000  # of the search for C
WIDE, NARROW = 5_000, 2_500  # rows, or columns, up to which the inputs are turned to their axes
ITERATIONS, TOLERANCE = 1_000, 1e-4  # of L-BFGS; of the gradient, in units of its own


class Fit(NamedTuple):
  """A linear predictor."""

  columns: _flat.Columns
  weights: np.ndarray  # float64 [D, K]
  bias: np.ndarray  # float64 [K]
  classes: np.ndarray | None  # of classification: those of training, [K]
  C: float  # inverse of the penalty: |w|^2 / 2 + C sum of losses, or |w|^2 + C sum of squares
  rows: int  # it was fitted to
  converged: bool  # within ITERATIONS

  def logits(self, split: Any, rows: np.ndarray, num_outputs: int) -> np.ndarray:
    """Of `rows` of a split, float32 [n, num_outputs]; a class that training lacks is the last guess."""
    out = _flat.scores(self.columns, split.inputs, split.mask, rows, self.weights) + self.bias
    if self.classes is None:
      return out.astype(np.float32)
    full = np.full((len(rows), num_outputs), -np.log(self.rows + num_outputs))
    full[:, self.classes] = log_softmax(out, axis=1)
    return full.astype(np.float32)


def usable(split: Any, modality: str | None) -> np.ndarray:
  """The rows of a split that count: labelled, of positive weight, and with the modality."""
  keep = np.ones(len(split.index), bool)
  if split.labelled is not None:
    keep &= np.asarray(split.labelled)
  if split.weight is not None:
    keep &= np.asarray(split.weight) > 0
  return np.flatnonzero(keep if modality is None else keep & split.mask[modality])


def some(rows: np.ndarray, number: int) -> np.ndarray:
  """`number` of the rows at most, drawn evenly and always the same ones, in their order."""
  if len(rows) <= number:
    return rows
  return rows[np.sort(np.random.default_rng(0).choice(len(rows), number, replace=False))]


def rotated(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
  """(Z, back): the rows along their principal axes, X = U S V^T, Z = U S = X V, w = V v.

  A penalised w is a combination of rows (representer theorem) and |w| = |v|, so that fitting Z is
  fitting X, with as many columns as the smaller side, uncorrelated ones. In float64 from the smaller
  of X X^T and X^T X; where both are large, X as it is.
  """
  rows, columns = x.shape
  if min(rows, columns) > (WIDE if rows < columns else NARROW):
    return x.astype(np.float64), lambda v: v
  if columns <= rows:
    z = x.astype(np.float64)
    v = np.linalg.eigh(z.T @ z)[1]
    return z @ v, lambda w: v @ w
  gram = np.zeros((rows, rows))
  for i in range(0, columns, WIDE):
    block = x[:, i : i + WIDE].astype(np.float64)
    gram += block @ block.T
  square, u = np.linalg.eigh(gram)
  kept = square > square[-1] * rows * np.finfo(np.float64).eps
  u, s = u[:, kept], np.sqrt(square[kept])
  return u * s, lambda v: x.T @ (u @ (v / s[:, None])).astype(np.float32)


def _softmax(logits, y):
  log_p = log_softmax(logits, axis=1)
  return -(y * log_p).sum(1), np.exp(log_p) - y


def _sigmoid(logits, y):
  return (np.logaddexp(0.0, logits) - y * logits).sum(1), expit(logits) - y


def _square(logits, y):
  return 0.5 * np.square(logits - y).sum(1), logits - y


def _minimise(z, y, weight, loss, curvature, grid) -> Iterator[tuple[float, np.ndarray, bool]]:
  """(C, [w; b] of shape [r + 1, K], converged) for each C, each begun at the one before.

  Minimises mean(weight loss(z w + b, y)) + |w|^2 / (2 C n) by L-BFGS in units in which the Hessian's
  diagonal is about 1: `curvature` is the loss's second derivative where nothing is known.
  """
  rows, decay = len(z), np.append(np.ones(z.shape[1]), 0.0)[:, None] / len(z)
  spread = np.append(weight @ np.square(z) / rows, 1.0)[:, None]
  found = np.zeros((z.shape[1] + 1, y.shape[1]))
  for C in grid:
    unit = 1 / np.sqrt(curvature * spread + decay / C)

    def value(flat, unit=unit, C=C):
      w = flat.reshape(len(unit), -1) * unit
      each, slope = loss(z @ w[:-1] + w[-1], y)
      slope = slope * weight[:, None] / rows
      gradient = np.vstack([z.T @ slope, slope.sum(0)]) + decay / C * w
      total = weight @ each / rows + 0.5 * (decay / C * np.square(w)).sum()
      return total, (gradient * unit).ravel()

    options = {"maxiter": ITERATIONS, "maxcor": 20, "gtol": TOLERANCE, "ftol": 0}
    end = scipy.optimize.minimize(
      value, (found / unit).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    found = end.x.reshape(found.shape) * unit
    yield C, found, bool(end.success)


def _path(z, label, weight, task, grid) -> Iterator[tuple[float, np.ndarray, bool]]:
  """(C, [w; b] [r + 1, K], converged) for each C of the ascending grid; classes are 0..K-1."""
  if task == MULTILABEL:
    yield from _minimise(z, label, weight, _sigmoid, 0.25, grid)
  elif task == REGRESSION:
    y = label.reshape(len(label), -1).astype(np.float64)
    mean, std = _flat.moments(y, weight)
    std = np.where(std > 0, std, 1.0)
    for C, w, converged in _minimise(z, (y - mean) / std, weight, _square, 1.0, grid):
      yield C, w * std + np.append(np.zeros(z.shape[1]), 1.0)[:, None] * mean, converged
  elif label.max() == 1:  # two classes are one logit, as in scikit-learn
    for C, w, converged in _minimise(z, label[:, None], weight, _sigmoid, 0.25, grid):
      yield C, np.hstack([np.zeros_like(w), w]), converged
  else:
    classes = int(label.max()) + 1
    curvature = max(classes - 1, 1) / classes**2
    yield from _minimise(z, np.eye(classes)[label], weight, _softmax, curvature, grid)


def fits(
  split: Any, modalities: tuple[str, ...], rows: np.ndarray, task: str, grid: tuple[float, ...]
) -> Iterator[Fit]:
  """The predictors of the `rows` of a training split, a `Fit` for each C of the ascending grid.

  Args:
    split: the training split.
    modalities: side by side in this order.
    rows: int [n], those to fit.
    task: one of `names.TASKS`.
    grid: values of C, ascending.
  """
  weight = np.ones(len(rows)) if split.weight is None else split.weight[rows].astype(np.float64)
  weight *= len(rows) / weight.sum()  # C means the same whatever the scale of the weights
  columns, x = _flat.fit(split.inputs, split.mask, modalities, rows, weight)
  label, classes = np.asarray(split.label)[rows], None
  if task == CLASSIFICATION:
    classes, label = np.unique(label, return_inverse=True)
  z, back = rotated(x)
  for C, w, converged in _path(z, label, weight, task, grid):
    yield Fit(columns, back(w[:-1]), w[-1], classes, C, len(rows), converged)


def width(split: Any, modalities: tuple[str, ...], rows: np.ndarray) -> int:
  """How many columns the training `rows` make, indicators aside."""
  found = {m: rows[split.mask[m][rows]] for m in modalities}
  return sum(
    _flat.width(split.inputs[m], _flat.vocabulary_of(split.inputs[m], there))
    for m, there in found.items()
    if len(there)
  )


def choose(
  split: Any,
  modalities: tuple[str, ...],
  rows: np.ndarray,
  task: str,
  judge: Callable[[Fit], float],
) -> tuple[Fit, int]:
  """(predictor, training rows C was chosen with): the C that `judge` likes best, ties the smaller.

  After ENOUGH that are worse, larger ones, which take longest, are not tried.
  Where rows x columns are many, C is chosen on some of the rows; where they are very many, the
  predictor is fitted to some of them (`Fit.rows`).

  Args:
    split: the training split.
    modalities: side by side in this order.
    rows: int [n], those that count.
    task: one of `names.TASKS`.
    judge: (fit) -> its validation score, more is better.

  Raises Unavailable for more than MOST_COLUMNS columns.
  """
  columns = max(1, width(split, modalities, rows))
  if columns > MOST_COLUMNS:
    raise Unavailable(f"{columns:,} columns, a linear baseline takes at most {MOST_COLUMNS:,}")
  fitted = some(rows, max(1, MOST_CELLS // columns))
  tried = some(fitted, min(CHOICE_ROWS, max(LEAST_ROWS, CHOICE_CELLS // columns)))
  best, most, worse = None, -np.inf, 0
  for found in fits(split, modalities, tried, task, GRID):
    score = judge(found)
    if best is None or score > most:
      best, most, worse = found, score, 0
    worse += score < most
    if worse == ENOUGH:
      break
  assert best is not None
  if len(tried) < len(fitted):
    (best,) = fits(split, modalities, fitted, task, (best.C,))
  return best, len(tried)
