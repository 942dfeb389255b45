"""The numbers of the AV-MNIST recipe: by hand, then as properties."""

import numpy as np
import pytest

from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _av_mnist_sources as sources


def _clips(length=recipe.RATE):
  """One noisy clip per digit, so that the label decides which one speaks."""
  rng = np.random.default_rng(0)
  return recipe.make_clips([(digit, 0, 5, rng.normal(size=length)) for digit in range(10)])


def _tone(frequency_bin, amplitude=1.0):
  return amplitude * np.sin(2 * np.pi * frequency_bin / recipe.WINDOW * np.arange(recipe.RATE))


def test_unit_rms_by_hand_and_silence():
  np.testing.assert_allclose(recipe.unit_rms(np.array([3.0, 4.0])), [3 / 12.5**0.5, 4 / 12.5**0.5])
  np.testing.assert_array_equal(recipe.unit_rms(np.zeros((2, 3))), 0)


def test_spectrogram_of_two_tones():
  # A tone on a bin leaks through a periodic Hann window to its neighbours only, at half amplitude
  # (-6.02 dB); a tenth of the amplitude is -20 dB; everything else lies below the floor.
  out = recipe.spectrogram((_tone(20) + _tone(70, 0.1))[None])
  assert out.shape == (1, 112, 112) and out.dtype == np.uint8
  frame = np.zeros(112, int)
  frame[[19, 20, 21]] = 229, 255, 229
  frame[[69, 70, 71]] = 144, 170, 144
  np.testing.assert_array_equal(out[0], np.tile(frame, (112, 1)))


def test_spectrogram_of_silence_is_the_floor():
  np.testing.assert_array_equal(recipe.spectrogram(np.zeros((2, recipe.RATE))), 0)


def test_spectrogram_time_is_the_first_axis():
  late = _tone(40)
  late[: recipe.RATE // 2] = 0
  out = recipe.spectrogram(late[None])[0]
  assert out[:50].max() == 0 and out[60:, 40].min() == 255


def test_pool_by_hand():
  audio = np.zeros((1, 112, 112, 1), np.uint8)
  audio[0, :4, 4:8, 0] = np.arange(16).reshape(4, 4)  # mean 7.5, rounded to even
  audio[0, 108:, 108:, 0] = 255
  out = recipe.pool(audio, 28)
  assert out.shape == (1, 28, 28, 1) and out.dtype == np.uint8
  assert out[0, 0, 1, 0] == 8 and out[0, 27, 27, 0] == 255 and out.sum() == 263


def test_basis_by_hand():
  # Pixels 0 and 1 move together (variance 4 + 4 along (1, 1)), pixel 2 alone (variance 1).
  images = np.array([[[0, 0, 1]], [[4, 4, 1]], [[0, 0, 3]], [[4, 4, 3]]], np.uint8)
  basis = recipe.fit_basis(images)
  np.testing.assert_allclose(basis.mean, np.array([2, 2, 2]) / 255)
  np.testing.assert_allclose(basis.cumulative, [8 / 9, 1, 1])
  np.testing.assert_allclose(np.abs(basis.components), [[0.5**0.5], [0.5**0.5], [0]], atol=1e-12)


def test_both_routes_to_the_basis_agree():
  pixels = np.random.default_rng(1).integers(0, 256, (7, 5)).astype(np.uint8)
  mean = pixels.mean(0)
  values, vectors = recipe._eigen(pixels, mean)
  other_values, other_vectors = recipe._singular(pixels, mean)
  np.testing.assert_allclose(values, other_values, rtol=1e-9)
  np.testing.assert_allclose(np.abs(vectors), np.abs(other_vectors), atol=1e-9)


def test_projection_keeps_what_lies_in_the_basis_and_clips():
  direction = np.zeros((784, 1))
  direction[:2] = 0.5**0.5
  basis = recipe.Basis(np.full(784, 0.2), direction, np.ones(1))
  image = np.full((1, 784), 51, np.uint8)  # .2, the mean
  image[0, :3] = 255, 255, 90  # pixels 0 and 1 as the basis has it, 2 outside
  out = recipe.project(image.reshape(1, 28, 28), basis).reshape(-1)
  np.testing.assert_array_equal(out[:4], [255, 255, 51, 51])
  opposite = recipe.Basis(basis.mean - 0.3, direction, np.ones(1))
  assert recipe.project(np.zeros((1, 28, 28), np.uint8), opposite)[0, 27, 27, 0] == 0


def test_clips_are_cut_and_scaled():
  clips = recipe.make_clips([(3, 1, 7, np.full(9_000, 50)), (4, 2, 8, np.array([3, -4]))])
  np.testing.assert_array_equal(clips.length, [8_000, 2])
  np.testing.assert_array_equal(clips.wave[0], 1)
  np.testing.assert_allclose(clips.wave[1, :3], [3 / 12.5**0.5, -4 / 12.5**0.5, 0], rtol=1e-6)
  assert (clips.digit[0], clips.speaker[1], clips.number[1]) == (3, 2, 8)


def test_coloured_noise_has_unit_rms_and_leans_to_low_frequencies():
  noise = np.stack([recipe.coloured_noise(np.random.default_rng(i)) for i in range(20)])
  np.testing.assert_allclose(np.sqrt(np.square(noise).mean(1)), 1)
  power = np.square(np.abs(np.fft.rfft(noise)))
  low, high = power[:, 10:500].mean(1), power[:, 3_000:3_490].mean(1)
  assert (low > high).mean() > 0.8 and low.mean() > 5 * high.mean()


def test_noise_lies_between_minus_3_and_6_decibel():
  clips = _clips()  # full length: the only offset is 0, so the noise is the difference
  snr = []
  for seed in range(40):
    sound, clip = recipe.mix(seed % 10, clips, np.random.default_rng(seed))
    assert clip == seed % 10
    snr.append(-10 * np.log10(np.square(sound - clips.wave[clip]).mean()))
  assert -3 <= min(snr) < -1 and 4 < max(snr) <= 6


def test_clips_are_placed_anywhere():
  clips, out = _clips(length=100), np.zeros((60, recipe.RATE))
  for seed, row in enumerate(out):
    recipe._place(row, clips, 2, np.random.default_rng(seed))
  first = (out != 0).argmax(1)
  assert first.min() < 1_000 and first.max() > 6_900
  np.testing.assert_allclose(np.square(out).sum(1), 100, rtol=1e-6)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (13, 27), (39, 40), (5, 5)])
def test_a_part_is_the_same_part_of_the_whole(start, stop):
  raw = sources.fake_sources(40, 10, 10)

  def rows(low, high):
    blocks = list(recipe.build(raw.train, raw.basis, low, high))
    return [np.concatenate(field) for field in zip(*blocks)] if blocks else [np.zeros(0)]

  for whole, part in zip(rows(0, 40), rows(start, stop)):
    np.testing.assert_array_equal(whole[start:stop].reshape(part.shape), part)


def test_parts_draw_different_sounds():
  raw = sources.fake_sources(30, 10, 10)
  same = raw.train._replace(part=raw.test.part)
  a, b = (next(recipe.build(s, raw.basis, 0, 3)) for s in (raw.train, same))
  np.testing.assert_array_equal(a.image, b.image)
  assert (a.audio != b.audio).mean() > 0.5
