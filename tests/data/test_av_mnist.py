"""AV-MNIST at the public door: table, cache, TFDS builder, and the facts of the real files."""

import logging
import os
import sys
import time

import numpy as np
import pytest

from mmfuse.data import _av_mnist as av_mnist
from mmfuse.data import _av_mnist_recipe as recipe
from mmfuse.data import _av_mnist_sources as sources
from mmfuse.data._error import DataError

FAKE = {"train": 30, "validation": 10, "test": 20}


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
  """Real files replaced by 50 + 10 + 25 fake rows, with a cache folder of their own."""
  calls = []

  def read(data_dir=None):
    calls.append(data_dir)
    return sources.fake_sources(50, 10, 25)

  monkeypatch.setattr(sources, "real_sources", read)
  monkeypatch.setenv(av_mnist.CACHE_DIR, str(tmp_path / "cache"))
  return calls


def _equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_sizes():
  assert av_mnist.sizes() == av_mnist.sizes(55_000) == (55_000, 5_000, 10_000)
  assert av_mnist.sizes(10_000) == (10_000, 2_000, 5_000)
  assert av_mnist.sizes(2_000) == (2_000, 400, 1_000)


@pytest.mark.parametrize("size", [49, 55_001, 0, -3])
def test_wrong_train_size(size):
  with pytest.raises(DataError, match=rf"50\.\.55000 for AV-MNIST, got {size}"):
    av_mnist.table(fake=True, train_size=size)


def test_wrong_audio_size():
  with pytest.raises(DataError, match=r"audio_size must be one of \(112, 28\).*got 56"):
    av_mnist.table(fake=True, audio_size=56)


def test_fake_table():
  table = av_mnist.table(fake=True)
  assert table.modalities == ("audio", "image") and table.task == "classification"
  assert table.class_names == tuple("0123456789") and table.group is None
  assert {name: int((table.split == name).sum()) for name in FAKE} == FAKE
  assert table.inputs["image"].shape == (60, 28, 28, 1)
  assert table.inputs["audio"].shape == (60, 112, 112, 1)
  for x in table.inputs.values():
    assert x.dtype == np.float32 and x.min() == 0 and 0.5 < x.max() <= 1
  assert table.fingerprint == av_mnist.table(fake=True).fingerprint


def _heard(raw):
  """{split: {(speaker, clip, digit)}}."""
  rows = list(zip(*(raw[name].tolist() for name in ("split", "speaker", "clip", "label"))))
  return {name: {row[1:] for row in rows if row[0] == name} for name in FAKE}


def test_no_recording_is_heard_in_two_splits():
  heard = _heard(av_mnist.arrays(fake=True))
  assert all(heard.values())
  assert len(set().union(*heard.values())) == sum(map(len, heard.values()))


def test_pooled_audio_and_a_size_of_ones_own():
  raw = av_mnist.arrays(fake=True)
  small = av_mnist.arrays(fake=True, audio_size=28)
  np.testing.assert_array_equal(small["audio"], recipe.pool(raw["audio"], 28))
  np.testing.assert_array_equal(small["image"], raw["image"])
  split = av_mnist.arrays(fake=True, train_size=50, audio_size=28)["split"]
  assert [int((split == name).sum()) for name in FAKE] == [50, 10, 25]


def test_cache_is_read_instead_of_the_files(stand_in):
  first = av_mnist.arrays(train_size=50, audio_size=28)
  _equal(first, av_mnist.arrays(train_size=50, audio_size=28))
  assert len(stand_in) == 1
  av_mnist.arrays(train_size=50)  # another size of the audio is another file
  assert len(stand_in) == 2
  folder = av_mnist._cache_path(av_mnist.sizes(50), 28).parent
  assert sorted(os.listdir(folder)) == [
    f"recipe{recipe.RECIPE}-rows50-10-25-audio{size}.npz" for size in (112, 28)
  ]


def test_wrong_folder_is_said_in_spite_of_the_cache(stand_in, tmp_path):
  av_mnist.arrays(train_size=50, audio_size=28)
  with pytest.raises(DataError, match="is not a folder"):
    av_mnist.arrays(tmp_path / "nowhere", train_size=50, audio_size=28)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 cut off"])
def test_damaged_cache_is_named(stand_in, content):
  path = av_mnist._cache_path(av_mnist.sizes(50), 28)
  path.parent.mkdir(parents=True)
  path.write_bytes(content)
  with pytest.raises(DataError, match=r"audio28\.npz is damaged; delete it"):
    av_mnist.arrays(train_size=50, audio_size=28)


def test_without_a_writable_cache_it_still_builds(stand_in, tmp_path, monkeypatch, caplog):
  (tmp_path / "file").write_text("in the way")
  monkeypatch.setenv(av_mnist.CACHE_DIR, str(tmp_path / "file"))
  with caplog.at_level(logging.WARNING, "mmfuse"):
    assert len(av_mnist.arrays(train_size=50, audio_size=28)["label"]) == 85
  assert "not cached" in caplog.text


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
  pytest.importorskip("tensorflow_datasets")
  folder = tmp_path_factory.mktemp("tfds")
  made = av_mnist.builder_class()(config="fake", data_dir=folder, file_format="array_record")
  made.download_and_prepare()
  return made


def test_builder_schema(builder):
  assert builder.name == "av_mnist" and str(builder.version) == f"{recipe.RECIPE}.0.0"
  assert str(builder.version) in builder.RELEASE_NOTES
  assert set(builder.builder_configs) == {"full", "10k", "2k", "fake"}
  assert "MNIST" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
  features = builder.info.features
  assert features["image"].shape == (28, 28, 1) and features["audio"].shape == (112, 112, 1)
  assert features["image"].np_dtype == features["audio"].np_dtype == np.uint8
  assert features["label"].num_classes == 10
  assert features["speaker"].np_dtype == features["clip"].np_dtype == np.int32
  assert {name: split.num_examples for name, split in builder.info.splits.items()} == FAKE


def test_builder_rows_are_the_rows_of_the_table(builder):
  raw = av_mnist.arrays(fake=True)
  for name in FAKE:
    source = builder.as_data_source(split=name)
    rows = [source[i] for i in range(len(source))]
    for field in recipe.Rows._fields:
      np.testing.assert_array_equal([r[field] for r in rows], raw[field][raw["split"] == name])


def test_builder_range_and_label_coverage(builder):
  for name in FAKE:
    rows = list(builder.as_data_source(split=name))
    assert {int(r["label"]) for r in rows} == set(range(10))
    for modality in ("image", "audio"):
      x = np.stack([r[modality] for r in rows])
      assert x.dtype == np.uint8 and x.min() == 0 and x.max() > 150
      assert len(np.unique(x.reshape(len(x), -1), axis=0)) == len(x)
    clips = {int(r["clip"]) for r in rows}
    assert clips <= {"train": {5, 6, 7}, "validation": {8, 9}, "test": {0, 1}}[name]


def test_builder_is_deterministic_and_needs_no_tensorflow(builder, tmp_path):
  again = av_mnist.builder_class()(config="fake", data_dir=tmp_path, file_format="array_record")
  again.download_and_prepare()
  for a, b in zip(*(x.as_data_source(split="test") for x in (builder, again)), strict=True):
    _equal(a, b)
  assert "tensorflow" not in sys.modules


def test_builder_without_tfds_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(DataError, match=r"pip install 'mmfuse\[tfds\]'"):
    av_mnist._tfds()


@pytest.fixture(scope="module")
def real():
  if not os.environ.get(sources.DATA_DIR):
    pytest.skip(f"{sources.DATA_DIR} is not set: no MNIST and spoken-digit files to read")
  return sources.real_sources()


@pytest.mark.needs_data
def test_real_mnist_and_its_leading_components(real):
  assert [len(s.images) for s in (real.train, real.validation, real.test)] == [
    55_000,
    5_000,
    10_000,
  ]
  images = np.concatenate([real.train.images, real.validation.images])
  assert images.shape == (60_000, 28, 28)
  assert round(images.mean() / 255, 5) == 0.13066 and round(images.std() / 255, 5) == 0.30811
  assert real.basis.components.shape == (784, 4)
  np.testing.assert_allclose(real.basis.mean, real.train.images.reshape(55_000, 784).mean(0) / 255)
  np.testing.assert_allclose(real.basis.cumulative[:4], [0.097, 0.168, 0.230, 0.284], atol=1e-3)


@pytest.mark.needs_data
def test_real_clips_follow_the_official_split(real):
  known = set()
  for part, each in ((real.train, 40), (real.validation, 5), (real.test, 5)):
    clips = part.clips
    np.testing.assert_array_equal(np.bincount(clips.digit * 6 + clips.speaker), np.full(60, each))
    assert (clips.number < 5).all() if part is real.test else (clips.number >= 5).all()
    known |= set(zip(clips.digit.tolist(), clips.speaker.tolist(), clips.number.tolist()))
  assert len(known) == 3_000  # no recording in two parts


@pytest.mark.needs_data
def test_real_rows(real):
  start = time.process_time()
  size = av_mnist.Sizes(120, 40, 40)
  raw = av_mnist._build(real, size, 112)
  # 70,000 rows in 8 minutes are 6.9 ms a row; measured 1.4
  assert (time.process_time() - start) / sum(size) < 0.02
  expected = (real.train.label[:120], real.validation.label[:40], real.test.label[:40])
  np.testing.assert_array_equal(raw["label"], np.concatenate(expected))
  heard = _heard(raw)
  for name, part in (("train", real.train), ("validation", real.validation), ("test", real.test)):
    c = part.clips
    assert heard[name] <= set(zip(c.speaker.tolist(), c.number.tolist(), c.digit.tolist()))
  assert len(set().union(*heard.values())) == sum(map(len, heard.values())) > 150
  # The draws of version 2, pinned: whoever changes them raises RECIPE.
  assert recipe.RECIPE == 2
  assert raw["speaker"][:8].tolist() == [5, 2, 5, 0, 2, 5, 0, 2]
  assert raw["clip"][:8].tolist() == [7, 26, 8, 39, 41, 29, 28, 36]
