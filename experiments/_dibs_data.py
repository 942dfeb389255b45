"""MNIST for `experiments.dibs`: 6,000 rows to learn and choose from, shifted digits, and what is no digit.

All pictures are [28, 28, 1] in 0..1. Parts: train and validation of the training file; test, "shifted"
and, permuted, "ood" of the test file, each digit in one of them. `truth_kind` says which shift or which
foreign pictures, in the order of `SHIFTS` and `FOREIGN`.
"""

from typing import NamedTuple

import numpy as np
import scipy.ndimage

from mmfuse import data
from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _av_mnist_sources as sources
from mmfuse.data import _emoji, _stored

SHIFTS = ("rotated", "noisy", "low contrast")
FOREIGN = ("emoji", "permuted", "spoken")
ANGLES = (15.0, 45.0)  # degrees, to either side
NOISE = 0.3  # standard deviation; clipped to 0..1 afterwards
CONTRAST = 0.4  # about a half
GREY = (0.299, 0.587, 0.114)
SEED = 0  # of the rows, angles, noise and the permutation: part of the recipe
RECIPE = "mnist-shifts-1"


class Rows(NamedTuple):
  """How many of each part; of shifted and foreign rows: of each kind."""

  train: int = 5000
  validation: int = 1000
  test: int = 2000
  shifted: int = 1000
  ood: int = 1000


FEW = Rows(60, 20, 20, 12, 12)


def shifted(images: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
  """[N, 28, 28] in 0..1, under one of `SHIFTS`."""
  if kind == "noisy":
    return np.clip(images + rng.normal(0, NOISE, images.shape), 0, 1)
  if kind == "low contrast":
    return 0.5 + CONTRAST * (images - 0.5)
  angles = rng.uniform(*ANGLES, len(images)) * rng.choice((-1, 1), len(images))
  turn = lambda x, a: scipy.ndimage.rotate(x, a, reshape=False, order=1)
  return np.clip([turn(x, a) for x, a in zip(images, angles)], 0, 1)


def grey_emoji(count: int, data_dir: str | None, fake: bool, rng) -> np.ndarray:
  """Google's drawings, [count, 28, 28] in 0..1."""
  raw = _emoji.fake_arrays() if fake else _stored.read(_emoji.ARCHIVE, data_dir)
  pictures = raw["google"][rng.choice(len(raw["google"]), count, replace=False)] / 255.0
  factor = 28 / pictures.shape[1]
  return np.clip(
    scipy.ndimage.zoom(pictures @ np.asarray(GREY), (1, factor, factor), order=1), 0, 1
  )


def spectrograms(count: int, clips: recipe.Clips, rng) -> np.ndarray:
  """Spoken digits, [count, 28, 28] in 0..1: what AV-MNIST hears, without its noise."""
  wave = clips.wave[rng.choice(len(clips.wave), count, replace=len(clips.wave) < count)]
  blocks = [recipe.spectrogram(wave[i : i + 100]) for i in range(0, count, 100)]
  return recipe.pool(np.concatenate(blocks)[..., None], 28)[..., 0] / 255.0


def table(data_dir: str | None = None, fake: bool = False) -> data.Table:
  """The table; `fake`: few rows of blobs and tones, which need no file."""
  size = FEW if fake else Rows()
  given = sources.fake_sources(80, 20, 80) if fake else sources.real_sources(data_dir)
  rng = np.random.default_rng(SEED)
  first, last = given.train, given.test
  learnt = rng.permutation(len(first.images))[: size.train + size.validation]
  held = iter(
    np.split(
      rng.permutation(len(last.images)),
      np.cumsum([size.test, *[size.shifted] * len(SHIFTS), size.ood]),
    )
  )
  pictures = lambda rows: last.images[rows] / 255.0
  test = next(held)
  parts = [
    ("train", first.images[learnt[: size.train]] / 255.0, first.label[learnt[: size.train]], 0),
    (
      "validation",
      first.images[learnt[size.train :]] / 255.0,
      first.label[learnt[size.train :]],
      0,
    ),
    ("test", pictures(test), last.label[test], 0),
  ]
  for kind, name in enumerate(SHIFTS):
    rows = next(held)
    parts.append(("shifted", shifted(pictures(rows), name, rng), last.label[rows], kind))
  permuted = pictures(next(held)).reshape(size.ood, -1)[:, rng.permutation(28 * 28)]
  foreign = (
    grey_emoji(size.ood, data_dir, fake, rng),
    permuted.reshape(-1, 28, 28),
    spectrograms(size.ood, given.train.clips, rng),
  )
  parts += [("ood", x, np.zeros(size.ood), kind) for kind, x in enumerate(foreign)]
  repeated = lambda i: np.concatenate([np.full(len(p[1]), p[i]) for p in parts])
  split = repeated(0)
  return data.table_from_arrays(
    {
      "image": np.concatenate([p[1] for p in parts])[..., None].astype(np.float32),
      "label": np.concatenate([p[2] for p in parts]).astype(np.int32),
      "mask_label": split != "ood",
      "split": split,
      "truth_kind": repeated(3),
    },
    name="mnist_shifts_fake" if fake else "mnist_shifts",
    recipe=RECIPE,
  )
