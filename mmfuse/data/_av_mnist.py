"""AV-MNIST, image + audio: a TFDS builder for the streaming path and a table for the resident one.

Both run the recipe of `_av_mnist_recipe` on files the user has (or, `fake`, on blobs and tones made
on the spot), so a row of one is the same row of the other.
"""

import functools
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _av_mnist_sources as sources
from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._npz import read_arrays
from mmfuse.data._table import Table

CACHE_DIR = "MMFUSE_CACHE_DIR"
TRAIN, VALIDATION, TEST = 55_000, 5_000, 10_000  # rows
SMALLEST = 50  # training rows; below, a split soon lacks a class
AUDIO_SIZES = (112, 28)
CONFIGS = {"full": TRAIN, "10k": 10_000, "2k": 2_000, "fake": None}  # name -> training rows

INSTRUCTIONS = """Put these files into one folder (nothing needs to be unpacked):
mnist/train-images-idx3-ubyte.gz, mnist/train-labels-idx1-ubyte.gz, mnist/t10k-images-idx3-ubyte.gz,
mnist/t10k-labels-idx1-ubyte.gz: the four original files of "The MNIST database of handwritten
digits" (Y. LeCun, C. Cortes, C. Burges), licence CC BY-SA 3.0;
free-spoken-digit-dataset.tar.gz: version 1.0.10 of the "Free Spoken Digit Dataset" (Z. Jackson and
others; the source archive of that tag), licence CC BY-SA 4.0.
What they hold is checked against a sha256; how they are compressed does not matter."""


class Sizes(NamedTuple):
  """Rows of each split; every split is a prefix of the full one."""

  train: int
  validation: int
  test: int


def sizes(train_size: int | None = None) -> Sizes:
  """Rows of the splits for so many training rows: n, min(5000, n // 5), min(10000, n // 2).

  None is the full set: 55,000, 5,000, 10,000. Raises DataError outside 50..55,000.
  """
  if train_size is None:
    return Sizes(TRAIN, VALIDATION, TEST)
  if not SMALLEST <= train_size <= TRAIN:
    raise DataError(f"train_size must lie in {SMALLEST}..{TRAIN} for AV-MNIST, got {train_size}")
  return Sizes(train_size, min(VALIDATION, train_size // 5), min(TEST, train_size // 2))


def _fake_sizes(train_size: int | None = None) -> Sizes:
  return Sizes(30, 10, 20) if train_size is None else sizes(train_size)


def split_rows(raw: sources.Sources, size: Sizes) -> dict[str, Iterator[recipe.Rows]]:
  """{split: its finished rows, block by block}."""
  parts = {"train": raw.train, "validation": raw.validation, "test": raw.test}
  return {
    name: recipe.build(source, raw.basis, 0, rows)
    for (name, source), rows in zip(parts.items(), size)
  }


def _build(raw: sources.Sources, size: Sizes, audio_size: int) -> dict[str, np.ndarray]:
  blocks, split = [], []
  for name, rows in split_rows(raw, size).items():
    for block in rows:
      if audio_size != recipe.AUDIO:  # at once: the full set is .9 GB at 112 x 112
        block = block._replace(audio=recipe.pool(block.audio, audio_size))
      blocks.append(block)
      split.append(np.full(len(block.label), name))
  fields = {f: np.concatenate([getattr(b, f) for b in blocks]) for f in recipe.Rows._fields}
  return {**fields, "split": np.concatenate(split)}


def _cache_path(size: Sizes, audio_size: int) -> Path:
  root = Path(os.environ.get(CACHE_DIR) or "~/.cache/mmfuse").expanduser()
  rows = "-".join(map(str, size))
  return root / "av_mnist" / f"recipe{recipe.RECIPE}-rows{rows}-audio{audio_size}.npz"


def _read_cache(path: Path) -> dict[str, np.ndarray]:
  try:
    return read_arrays(path)
  except DataError:
    raise DataError(f"the cache file {path} is damaged; delete it and it is built again") from None


def _write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Whole or not at all; where the folder cannot be written the next run just builds again."""
  temporary = path.with_name(f"{path.stem}-{os.getpid()}.part")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
      temporary.replace(path)
    finally:
      temporary.unlink(missing_ok=True)
  except OSError as error:
    logging.getLogger("mmfuse").warning("AV-MNIST is not cached: %s", error)


def arrays(
  data_dir: str | Path | None = None,
  fake: bool = False,
  train_size: int | None = None,
  audio_size: int = 112,
) -> dict[str, np.ndarray]:
  """All rows of the set, raw: train, then validation, then test.

  Args:
    data_dir: folder of the raw files; default $MMFUSE_DATA_DIR. Not needed where the cache
      ($MMFUSE_CACHE_DIR, default ~/.cache/mmfuse) already has these sizes.
    fake: blobs and tones instead, 30 + 10 + 20 rows unless `train_size` is given; never cached.
    train_size: 50..55,000 training rows, default all; `sizes` says how many of the others.
    audio_size: 112, or 28: 4 x 4 mean pooling, rounded to uint8.

  Returns:
    `image` uint8 [N, 28, 28, 1], `audio` uint8 [N, S, S, 1] (frames x bins), `label` int32 [N],
    `split` str [N], `speaker` int32 [N] (position in the recipe's SPEAKERS) and `clip` int32 [N]
    (number of the recording within digit and speaker), which tell memorised clips from learnt
    digits: no recording speaks in two splits.

  Raises:
    DataError: a folder, file or size that cannot be used.
  """
  if audio_size not in AUDIO_SIZES:
    raise DataError(f"audio_size must be one of {AUDIO_SIZES} for AV-MNIST, got {audio_size}")
  if fake:
    size = _fake_sizes(train_size)
    return _build(sources.fake_sources(*size), size, audio_size)
  size = sizes(train_size)
  path = _cache_path(size, audio_size)
  if data_dir is not None:
    sources.folder(data_dir)  # a wrong one is said, even where the cache would do
  if path.is_file():
    return _read_cache(path)
  raw = sources.real_sources(data_dir)
  logging.getLogger("mmfuse").info("building %d rows of AV-MNIST, 1-3 ms each", sum(size))
  built = _build(raw, size, audio_size)
  _write_cache(path, built)
  return built


def table(
  data_dir: str | Path | None = None,
  fake: bool = False,
  train_size: int | None = None,
  audio_size: int = 112,
) -> Table:
  """AV-MNIST in memory: `image` [N, 28, 28, 1] and `audio` [N, S, S, 1], float32 in 0..1.

  Split as in `arrays`, which also says what the arguments mean; no groups. The full set takes
  3.5 GB of audio at 112 x 112 and .2 GB at 28 x 28; `builder_class` streams it instead.

  Raises DataError: a folder, file or size that cannot be used.
  """
  raw = arrays(data_dir, fake, train_size, audio_size)
  kept = {name: raw[name] for name in ("image", "audio", "label", "split")}
  name = "av_mnist_fake" if fake else "av_mnist"
  return table_from_arrays(kept, name=name, recipe=f"av_mnist-{recipe.RECIPE}")


def examples(blocks: Iterator[recipe.Rows]) -> Iterator[tuple[int, dict[str, Any]]]:
  """(row, {feature: value}) of each row, as TFDS wants it."""
  row = 0
  for block in blocks:
    for values in zip(*block):
      yield row, dict(zip(recipe.Rows._fields, values))
      row += 1


def _tfds() -> Any:
  try:
    import tensorflow_datasets
  except ModuleNotFoundError as error:
    raise DataError(
      f"the AV-MNIST builder needs tensorflow_datasets ({error}); pip install 'mmfuse[tfds]'"
    ) from error
  return tensorflow_datasets


@functools.cache
def builder_class() -> type:
  """`AvMnist`, a `tfds.core.GeneratorBasedBuilder` that runs without TensorFlow.

  Configurations: `full` (55,000 training rows), `10k`, `2k`, and `fake`, which needs no file; the
  other splits follow `sizes`. Rows are stored in order, those of `arrays`.
  Raw files are read from `DownloadConfig(manual_dir=...)`.

  Raises DataError where tensorflow_datasets is not installed.

      builder = builder_class()(config="2k", data_dir=..., file_format="array_record")
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))
      source = builder.as_data_source(split="train")
  """
  tfds: Any = _tfds()

  class AvMnist(tfds.core.GeneratorBasedBuilder):
    """AV-MNIST: written digits of four principal components, spoken digits in noise."""

    VERSION = tfds.core.Version(f"{recipe.RECIPE}.0.0")
    RELEASE_NOTES = {
      "1.0.0": "First recipe: validation had the recordings of train.",
      "2.0.0": "Validation has recordings of its own; the image basis is that of train alone.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS
    BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name=name, description=f"{rows or 'generated'} training rows")
      for name, rows in CONFIGS.items()
    ]

    def _info(self):
      features = tfds.features
      return tfds.core.DatasetInfo(
        builder=self,
        description=recipe.__doc__,
        features=features.FeaturesDict(
          {
            "image": features.Tensor(shape=(28, 28, 1), dtype=np.uint8, encoding="zlib"),
            "audio": features.Tensor(shape=(112, 112, 1), dtype=np.uint8, encoding="zlib"),
            "label": features.ClassLabel(num_classes=sources.CLASSES),
            "speaker": features.Scalar(dtype=np.int32),
            "clip": features.Scalar(dtype=np.int32),
          }
        ),
        supervised_keys=None,
        license="CC BY-SA 4.0 (spoken digits), CC BY-SA 3.0 (MNIST)",
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      if self.builder_config.name == "fake":
        size = _fake_sizes()
        raw = sources.fake_sources(*size)
      else:
        size = sizes(CONFIGS[self.builder_config.name])
        raw = sources.real_sources(dl_manager.manual_dir)
      rows = split_rows(raw, size)
      return {name: self._generate_examples(blocks) for name, blocks in rows.items()}

    def _generate_examples(self, blocks):
      return examples(blocks)

  return AvMnist
