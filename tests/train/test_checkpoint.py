"""Interrupted runs continue bitwise; damaged and foreign checkpoints are told apart."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import State

from ._problems import history, late_fusion, same, tiny

METHOD = train.supervised(late_fusion(2, "batch", 0.2), tx=train.adam(0.03))
OPTIONS = {
  "epochs": 3,
  "batch_size": 8,
  "seeds": 2,
  "diagnose": False,
  "loop": "scan",
  "checkpoint_seconds": 0.0,
}


@pytest.fixture(scope="module")
def splits():
  return tiny()


@pytest.fixture(scope="module")
def whole(splits):
  return train.fit(METHOD, splits, **OPTIONS)


@pytest.fixture(scope="module")
def interrupted(splits, tmp_path_factory):
  """Stopped in the last epoch of the second seed: two epochs of it are on disk."""
  folder = tmp_path_factory.mktemp("run")

  def stop(entry):
    if entry["seed"] == 1 and entry["epoch"] == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train.fit(METHOD, splits, checkpoint_dir=str(folder), on_epoch=stop, **OPTIONS)
  return folder


@pytest.fixture
def folder(interrupted, tmp_path):
  return shutil.copytree(interrupted, tmp_path / "run")


def steps(folder):
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def equal(found, whole):
  same(found.states, whole.states)
  assert [history(log) for log in found.logs] == [history(log) for log in whole.logs]


def test_a_resumed_run_is_bitwise_the_uninterrupted_one(splits, whole, folder):
  assert steps(folder / "1") == [1, 2]
  seen = []
  found = train.fit(METHOD, splits, checkpoint_dir=str(folder), on_epoch=seen.append, **OPTIONS)
  equal(found, whole)
  assert [(e["seed"], e["epoch"]) for e in seen] == [(1, 2)]  # nothing else was run again
  again = train.fit(METHOD, splits, checkpoint_dir=str(folder), on_epoch=seen.append, **OPTIONS)
  equal(again, whole)
  assert len(seen) == 1
  train.remove_checkpoints(folder)
  assert not folder.exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(splits, whole, folder):
  for path in (folder / "1" / "2").rglob("*"):
    if path.is_file():
      path.write_bytes(b"\0" * 7)
  with pytest.warns(UserWarning, match="checkpoint 2 in .* cannot be read") as seen:
    found = train.fit(METHOD, splits, checkpoint_dir=str(folder), **OPTIONS)
  assert len(seen) == 1
  equal(found, whole)  # and step 2 was saved again


@pytest.mark.parametrize(
  "change, sentence",
  [
    ({"epochs": 4}, "another run: epochs differ"),
    ({"seeds": (0, 5)}, "another run: runs differ"),
    ({"learning_rate": 0.5}, "another run: runs differ"),
  ],
)
def test_a_checkpoint_of_another_run_is_refused(splits, folder, change, sentence):
  with pytest.raises(ValueError, match=sentence):
    train.fit(METHOD, splits, checkpoint_dir=str(folder), **{**OPTIONS, **change})


def test_a_checkpoint_of_another_model_is_refused(splits, folder):
  other = train.supervised(late_fusion(2, "none", 0.2), tx=train.adam(0.03))
  with pytest.raises(ValueError, match="another run: model or optimiser differ"):
    train.fit(other, splits, checkpoint_dir=str(folder), **OPTIONS)
  assert steps(folder / "0")  # refused, not removed


def test_a_folder_of_the_users_is_neither_written_nor_deleted(splits, tmp_path):
  """Class folders 0 and 1 look like runs, and their folders like checkpoints."""
  for name in ("0/1/cat.png", "0/note.txt", "0/2/dog.png"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
  there = lambda: sorted(p for p in tmp_path.rglob("*"))
  before = there()
  with pytest.raises(ValueError, match="0' holds '1' and is no folder of checkpoints"):
    train.fit(METHOD, splits, checkpoint_dir=str(tmp_path), **OPTIONS)
  with pytest.raises(ValueError, match=r"0' is no checkpoint: nothing in .* is deleted"):
    train.remove_checkpoints(tmp_path)
  assert there() == before


def test_checkpoints_are_deleted_and_what_lies_among_them_is_not(folder):
  (folder / "1" / "thesis.txt").write_text("mine")
  with pytest.raises(ValueError, match=r"thesis\.txt' is no checkpoint"):
    train.remove_checkpoints(folder)
  assert steps(folder / "0") and steps(folder / "1")
  (folder / "1" / "thesis.txt").unlink()
  (folder / "1" / "3.orbax-checkpoint-tmp").mkdir()  # half written
  train.remove_checkpoints(folder)
  assert not folder.exists()
  train.remove_checkpoints(folder)


def test_a_checkpoint_from_before_methods_were_told_apart_is_refused(splits, folder):
  for path in (folder / "0").glob("*/meta/metadata"):
    said = json.loads(path.read_text())
    assert said["identity"].pop("method or its constants")
    path.write_text(json.dumps(said))
  with pytest.raises(ValueError, match="0 belongs to another run: method or its constants differ"):
    train.fit(METHOD, splits, checkpoint_dir=str(folder), **OPTIONS)


def saved(tmp_path):
  state = State(
    {"a": {"kernel": jnp.arange(6.0).reshape(2, 3)}},
    {"a": {"mean": jnp.ones(3)}},
    {"train": jnp.ones(2)},
    {"teacher": {"temperature": jnp.float32(0.5)}, "none": ()},
  )
  path = tmp_path / "model.safetensors"
  train.save_weights(path, state)
  return path, state


def test_weights_round_trip_bitwise_without_the_optimiser(tmp_path):
  path, state = saved(tmp_path)
  empty = jax.tree.map(jnp.zeros_like, state)
  found = train.load_weights(path, empty)
  same(found, state._replace(opt={}))
  assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_real_weights_predict_the_same(splits, whole, tmp_path):
  path = tmp_path / "model.safetensors"
  train.save_weights(path, whole.state(0))
  template = train.initial(
    METHOD,
    jax.random.key(9),
    jax.tree.map(lambda x: jnp.asarray(x)[:8], train.to_batch(splits.train)),
  )
  loaded = train.load_weights(path, template)
  outputs = [
    METHOD.predict(s, splits.validation.inputs, splits.validation.mask).logits
    for s in (loaded, whole.state(0))
  ]
  np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
  "change, sentence",
  [
    ({"params": {"b": {"kernel": jnp.ones((2, 3))}}}, "'params/a/kernel' is only in the file"),
    (
      {"stats": {"a": {"mean": jnp.ones(3), "var": jnp.ones(3)}}},
      "'stats/a/var' is only in the model",
    ),
    (
      {"params": {"a": {"kernel": jnp.ones((3, 2))}}},
      r"'params/a/kernel' has shape \(2, 3\), expected \(3, 2\)",
    ),
  ],
)
def test_weights_of_another_model_are_refused(tmp_path, change, sentence):
  path, state = saved(tmp_path)
  with pytest.raises(ValueError, match=sentence):
    train.load_weights(path, state._replace(**change))


def test_weights_say_which_run_they_are_of(tmp_path):
  path, state = saved(tmp_path)
  train.save_weights(path, state, {"seed": "0", "row": '"joint"'})
  train.load_weights(path, state)
  train.load_weights(path, state, {"seed": "0"})
  with pytest.raises(ValueError, match="of another run: its seed is 0, expected 1"):
    train.load_weights(path, state, {"seed": "1"})
  train.save_weights(path, state)
  with pytest.raises(ValueError, match="of another run: its seed is None, expected 1"):
    train.load_weights(path, state, {"seed": "1"})


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
  path = tmp_path / "model.safetensors"
  path.write_bytes(b"no weights")
  with pytest.raises(ValueError, match="is not a safetensors file"):
    train.load_weights(path, State({}, {}, {}, {}))
