"""What AV-MNIST is built from: MNIST and spoken digits on disk, or stand-ins made on the spot."""

import gzip
import hashlib
import io
import os
import re
import tarfile
import wave
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data._error import DataError

DATA_DIR = "MMFUSE_DATA_DIR"
CLASSES = 10
FIRST_VALIDATION = 55_000  # row of the training file
TEST_CLIPS = 5  # official split of the spoken digits: index 0-4 test, the rest train
_CLIP_NAME = re.compile(r"(?:.*/)?(\d)_([a-z]+)_(\d+)\.wav")
_MAX_WAV = 1_000_000  # bytes; the longest clip has 36,568
_FAKE = 2  # fake sources are files 2 and 3: they share no seed with the real ones
_TONES, _CENTRES, _JITTER = 4, 5, 6  # further numbers in the place of a file, for their parts

# {file: (sha256 of the unpacked content, shape)}
MNIST = {
  "train-images-idx3-ubyte": (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", (60_000, 28, 28)),
  "train-labels-idx1-ubyte": (
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", (60_000,)),
  "t10k-images-idx3-ubyte": (
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", (10_000, 28, 28)),
  "t10k-labels-idx1-ubyte": (
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", (10_000,)),
}  # fmt: skip
SPOKEN = "free-spoken-digit-dataset"
SPOKEN_SHA256 = "a2e8a660492f28d9eed6270b290d26cbc5c81d6077ce87d3c0ad5adf4d4ee696"  # clips_digest


class Sources(NamedTuple):
  """What the splits are built from."""

  train: recipe.Source  # training and validation rows
  test: recipe.Source
  basis: recipe.Basis  # of all images of `train`
  first_validation: int  # row of `train` where validation begins


def read_idx(path: Path, sha256: str, shape: tuple[int, ...]) -> np.ndarray:
  """uint8 array of a gzipped IDX file, refused unless its *unpacked* bytes have this sha256.

  The content is checked and not the archive, because the same file is in circulation packed by
  several compressors.
  """
  size = 4 + 4 * len(shape) + int(np.prod(shape))
  try:
    with gzip.open(path) as file:
      content = file.read(size + 1)
  except (gzip.BadGzipFile, EOFError, zlib.error):
    raise DataError(f"{path} is not a complete gzip file") from None
  if hashlib.sha256(content).hexdigest() != sha256:
    raise DataError(f"{path} does not hold the original MNIST bytes (another sha256): refused")
  return np.frombuffer(content, np.uint8, offset=size - int(np.prod(shape))).reshape(shape)


def clips_digest(wavs: dict[str, bytes]) -> str:
  """sha256 over the sorted (name, sha256 of the bytes) of recordings, however they are packed."""
  total = hashlib.sha256()
  for name in sorted(wavs):
    total.update(name.encode() + b"\0" + hashlib.sha256(wavs[name]).digest())
  return total.hexdigest()


def read_clips(path: Path, sha256: str) -> tuple[recipe.Clips, recipe.Clips]:
  """(train, test) clips of the spoken-digit archive, read in memory; nothing is written to disk.

  Refused unless `clips_digest` of its recordings is `sha256`.
  """
  wavs = {}
  try:
    with tarfile.open(path, "r:gz") as archive:
      for member in archive:
        content = archive.extractfile(member) if member.isreg() else None
        if content and _CLIP_NAME.fullmatch(member.name) and member.size <= _MAX_WAV:
          wavs[member.name.rsplit("/", 1)[-1]] = content.read()
  except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error):
    raise DataError(f"{path} is not a complete tar.gz archive") from None
  if clips_digest(wavs) != sha256:
    raise DataError(
      f"{path} does not hold the 3,000 recordings of version 1.0.10 "
      f"({len(wavs)} found, another sha256): refused"
    )
  return decode_clips(wavs)


def decode_clips(wavs: dict[str, bytes]) -> tuple[recipe.Clips, recipe.Clips]:
  """(train, test) clips from {"{digit}_{speaker}_{number}.wav": bytes}, 8 kHz, 16 bit, mono."""
  found = []
  for name, content in wavs.items():
    digit, speaker, number = name.removesuffix(".wav").split("_")
    with wave.open(io.BytesIO(content)) as file:
      samples = np.frombuffer(file.readframes(recipe.RATE), "<i2")
    found.append((int(digit), recipe.SPEAKERS.index(speaker), int(number), samples))
  found.sort(key=lambda clip: clip[:3])
  return (
    recipe.make_clips([c for c in found if c[2] >= TEST_CLIPS]),
    recipe.make_clips([c for c in found if c[2] < TEST_CLIPS]),
  )


def folder(data_dir: str | Path | None) -> Path:
  """`data_dir` or $MMFUSE_DATA_DIR. Raises DataError where neither is given or it is no folder."""
  given = data_dir or os.environ.get(DATA_DIR)
  if not given:
    raise DataError(
      f"av_mnist is built from the files of MNIST and of the Free Spoken Digit Dataset: give "
      f"data_dir (--data-dir) or set {DATA_DIR} to the folder with mnist/ and {SPOKEN}.tar.gz"
    )
  if not Path(given).is_dir():
    raise DataError(f"the data folder {given} is not a folder")
  return Path(given)


def _find(folder: Path, patterns: tuple[str, ...]) -> Path:
  for pattern in patterns:
    for path in sorted(folder.glob(pattern)):
      return path
  raise DataError(f"the data folder {folder} has no {patterns[0]}, which av_mnist is built from")


def read_mnist(data_dir: str | Path | None = None) -> dict[str, np.ndarray]:
  """{name of the file: uint8 array} of MNIST, images [N, 28, 28] and labels [N], each checked.

  Raises DataError where the folder or a file is missing, or a file is another one.
  """
  root = folder(data_dir)
  return {n: read_idx(_find(root, (f"mnist/{n}.gz", f"{n}.gz")), *f) for n, f in MNIST.items()}


def real_sources(data_dir: str | Path | None = None) -> Sources:
  """MNIST and the spoken digits from `data_dir` or $MMFUSE_DATA_DIR, each checked by its sha256.

  Raises DataError where the folder or a file is missing, or a file is another one.
  """
  arrays = read_mnist(data_dir)
  clips = read_clips(_find(folder(data_dir), (f"{SPOKEN}*.tar.gz",)), SPOKEN_SHA256)
  train, test = (
    recipe.Source(i, arrays[f"{name}-images-idx3-ubyte"], arrays[f"{name}-labels-idx1-ubyte"], clip)
    for i, (name, clip) in enumerate(zip(("train", "t10k"), clips))
  )
  return Sources(train, test, recipe.fit_basis(train.images), FIRST_VALIDATION)


def _fake_clips(indices: tuple[int, ...]) -> recipe.Clips:
  """A tone and its octave per digit, a little higher for the second of two speakers."""
  found = []
  for digit in range(CLASSES):
    for speaker in range(2):
      for index in indices:
        rng = np.random.default_rng((recipe.RECIPE, _TONES, digit, speaker, index))
        time = np.arange(rng.integers(2_000, 5_000)) / recipe.RATE
        turn = 2 * np.pi * (250 + 120 * digit) * (1 + 0.04 * speaker) * time
        found.append((digit, speaker, index, np.sin(turn) + 0.5 * np.sin(2 * turn)))
  return recipe.make_clips(found)


def _fake_source(file: int, rows: int, indices: tuple[int, ...]) -> recipe.Source:
  """Three blobs per digit, moved and dimmed from row to row; the digits take turns."""
  centres = np.random.default_rng((recipe.RECIPE, _CENTRES)).uniform(6, 22, (CLASSES, 3, 2))
  label = (np.arange(rows) % CLASSES).astype(np.uint8)
  rngs = (np.random.default_rng((recipe.RECIPE, _JITTER, file, row)) for row in range(rows))
  draws = np.array([rng.uniform(-1, 1, (3, 3)) for rng in rngs])
  distance = np.arange(28) - (centres[label] + draws[..., :2])[..., None]  # [N, 3, 2, 28]
  bump = np.exp(-np.square(distance) / 8)
  blobs = (0.8 + 0.2 * draws[..., 2, None, None]) * bump[:, :, 0, :, None] * bump[:, :, 1, None, :]
  images = np.rint(255 * blobs.max(1)).astype(np.uint8)
  return recipe.Source(file, images, label, _fake_clips(indices))


def fake_sources(train: int, validation: int, test: int) -> Sources:
  """Stand-ins of the same schema that need no file: blobs and tones, classes balanced."""
  training = _fake_source(_FAKE, train + validation, (5, 6, 7))
  testing = _fake_source(_FAKE + 1, test, (0, 1))
  return Sources(training, testing, recipe.fit_basis(training.images), train)
