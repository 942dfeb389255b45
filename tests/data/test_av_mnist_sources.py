"""Readers of the raw files: any packing of the right content, no other content."""

import gzip
import hashlib
import io
import os
import tarfile
import wave

import numpy as np
import pytest

from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _av_mnist_sources as sources
from mmfuse.data._error import DataError

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
IDX = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in PIXELS.shape) + PIXELS.tobytes()
SHA256 = hashlib.sha256(IDX).hexdigest()


def _wav(samples):
  stream = io.BytesIO()
  with wave.open(stream, "wb") as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(recipe.RATE)
    file.writeframes(np.asarray(samples, "<i2").tobytes())
  return stream.getvalue()


THEO = recipe.SPEAKERS.index("theo")
HELD_OUT = min(sources.held_out(7, THEO))
WAVS = {
  "7_theo_4.wav": _wav([10, -10]),
  "7_theo_5.wav": _wav([3, 4]),
  "0_jackson_49.wav": _wav(np.full(9_000, 100)),
  f"7_theo_{HELD_OUT}.wav": _wav([5, 5]),
}


def _archive(path, wavs, folder="digits-1.0/recordings/"):
  with tarfile.open(path, "w:gz") as archive:
    for name, content in {**wavs, "README.md": b"read me"}.items():
      member = tarfile.TarInfo(folder + name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  return path


@pytest.mark.parametrize("level", [1, 9])
def test_idx_by_content_whatever_the_packing(tmp_path, level):
  path = tmp_path / "x.gz"
  path.write_bytes(gzip.compress(IDX, level))
  np.testing.assert_array_equal(sources.read_idx(path, SHA256, (3, 2, 2)), PIXELS)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (gzip.compress(IDX[:-1] + b"\xff"), "does not hold the original MNIST bytes"),
    (gzip.compress(IDX + b"\0"), "does not hold the original MNIST bytes"),
    (gzip.compress(IDX)[:-12], "not a complete gzip file"),
    (IDX, "not a complete gzip file"),
  ],
  # A gzip header holds the time, and ids must be the same in every worker.
  ids=["other pixel", "longer", "cut off", "not packed"],
)
def test_another_idx_is_refused(tmp_path, content, message):
  path = tmp_path / "x.gz"
  path.write_bytes(content)
  with pytest.raises(DataError, match=message):
    sources.read_idx(path, SHA256, (3, 2, 2))


def test_clips_are_read_in_memory_and_split_by_number(tmp_path):
  path = _archive(tmp_path / "x.tar.gz", WAVS)
  train, validation, test = sources.read_clips(path, sources.clips_digest(WAVS))
  assert HELD_OUT != 5 and 49 not in sources.held_out(0, 1)
  np.testing.assert_array_equal(train.digit, [0, 7])
  np.testing.assert_array_equal(train.number, [49, 5])
  np.testing.assert_array_equal(train.length, [8_000, 2])
  np.testing.assert_allclose(train.wave[1, :2], [3 / 12.5**0.5, 4 / 12.5**0.5], rtol=1e-6)
  assert (test.digit, test.speaker, test.number) == (7, THEO, 4)
  assert (validation.digit, validation.speaker, validation.number) == (7, THEO, HELD_OUT)
  assert os.listdir(tmp_path) == ["x.tar.gz"]


def test_five_of_the_45_training_recordings_of_a_digit_and_speaker_validate():
  drawn = {(d, s): sources.held_out(d, s) for d in range(10) for s in range(6)}
  assert all(len(numbers) == 5 and numbers <= set(range(5, 50)) for numbers in drawn.values())
  assert len(set(drawn.values())) == 60  # a draw for each, not the same numbers for all
  assert set().union(*drawn.values()) == set(range(5, 50))  # early and late recordings alike


def test_another_set_of_clips_is_refused_before_a_wav_is_decoded(tmp_path, monkeypatch):
  monkeypatch.setattr(sources, "decode_clips", lambda wavs: pytest.fail("decoded"))
  tampered = {**WAVS, "7_theo_5.wav": _wav([3, 5])}
  path = _archive(tmp_path / "x.tar.gz", tampered)
  with pytest.raises(DataError, match=r"recordings of version 1\.0\.10 \(4 found"):
    sources.read_clips(path, sources.clips_digest(WAVS))


@pytest.mark.parametrize("keep", [0, 40])
def test_a_broken_archive_is_refused(tmp_path, keep):
  path = _archive(tmp_path / "x.tar.gz", WAVS)
  path.write_bytes(path.read_bytes()[:keep] or b"no archive")
  with pytest.raises(DataError, match=r"not a complete tar\.gz archive"):
    sources.read_clips(path, sources.clips_digest(WAVS))


def test_missing_folder_and_file_are_named(tmp_path, monkeypatch):
  monkeypatch.delenv(sources.DATA_DIR, raising=False)
  with pytest.raises(DataError, match=r"set MMFUSE_DATA_DIR to the folder"):
    sources.real_sources()
  with pytest.raises(DataError, match="is not a folder"):
    sources.real_sources(tmp_path / "nowhere")
  monkeypatch.setenv(sources.DATA_DIR, str(tmp_path))
  with pytest.raises(DataError, match=r"has no mnist/train-images-idx3-ubyte\.gz"):
    sources.real_sources()


def test_fake_sources_are_balanced_and_tell_the_digits_apart():
  raw = sources.fake_sources(30, 10, 20)
  assert [len(s.label) for s in (raw.train, raw.validation, raw.test)] == [30, 10, 20]
  np.testing.assert_array_equal(np.bincount(raw.test.label), np.full(10, 2))
  flat = raw.train.images.reshape(30, -1).astype(float)
  means = np.stack([flat[raw.train.label == c].mean(0) for c in range(10)])
  test = raw.test.images.reshape(20, -1)
  nearest = np.square(test[:, None] - means).sum(-1).argmin(1)
  assert (nearest == raw.test.label).mean() > 0.9


def test_fake_parts_share_no_clip_and_the_basis_is_that_of_the_training_images():
  raw = sources.fake_sources(30, 10, 20)
  numbers = [set(s.clips.number) for s in (raw.train, raw.validation, raw.test)]
  assert len(set().union(*numbers)) == sum(map(len, numbers)) > 0
  expected = recipe.fit_basis(raw.train.images)
  np.testing.assert_array_equal(raw.basis.components, expected.components)
  np.testing.assert_array_equal(raw.basis.mean, expected.mean)
