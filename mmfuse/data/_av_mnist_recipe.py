"""The AV-MNIST recipe: a written digit with little variance left, the same digit spoken in noise.

Vielzeuf, Lechervy, Pateux, Jurie, CentralNet: a Multilayer Approach for Multimodal Fusion, ECCV
Workshops 2018, introduced the set; no generator was released. This one is versioned and seeded:
every row draws from its own generator seeded by (version, part, row), so a small set is the prefix
of a large one, whatever is built in whichever order.

No recording is heard in two parts, neither as the digit nor as babble: of the 45 recordings of a
digit by a speaker that the official split trains on, a draw of this recipe sets 5 aside, as many as
test, for validation. The image basis is that of the 55,000 training images, whatever the size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

RECIPE = 2  # raise it whenever a pixel of any row would change
RATE = 8_000  # samples a second, and samples in the one-second window
WINDOW, HOP = 222, 70  # (8000 - 222) // 70 + 1 = 112 frames of 222 // 2 + 1 = 112 bins
AUDIO = 112
VARIANCE = 0.25  # share of the pixel variance that the image part keeps at least
FLOOR_DB = 60.0
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
BLOCK = 20  # rows built at once; blocks are aligned, so a row's company never depends on the size
_BINS = RATE // 2 + 1
_LOG_F = np.log(np.arange(1, _BINS))
_TIME = np.linspace(0, 8, RATE)  # in knots of the envelope
_HANN = np.hanning(WINDOW + 1)[:-1]  # periodic, as for any overlapping analysis


class Clips(NamedTuple):
  """The spoken digits of one split."""

  wave: np.ndarray  # float32 [C, 8000], unit RMS over its own length, then zeros
  length: np.ndarray  # int [C], samples kept, at most 8,000
  digit: np.ndarray  # int [C]
  speaker: np.ndarray  # int [C], position in SPEAKERS
  number: np.ndarray  # int [C], the recording's number within (digit, speaker)


class Source(NamedTuple):
  """The written digits of one part and the clips that may accompany them."""

  part: int  # 0 = train, 1 = validation, 2 = test; in every row's seed
  images: np.ndarray  # uint8 [N, 28, 28]
  label: np.ndarray  # uint8 [N]
  clips: Clips


class Basis(NamedTuple):
  """The leading principal components of the training pixels."""

  mean: np.ndarray  # float64 [784], pixels in 0..1
  components: np.ndarray  # float64 [784, k], orthonormal columns
  cumulative: np.ndarray  # float64 [min(N, 784)], variance held by the first j + 1, a share


class Rows(NamedTuple):
  """Consecutive finished rows."""

  image: np.ndarray  # uint8 [n, 28, 28, 1]
  audio: np.ndarray  # uint8 [n, 112, 112, 1], frames x bins
  label: np.ndarray  # int32 [n]
  speaker: np.ndarray  # int32 [n], position in SPEAKERS
  clip: np.ndarray  # int32 [n], the recording's number


def make_clips(found: list[tuple[int, int, int, np.ndarray]]) -> Clips:
  """Clips from (digit, speaker, number, samples), cut to 8,000 samples and scaled to unit RMS."""
  out = np.zeros((len(found), RATE), np.float32)
  for row, (*_, samples) in enumerate(found):
    samples = samples[:RATE].astype(np.float64)
    out[row, : len(samples)] = unit_rms(samples)
  digit, speaker, number = (np.array([c[i] for c in found]) for i in range(3))
  return Clips(out, np.array([min(len(c[3]), RATE) for c in found]), digit, speaker, number)


def unit_rms(x: np.ndarray) -> np.ndarray:
  """x / sqrt(mean(x^2)) along the last axis; silence stays silence."""
  rms = np.sqrt(np.vecdot(x, x) / x.shape[-1])[..., None]
  return x / np.where(rms > 0, rms, 1.0)


def fit_basis(images: np.ndarray) -> Basis:
  """The fewest leading components [784, k] that hold at least 25 % of the variance of `images`.

  On the first 55,000 training images of MNIST k = 4.
  """
  pixels = images.reshape(len(images), -1)
  mean = pixels.sum(0, dtype=np.int64) / len(pixels)
  values, vectors = (_eigen if len(pixels) > pixels.shape[1] else _singular)(pixels, mean)
  cumulative = np.cumsum(values) / values.sum()
  k = int(np.argmax(cumulative >= VARIANCE)) + 1
  return Basis(mean / 255, vectors[:, :k], cumulative)


def _eigen(pixels: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Variances, descending, and components from the covariance.

  256 products of two bytes sum to less than 2^24, so float32 holds every partial sum exactly and
  the order of the additions, which differs from machine to machine, changes nothing.
  """
  gram = np.zeros((pixels.shape[1],) * 2)
  for start in range(0, len(pixels), 256):
    block = pixels[start : start + 256].astype(np.float32)
    gram += block.T @ block
  values, vectors = np.linalg.eigh(gram / len(pixels) - np.outer(mean, mean))
  return values[::-1], vectors[:, ::-1]


def _singular(pixels: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The same for fewer rows than pixels: milliseconds for a fake set."""
  _, scales, rows = np.linalg.svd(pixels - mean, full_matrices=False)
  return np.square(scales) / len(pixels), rows.T


def project(images: np.ndarray, basis: Basis) -> np.ndarray:
  """round(255 clip(mean + (x - mean) V V^T, 0, 1)): uint8 [n, 28, 28] -> uint8 [n, 28, 28, 1]."""
  centred = images.reshape(len(images), -1) / 255 - basis.mean
  low_rank = basis.mean + (centred @ basis.components) @ basis.components.T
  return np.rint(255 * np.clip(low_rank, 0, 1)).astype(np.uint8).reshape(-1, 28, 28, 1)


def spectrogram(x: np.ndarray) -> np.ndarray:
  """20 log10 |STFT|, maximum 0 dB, -60..0 dB to 0..255: [n, 8000] -> uint8 [n, 112, 112].

  Hann window of 222 samples, hop 70; frames x bins, each sound against its own maximum.
  """
  frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW, axis=-1)[:, ::HOP]
  power = np.square(np.abs(np.fft.rfft(frames * _HANN)))
  top = power.max((1, 2), keepdims=True)
  ratio = power / np.where(top > 0, top, 1.0)
  decibel = 10 * np.log10(np.maximum(ratio, 10 ** (-FLOOR_DB / 10)))
  return np.rint(255 * (decibel / FLOOR_DB + 1)).astype(np.uint8)


def coloured_noise(rng: np.random.Generator) -> np.ndarray:
  """Unit-RMS noise [8000], spectrum f^(-b/2), b ~ U(0, 2), under a 9-knot envelope of U(.1, 1)."""
  exponent = rng.uniform(0, 2)
  knots = rng.uniform(0.1, 1, 9)
  spectrum = rng.standard_normal(2 * _BINS).view(np.complex128)
  spectrum[0] = 0  # f^(-b/2) has no value at 0; a constant offset is not sound
  spectrum[1:] *= np.exp(-exponent / 2 * _LOG_F)
  return unit_rms(np.fft.irfft(spectrum, RATE) * np.interp(_TIME, np.arange(9), knots))


def _place(out: np.ndarray, clips: Clips, clip: int, rng: np.random.Generator) -> None:
  length = clips.length[clip]
  offset = rng.integers(RATE - length + 1)
  out[offset : offset + length] += clips.wave[clip, :length]


def mix(label: int, clips: Clips, rng: np.random.Generator) -> tuple[np.ndarray, int]:
  """One second of a spoken `label` in noise [8000], and which clip speaks.

  x = clip + 10^(-snr/20) unit(m coloured + (1 - m) babble), snr ~ U(-3, 6) dB, m ~ U(0, 1); babble
  is the sum of 3 clips of the split. The signal has unit RMS over the clip, so the ratio holds
  while the digit is spoken.
  """
  clip = int(rng.choice(np.flatnonzero(clips.digit == label)))
  sound, babble = np.zeros(RATE), np.zeros(RATE)
  _place(sound, clips, clip, rng)
  for other in rng.integers(len(clips.digit), size=3):
    _place(babble, clips, other, rng)
  snr, share = rng.uniform(-3, 6), rng.uniform()
  noise = share * coloured_noise(rng) + (1 - share) * unit_rms(babble)
  return sound + 10 ** (-snr / 20) * unit_rms(noise), clip


def build(source: Source, basis: Basis, start: int, stop: int) -> Iterator[Rows]:
  """Finished rows start..stop-1 of `source`, a block at a time, in order."""
  for low in range(start - start % BLOCK, stop, BLOCK):
    block = _build_block(source, basis, low, min(low + BLOCK, len(source.label)))
    keep = slice(max(start - low, 0), stop - low)
    yield Rows(*(field[keep] for field in block))


def _build_block(source: Source, basis: Basis, low: int, high: int) -> Rows:
  sounds, spoken = np.empty((high - low, RATE)), np.empty(high - low, np.int64)
  for i, row in enumerate(range(low, high)):
    rng = np.random.default_rng((RECIPE, source.part, row))
    sounds[i], spoken[i] = mix(int(source.label[row]), source.clips, rng)
  return Rows(
    image=project(source.images[low:high], basis),
    audio=spectrogram(sounds)[..., None],
    label=source.label[low:high].astype(np.int32),
    speaker=source.clips.speaker[spoken].astype(np.int32),
    clip=source.clips.number[spoken].astype(np.int32),
  )


def pool(audio: np.ndarray, size: int) -> np.ndarray:
  """Mean pooling to `size` x `size`, rounded to uint8: [n, 112, 112, 1] -> [n, size, size, 1]."""
  step = AUDIO // size
  blocks = audio.reshape(-1, size, step, size, step, 1)
  return np.rint(blocks.mean((2, 4))).astype(np.uint8)
