"""mini_polymnist: MNIST digits of one class on five textures, one modality each, in two sizes.

After PolyMNIST (Sutter et al., ICLR 2021): its backgrounds are photographs, these are drawn here.
"""

import dataclasses
from pathlib import Path

import numpy as np

from mmfuse.data import _av_mnist_sources as sources
from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._splitting import SPLITS
from mmfuse.data._table import Table

RECIPE = "mini_polymnist-1"  # raise it whenever a pixel or a row's part would change
NUMBER = 7_021  # of the recipe, in every seed
MODALITIES = tuple(f"m{i}" for i in range(5))
CELLS = (3, 5, 9, 15, 24)  # of a texture's grid: from blots to grain
TEXTURE = 96  # side of a texture
SIDES = (14, 28)
TRAIN, SMALLEST, MOST = 2_000, 50, 55_000
THRESHOLD = 0.5  # of a grey value, above which a pixel belongs to the digit


def texture(number: int) -> np.ndarray:
  """uint8 [96, 96, 3]: smooth random colours on a grid of `CELLS[number]` cells, contrast raised.

  Sums and products alone, so that the bytes are the same everywhere.
  """
  cells = CELLS[number]
  rng = np.random.default_rng((NUMBER, number))
  grid = rng.random((cells + 1, cells + 1, 3))
  at = np.arange(TEXTURE) * (cells / TEXTURE)
  low, part = at.astype(int), at - at.astype(int)
  across = grid[low] * (1 - part[:, None, None]) + grid[low + 1] * part[:, None, None]
  weight = part[None, :, None]
  smooth = across[:, low] * (1 - weight) + across[:, low + 1] * weight
  for _ in range(2):  # away from grey: a digit is where colours are inverted
    smooth = smooth * smooth * (3 - 2 * smooth)
  return np.rint(255 * smooth).astype(np.uint8)


def digit_masks(images: np.ndarray, side: int) -> np.ndarray:
  """bool [N, side, side] of grey images uint8 [N, 28, 28]; 14 is the mean of 2 x 2 pixels."""
  cell = 28 // side
  grey = images.reshape(len(images), side, cell, side, cell).astype(np.float64).mean((2, 4))
  return np.asarray(grey > 255 * THRESHOLD)


def part_of(images: np.ndarray, label: np.ndarray, part: int, side: int) -> dict[str, np.ndarray]:
  """{m0..m4: uint8 [N, side, side, 3]} of one part: m0 shows the image, others another one of its class.

  Args:
    images: uint8 [N, 28, 28].
    label: [N].
    part: its number, in every seed.
    side: 14 or 28.
  """
  rng, on = np.random.default_rng((NUMBER, 100 + part, side)), digit_masks(images, side)
  found = {}
  for number, m in enumerate(MODALITIES):
    who = np.arange(len(label))
    if number:
      for c in np.unique(label):
        mine = np.flatnonzero(label == c)
        who[mine] = rng.permutation(mine)
    corner = rng.integers(0, TEXTURE - side + 1, (len(label), 2))
    rows, columns = (corner[:, i, None] + np.arange(side)[None] for i in (0, 1))
    crop = texture(number)[rows[:, :, None], columns[:, None]]
    found[m] = np.where(on[who][..., None], 255 - crop, crop)
  return found


def table(
  side: int, data_dir: str | Path | None = None, train_size: int | None = None, fake: bool = False
) -> Table:
  """m0..m4 float32 `[N, side, side, 3]` in 0..1 as they are, ten classes.

  The first `train_size` of MNIST's training images, its images 55,000 on validate (a fifth as many, at
  most 5,000), the first of its test images test (half as many, at most 10,000).

  Args:
    side: 14 or 28.
    data_dir: folder of MNIST's files; default $MMFUSE_DATA_DIR.
    train_size: 50..55,000, default 2,000.
    fake: 60 training rows of blobs instead, which need no file.

  Raises DataError where a file is missing or another one, or for another size.
  """
  size = TRAIN if train_size is None else train_size
  if not SMALLEST <= size <= MOST:
    raise DataError(f"train_size must lie in {SMALLEST}..{MOST:,} for mini_polymnist, got {size}")
  parts = _fake() if fake else _real(data_dir, size)
  made = [part_of(*given, number, side) for number, given in enumerate(parts)]
  arrays = {m: np.concatenate([p[m] for p in made]) for m in MODALITIES}
  arrays["label"] = np.concatenate([label for _, label in parts]).astype(np.int64)
  arrays["split"] = np.repeat(SPLITS, [len(label) for _, label in parts])
  name = "mini_polymnist" if side == SIDES[0] else f"mini_polymnist_{side}"
  found = table_from_arrays(arrays, name=f"{name}_fake" if fake else name, recipe=RECIPE)
  return dataclasses.replace(found, scale=dict.fromkeys(MODALITIES, "raw"))


def _real(data_dir: str | Path | None, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
  files = sources.read_mnist(data_dir)
  images, label = files["train-images-idx3-ubyte"], files["train-labels-idx1-ubyte"]
  held = slice(MOST, MOST + min(5_000, size // 5))
  few = slice(min(10_000, size // 2))
  test = files["t10k-images-idx3-ubyte"], files["t10k-labels-idx1-ubyte"]
  return [
    (images[:size], label[:size]),
    (images[held], label[held]),
    (test[0][few], test[1][few]),
  ]


def _fake() -> list[tuple[np.ndarray, np.ndarray]]:
  made = sources.fake_sources(60, 20, 30)
  return [(s.images, s.label) for s in (made.train, made.validation, made.test)]
