"""digit_pairs: a digit and another one of its class, turned, inverted and noisy: what retrieval pairs up."""

import dataclasses

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._splitting import SPLITS
from mmfuse.data._table import Table

RECIPE = "digit_pairs-1"  # raise it whenever a pixel or a row's part would change
COUNTS = (100, 29)  # images of a class that train and validate; the others (45 to 54) test
NOISE = 0.25  # standard deviation, for pixels in [0, 1]
ROUNDS = 2  # how often every image is an x0
SIDE = 8  # of an image


def _images() -> tuple[np.ndarray, np.ndarray]:
  """(pixels [1797, 8, 8] in [0, 1], class [1797])."""
  try:
    from sklearn.datasets import load_digits
  except ImportError as error:
    raise DataError(
      "digit_pairs is made of a data set of scikit-learn, which is not installed; "
      "pip install 'mmfuse[datasets]' brings it"
    ) from error
  bunch = load_digits()
  return bunch.images / 16.0, bunch.target


def members(label: np.ndarray, seed: int) -> list[list[np.ndarray]]:
  """[part][class]: its images. Images are dealt out before they are paired: none is in two parts."""
  parts: list[list[np.ndarray]] = [[] for _ in SPLITS]
  for c in np.unique(label):
    order = np.random.default_rng((seed, int(c))).permutation(np.flatnonzero(label == c))
    for part, found in zip(parts, np.split(order, np.cumsum(COUNTS))):
      part.append(found)
  return parts


def partners(classes: list[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """(x0 [n], x1 [n]) of one part: every image twice in class order, each with another of its class."""
  first = np.tile(np.concatenate(classes), ROUNDS)
  size = np.tile(np.concatenate([np.full(len(c), len(c)) for c in classes]), ROUNDS)
  place = np.tile(np.concatenate([np.arange(len(c)) for c in classes]), ROUNDS)
  begin = np.tile(np.repeat(np.cumsum([0, *map(len, classes[:-1])]), list(map(len, classes))), ROUNDS)
  drawn = rng.integers(0, size - 1)
  other = drawn + (drawn >= place)  # of the others alone
  return first, np.concatenate(classes)[begin + other]


def pairs(seed: int = 0) -> dict[str, np.ndarray]:
  """{x0, x1: [3594, 64], label, split}: what `table` is made of, with the pairs of a seed.

  x0 = d / 16, x1 = a quarter turn counter-clockwise of 1 - d' / 16, plus N(0, .25^2), not clipped; d'
  is another digit of d's class and part. Training 2,000, validation 580, test 1,014 pairs.

  Raises DataError where scikit-learn is not installed.
  """
  image, label = _images()
  turned = np.rot90(1.0 - image, axes=(1, 2))
  found: dict[str, list[np.ndarray]] = {"x0": [], "x1": [], "label": [], "split": []}
  for number, (name, classes) in enumerate(zip(SPLITS, members(label, seed))):
    rng = np.random.default_rng((seed, 10 + number))
    first, second = partners(classes, rng)
    noise = rng.normal(0.0, NOISE, (len(second), SIDE * SIDE))
    found["x0"].append(image[first].reshape(len(first), -1))
    found["x1"].append(turned[second].reshape(len(second), -1) + noise)
    found["label"].append(label[first])
    found["split"].append(np.full(len(first), name))
  return {name: np.concatenate(parts) for name, parts in found.items()}


def table(seed: int = 0) -> Table:
  """digit_pairs: x0 and x1 `[3594, 64]` as they are, ten classes, 2,000 / 580 / 1,014 pairs; see `pairs`.

  Args:
    seed: of images and pairs, default 0, that of the built-in set.
  """
  arrays = pairs(seed)
  raw = {m: "raw" for m in ("x0", "x1")}
  recipe = RECIPE if seed == 0 else f"{RECIPE} {seed}"
  made = table_from_arrays(arrays, name="digit_pairs", recipe=recipe)
  return dataclasses.replace(made, scale=raw)
