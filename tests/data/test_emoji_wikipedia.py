"""The sets emoji and wikipedia: tiny files of their schema, then the facts of the real ones."""

import os

import numpy as np
import pytest

from mmfuse import data
from mmfuse.data import _emoji, _stored, _wikipedia

SIZES = dict.fromkeys(("emoji", "emoji_text"), (1_223, 306, 377)) | {"wikipedia": (1_738, 435, 693)}


@pytest.fixture
def stand_in(monkeypatch):
  """Real files replaced by what `arrays` holds when they are read."""
  arrays: dict[str, np.ndarray] = {}
  monkeypatch.setattr(_stored, "read", lambda archive, data_dir=None: arrays)
  return arrays


def test_emoji_by_hand(stand_in):
  pictures = np.zeros((8, 32, 32, 3), np.uint8)
  pictures[:, 0, 0, 0] = np.arange(8) * 51 % 256
  train = np.asarray([1, 1, 1, 0, 1, 1, 1, 0], bool)
  stand_in |= {
    "google": pictures,
    "twitter": 255 - pictures,
    "train": train,
    "label": np.asarray([1, 1, 1, 1, 0, 0, 0, 0]),
    "label_name": np.asarray(["Flags", "Symbols"]),
    "name": np.asarray(["never read"] * 8),
  }
  table = data.load("emoji")
  assert table.modalities == ("google", "twitter") and table.class_names == ("Flags", "Symbols")
  assert table.label.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
  np.testing.assert_allclose(table.inputs["google"][:6, 0, 0, 0], np.arange(6) / 5)
  np.testing.assert_allclose(table.inputs["twitter"][:6, 0, 0, 0], 1 - np.arange(6) / 5, atol=1e-7)
  assert (table.split == "test").tolist() == (~train).tolist()
  assert sorted(table.label[table.split == "validation"]) == [0, 1]  # one of three of each group


def test_words_are_numbered_by_training_items_alone():
  texts = [
    _emoji.words(*t) for t in (("Red Heart", "red_heart"), ("red car", "car"), ("blue car", "x"))
  ]
  assert texts == [["red", "heart"], ["red", "car"], ["blue", "car", "x"]]
  found = _emoji.tokens(texts, np.asarray([True, True, True]))
  assert found.tolist() == [[2, 0, 0], [2, 1, 0], [0, 1, 0]]  # car, red; once is 0
  found = _emoji.tokens(texts, np.asarray([True, True, False]))
  assert found.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_wikipedia_by_hand(stand_in):
  rng = np.random.default_rng(0)
  image, text = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
  stand_in |= {
    "image": image,
    "text": text,
    "label": np.asarray([0, 1, 0, 1, 0, 1]),
    "train_index": np.asarray([5, 0, 3, 2]),
    "test_index": np.asarray([4, 1]),
  }
  table = data.load("wikipedia")
  np.testing.assert_allclose(table.inputs["image"], image, rtol=1e-6)
  np.testing.assert_allclose(table.inputs["text"], text, rtol=1e-6)
  assert np.flatnonzero(table.split == "test").tolist() == [1, 4]


@pytest.mark.parametrize(
  ("module", "name"), [(_emoji, "emoji"), (_emoji, "emoji_text"), (_wikipedia, "wikipedia")]
)
def test_the_fake_needs_no_file_and_has_the_schema(module, name, monkeypatch):
  monkeypatch.delenv(_stored.DATA_DIR, raising=False)
  table = data.load(name, fake=True)
  assert table.name == f"{name}_fake"
  size = data.DATASETS[name].size
  assert f"{table.num_outputs} classes" in size
  shapes = {m: list(x.shape[1:]) for m, x in table.inputs.items() if x.dtype.kind == "f"}
  assert shapes and all(f"{m} {shape}" in size for m, shape in shapes.items())
  splits = table.splits()
  for part in (splits.train, splits.validation, splits.test):
    assert set(part.label) == set(range(table.num_outputs))
  file = module.ARCHIVE.file
  with pytest.raises(data.DataError, match=f"{name} is read from {file} .*licence"):
    data.load(name)
  with pytest.raises(data.DataError, match=f"{name} takes no train_size"):
    data.load(name, train_size=50)


@pytest.mark.needs_data
@pytest.mark.parametrize("name", SIZES)
def test_real_files(name):
  if not os.environ.get(_stored.DATA_DIR):
    pytest.skip(f"{_stored.DATA_DIR} is not set: no {name}.npz to read")
  table = data.load(name)
  size = data.DATASETS[name].size
  assert f"{len(table.label):,} rows" in size and f"{table.num_outputs} classes" in size
  assert "/".join(f"{n:,}" for n in SIZES[name]) in size
  splits = table.splits()
  assert tuple(len(s.index) for s in (splits.train, splits.validation, splits.test)) == SIZES[name]
  share = [np.bincount(s.label) / len(s.label) for s in (splits.train, splits.validation)]
  assert np.abs(share[0] - share[1]).max() < 0.005  # stratified
  assert all(m.all() for m in table.mask.values()) and table.group is None
  assert table.fingerprint == data.load(name).fingerprint and table.notes == splits.notes == ()
