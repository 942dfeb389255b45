"""`linear`: logistic or ridge regression on flattened inputs, what every table is measured against."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from mmfuse.core import Unavailable
from mmfuse.protocol import _flat

GRID = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)  # of C, the inverse penalty of scikit-learn
MOST_COLUMNS = 200_000
MOST_CELLS = 200_000_000  # rows x columns of a fit
CHOICE_ROWS, CHOICE_CELLS, LEAST_ROWS = 10_000, 50_000_000, 1_000  # of the search for C
WIDE_ROWS = 5_000  # up to which more columns than rows are turned into as many columns as rows
ITERATIONS = 1_000  # of L-BFGS


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


def reduced(x: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
  """(Z, back): with more columns than rows, coordinates of the rows in the space they span.

  X = U S V^T, Z = U S: a penalised w is a combination of rows (representer theorem), so that fitting
  Z is fitting X, and w = V v = X^T U S^-1 v. U and S^2 are those of X X^T, in float64.
  """
  rows, columns = x.shape
  if not rows < columns or rows > WIDE_ROWS:
    return x.astype(np.float64), lambda v: v
  gram = np.zeros((rows, rows))
  for i in range(0, columns, WIDE_ROWS):
    block = x[:, i : i + WIDE_ROWS].astype(np.float64)
    gram += block @ block.T
  square, u = np.linalg.eigh(gram)
  kept = square > square[-1] * rows * np.finfo(np.float64).eps
  u, s = u[:, kept], np.sqrt(square[kept])
  return u * s, lambda v: x.T @ (u @ (v / s[:, None]))


def _ridge(z, label, weight, grid) -> Iterator[tuple[float, np.ndarray, np.ndarray, bool]]:
  from sklearn.linear_model import Ridge

  for C in grid:
    found = Ridge(alpha=1 / C, solver="cholesky").fit(z, label, sample_weight=weight)
    yield C, found.coef_.T, found.intercept_, True


def _logistic(z, label, weight, grid) -> Iterator[tuple[float, np.ndarray, np.ndarray, bool]]:
  """(C, w [r, K], b [K], converged) of K classes numbered 0..K-1, each begun at the one before."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression

  model = LogisticRegression(max_iter=ITERATIONS, warm_start=True)
  for C in grid:
    model.set_params(C=C)
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter("always", ConvergenceWarning)
      model.fit(z, label, sample_weight=weight)
    late = [said for said in caught if issubclass(said.category, ConvergenceWarning)]
    for said in caught:
      if said not in late:
        warnings.warn_explicit(said.message, said.category, said.filename, said.lineno)
    w, b = model.coef_.T, model.intercept_
    if len(b) == 1:  # two classes, one logit
      w, b = np.hstack([np.zeros_like(w), w]), np.append(0.0, b)
    yield C, w.copy(), b.copy(), not late


def _one_label(z, label, weight, grid) -> Iterator[tuple[float, np.ndarray, np.ndarray, bool]]:
  """`_logistic` as one logit of a label 0/1; one that never varies is as often as it was."""
  if len(np.unique(label)) == 2:
    for C, w, b, converged in _logistic(z, label, weight, grid):
      yield C, w[:, 1:] - w[:, :1], b[1:] - b[:1], converged
    return
  on = float(label.sum())
  for C in grid:
    bias = np.log((on + 1) / (len(label) - on + 1))
    yield C, np.zeros((z.shape[1], 1)), np.array([bias]), True


def _path(z, label, weight, task, grid) -> Iterator[tuple[float, np.ndarray, np.ndarray, bool]]:
  """(C, w [r, K], b [K], converged) for each C of the grid, ascending."""
  if task == "regression":
    yield from _ridge(z, label.reshape(len(label), -1), weight, grid)
  elif task == "multilabel":
    for found in zip(*(_one_label(z, column, weight, grid) for column in label.T)):
      C, w, b, converged = zip(*found)
      yield C[0], np.hstack(w), np.concatenate(b), all(converged)
  elif label.max() > 0:
    yield from _logistic(z, label, weight, grid)
  else:
    yield from ((C, np.zeros((z.shape[1], 1)), np.zeros(1), True) for C in grid)


def fits(
  split: Any, modalities: tuple[str, ...], rows: np.ndarray, task: str, grid: tuple[float, ...]
) -> Iterator[Fit]:
  """The predictors of the `rows` of a training split, a `Fit` for each C of the ascending grid."""
  weight = np.ones(len(rows)) if split.weight is None else split.weight[rows].astype(np.float64)
  weight *= len(rows) / weight.sum()  # C means the same whatever the scale of the weights
  columns, x = _flat.fit(split.inputs, split.mask, modalities, rows, weight)
  label, classes = np.asarray(split.label)[rows], None
  if task == "classification":
    classes, label = np.unique(label, return_inverse=True)
  z, back = reduced(x)
  if not z.shape[1]:  # every column is constant
    z, back = np.zeros((len(rows), 1)), lambda v: np.zeros((x.shape[1], v.shape[1]))
  for C, w, b, converged in _path(z, label, weight, task, grid):
    yield Fit(columns, back(w), b, classes, C, len(rows), converged)


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

  Where rows x columns are many, C is chosen on some of the rows; where they are very many, the
  predictor is fitted to some of them (`Fit.rows`).

  Raises Unavailable for more than MOST_COLUMNS columns.
  """
  columns = max(1, width(split, modalities, rows))
  if columns > MOST_COLUMNS:
    raise Unavailable(f"{columns:,} columns, a linear baseline takes at most {MOST_COLUMNS:,}")
  fitted = some(rows, max(1, MOST_CELLS // columns))
  tried = some(fitted, min(CHOICE_ROWS, max(LEAST_ROWS, CHOICE_CELLS // columns)))
  best, most = None, -np.inf
  for found in fits(split, modalities, tried, task, GRID):
    score = judge(found)
    if best is None or score > most:
      best, most = found, score
  assert best is not None
  if len(tried) < len(fitted):
    (best,) = fits(split, modalities, fitted, task, (best.C,))
  return best, len(tried)
