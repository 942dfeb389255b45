"""digits: three noisy views of scikit-learn's 8x8 digits, one clearly better than the others."""

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._splitting import by_class
from mmfuse.data._table import Table

RECIPE = "digits-1"
SEED = 0  # of the noise and of the validation rows: part of the recipe
POOL, VALIDATION = 700, 0.2  # the first rows train and validate, the other 1,097 test
NOISE = {"A": 0.15, "B": 0.45, "C": 0.35}  # standard deviations, for pixels in [0, 1]


def views(seed: int = SEED) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """({A, B, C: [1797, D]}, label [1797]): what `table` is made of, with the noise of a seed.

  Raises DataError where scikit-learn is not installed.
  """
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise DataError(
      "digits is a data set of scikit-learn, which is not installed; "
      "pip install 'mmfuse[datasets]' brings it"
    ) from error
  bunch = load_digits()
  image = bunch.images / 16.0
  parts = {
    "A": image[:, :, :4],
    "B": image[:, :, 4:],
    "C": image.reshape(-1, 4, 2, 4, 2).mean((2, 4)),
  }
  rng = np.random.default_rng(seed)
  clean = {m: x.reshape(len(x), -1) for m, x in parts.items()}
  return {m: x + rng.normal(0, NOISE[m], x.shape) for m, x in sorted(clean.items())}, bunch.target


def table() -> Table:
  """digits: A `[1797, 32]` left half, B `[1797, 32]` right half, C `[1797, 16]` 2x2 mean-pooled.

  Pixels are scaled to [0, 1]; each view has Gaussian noise of its own, standard deviation .15, .45
  and .35. Rows 0-699 train (560) and validate (140, stratified), rows 700-1796 test.

  Raises DataError as `views` does.
  """
  arrays, label = views()
  split = np.full(len(label), "test", dtype="<U10")
  pool = by_class(label[:POOL], (1 - VALIDATION, VALIDATION), SEED)
  split[:POOL] = np.where(pool == 0, "train", "validation")
  return table_from_arrays({**arrays, "label": label, "split": split}, name="digits", recipe=RECIPE)
