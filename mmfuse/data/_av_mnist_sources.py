"""What AV-MNIST is built from: MNIST and spoken digits on disk, or stand-ins made on the spot."""

import functools
import gzip
import hashlib
import io
import re
import tarfile
import wave
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _stored
from mmfuse.data._error import DataError
from mmfuse.data._stored import DATA_DIR

CLASSES = 10
FIRST_VALIDATION = 55_000  # row of the training file
TEST_CLIPS = 5  # official split of the spoken digits: index 0-4 test, the rest train
TRAINING_CLIPS = range(TEST_CLIPS, 50)
VALIDATION_CLIPS = 5  # of those, for each digit and speaker
_CLIP_NAME = re.compile(r"(?:.*/)?(\d)_([a-z]+)_(\d+)\.wav")
_MAX_WAV = 1_000_000  # bytes; the longest clip has 36,568
_FAKE = 3  # fake sources are parts 3, 4 and 5: they share no seed with the real ones
_TONES, _CENTRES, _JITTER, _HELD_OUT = 6, 7, 8, 9  # other draws, numbered in the place of a part

# {file: (sha256 of the unpacked content, shape)}
MNIST = {
  "train-images-idx3-ubyte": (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    (60_000, 28, 28),
  ),
  "train-labels-idx1-ubyte": (
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    (60_000,),
  ),
  "t10k-images-idx3-ubyte": (
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    (10_000, 28, 28),
  ),
  "t10k-labels-idx1-ubyte": (
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    (10_000,),
  ),
}
SPOKEN = "free-spoken-digit-dataset"
SPOKEN_SHA256 = "a2e8a660492f28d9eed6270b290d26cbc5c81d6077ce87d3c0ad5adf4d4ee696"  # clips_digest


class Sources(NamedTuple):
  """What the splits are built from."""

  train: recipe.Source
  validation: recipe.Source
  test: recipe.Source
  basis: recipe.Basis  # of the images of `train`


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
  except OSError as error:
    raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
  if hashlib.sha256(content).hexdigest() != sha256:
    raise DataError(f"{path} does not hold the original MNIST bytes (another sha256): refused")
  return np.frombuffer(content, np.uint8, offset=size - int(np.prod(shape))).reshape(shape)


def clips_digest(wavs: dict[str, bytes]) -> str:
  """sha256 over the sorted (name, sha256 of the bytes) of recordings, however they are packed."""
  total = hashlib.sha256()
  for name in sorted(wavs):
    total.update(name.encode() + b"\0" + hashlib.sha256(wavs[name]).digest())
  return total.hexdigest()


def read_clips(path: Path, sha256: str) -> tuple[recipe.Clips, recipe.Clips, recipe.Clips]:
  """(train, validation, test) clips of the spoken-digit archive, read in memory; nothing is written to disk.

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
  except OSError as error:
    raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
  if clips_digest(wavs) != sha256:
    raise DataError(
      f"{path} does not hold the 3,000 recordings of version 1.0.10 "
      f"({len(wavs)} found, another sha256): refused"
    )
  return decode_clips(wavs)


@functools.cache
def held_out(digit: int, speaker: int) -> frozenset[int]:
  """Numbers of the recordings of a digit by a speaker that validate: 5 of 5..49, seeded."""
  rng = np.random.default_rng((recipe.RECIPE, _HELD_OUT, digit, speaker))
  return frozenset(rng.choice(TRAINING_CLIPS, VALIDATION_CLIPS, replace=False).tolist())


def _part(digit: int, speaker: int, number: int) -> int:
  if number < TEST_CLIPS:
    return 2
  return 1 if number in held_out(digit, speaker) else 0


def decode_clips(wavs: dict[str, bytes]) -> tuple[recipe.Clips, recipe.Clips, recipe.Clips]:
  """(train, validation, test) clips, each recording in one of them.

  Args:
    wavs: {"{digit}_{speaker}_{number}.wav": bytes}, 8 kHz, 16 bit, mono.
  """
  found: tuple[list, list, list] = ([], [], [])
  for name, content in wavs.items():
    digit, speaker, number = name.removesuffix(".wav").split("_")
    with wave.open(io.BytesIO(content)) as file:
      samples = np.frombuffer(file.readframes(recipe.RATE), "<i2")
    clip = (int(digit), recipe.SPEAKERS.index(speaker), int(number))
    found[_part(*clip)].append((*clip, samples))
  for clips in found:
    clips.sort(key=lambda clip: clip[:3])
  train, validation, test = (recipe.make_clips(clips) for clips in found)
  return train, validation, test


def folder(data_dir: str | Path | None) -> Path:
  """`data_dir` or $MMFUSE_DATA_DIR. Raises DataError where neither is given or it is no folder."""
  return _stored.folder(
    data_dir,
    "av_mnist is built from the files of MNIST and of the Free Spoken Digit Dataset: give "
    f"data_dir (--data-dir) or set {DATA_DIR} to the folder with mnist/ and {SPOKEN}.tar.gz",
  )


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
  train, validation, test = read_clips(
    _find(folder(data_dir), (f"{SPOKEN}*.tar.gz",)), SPOKEN_SHA256
  )

  def source(part: int, file: str, rows: slice, clips: recipe.Clips) -> recipe.Source:
    images, label = (arrays[f"{file}-{kind}-ubyte"] for kind in ("images-idx3", "labels-idx1"))
    return recipe.Source(part, images[rows], label[rows], clips)

  first = source(0, "train", slice(FIRST_VALIDATION), train)
  return Sources(
    first,
    source(1, "train", slice(FIRST_VALIDATION, None), validation),
    source(2, "t10k", slice(None), test),
    recipe.fit_basis(first.images),
  )


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


def _fake_source(part: int, rows: int, indices: tuple[int, ...]) -> recipe.Source:
  """Three blobs per digit, moved and dimmed from row to row; the digits take turns."""
  centres = np.random.default_rng((recipe.RECIPE, _CENTRES)).uniform(6, 22, (CLASSES, 3, 2))
  label = (np.arange(rows) % CLASSES).astype(np.uint8)
  rngs = (np.random.default_rng((recipe.RECIPE, _JITTER, part, row)) for row in range(rows))
  draws = np.array([rng.uniform(-1, 1, (3, 3)) for rng in rngs])
  distance = np.arange(28) - (centres[label] + draws[..., :2])[..., None]  # [N, 3, 2, 28]
  bump = np.exp(-np.square(distance) / 8)
  blobs = (0.8 + 0.2 * draws[..., 2, None, None]) * bump[:, :, 0, :, None] * bump[:, :, 1, None, :]
  images = np.rint(255 * blobs.max(1)).astype(np.uint8)
  return recipe.Source(part, images, label, _fake_clips(indices))


def fake_sources(train: int, validation: int, test: int) -> Sources:
  """Stand-ins of the same schema that need no file: blobs and tones, classes balanced."""
  rows, numbers = (train, validation, test), ((5, 6, 7), (8, 9), (0, 1))
  first, second, third = (_fake_source(_FAKE + i, rows[i], numbers[i]) for i in range(3))
  return Sources(first, second, third, recipe.fit_basis(first.images))
