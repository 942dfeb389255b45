import numpy as np
import pytest

from mmfuse.data import DataError, fake, load, table_from_arrays


@pytest.mark.parametrize("rows", [6, 24, 60])
def test_twin_of_watch_imu(rows):
  real = load("watch_imu")
  twin = fake(real, rows)
  assert twin.name == "watch_imu_fake" and len(twin.label) == rows
  for field in ("modalities", "task", "class_names", "num_outputs"):
    assert getattr(twin, field) == getattr(real, field)
  for m, x in twin.inputs.items():
    assert x.shape == (rows, *real.inputs[m].shape[1:]) and x.dtype == real.inputs[m].dtype
  splits = twin.splits()
  parts = [set(p.group) for p in (splits.train, splits.validation, splits.test)]
  assert sum(map(len, parts)) == len(set.union(*parts))
  assert twin.splits(fold=0, folds=4).num_classes == 7


def test_seeds():
  real = load("synthetic_1")
  assert fake(real, seed=0).fingerprint == fake(real, seed=0).fingerprint
  assert fake(real, seed=0).fingerprint != fake(real, seed=1).fingerprint


def test_training_sees_every_class_where_it_can():
  assert set(fake(load("digits")).splits().train.label) == set(range(10))


@pytest.mark.parametrize("label", [np.arange(40) / 3, np.arange(80).reshape(40, 2) % 3 % 2])
def test_masks_tokens_and_other_tasks(label):
  real = table_from_arrays(
    {"a": np.ones((40, 3)), "t": np.arange(40), "label": label, "mask_t": np.arange(40) > 9},
    encoders={"t": "embedding"},
  )
  twin = fake(real)
  assert twin.label.dtype == real.label.dtype and twin.label.shape == (24, *real.label.shape[1:])
  assert twin.inputs["t"].dtype == np.int32 and twin.inputs["t"].max() <= 39
  assert twin.mask["a"].all() and 0 < twin.mask["t"].sum() < 24
  assert not twin.inputs["t"][~twin.mask["t"]].any()
  assert twin.splits().num_outputs == real.num_outputs


def test_lengths_unknown_labels_and_weights():
  rows = np.arange(40)
  real = table_from_arrays(
    {
      "gait": np.ones((40, 9, 2)),
      "a": np.ones((40, 3), np.float32),
      "label": rows % 3,
      "length_gait": rows % 4 + 3,
      "mask_gait": rows > 9,
      "mask_label": rows % 2 > 0,
      "weight": np.where(rows % 2, 3.0, 0.0),
    },
  )
  twin = fake(real, rows=60)
  x, here = twin.inputs["gait"], twin.mask["gait"]
  assert x.values.shape == (60, 9, 2) and set(x.length[here]) == {3, 4, 5, 6}
  assert not x.length[~here].any() and 0 < here.sum() < 60
  valid = np.arange(9) < x.length[:, None]
  assert x.values[valid].all() and not x.values[~valid].any()
  assert 0 < twin.labelled.sum() < 60 and not twin.label[~twin.labelled].any()
  assert set(twin.weight) == {3.0}
  splits = twin.splits(weighted_scores=True)
  assert set(splits.train.label[splits.train.labelled]) == {0, 1, 2}


def test_arrays_beside_the_modalities_have_as_many_rows():
  real = table_from_arrays(
    {
      "a": np.ones((40, 3)),
      "label": np.arange(40) % 2,
      "extra_speaker": np.array([3, 8] * 20),
      "truth_mask": np.arange(40 * 4).reshape(40, 2, 2) % 3 - 1,
      "extra_age": np.linspace(20, 80, 40),
    }
  )
  twin = fake(real)
  train = twin.splits().train
  assert train.extra["age"].shape == train.label.shape
  assert set(twin.extra["speaker"]) <= {3, 8} and twin.extra["speaker"].shape == (24,)
  assert twin.truth["mask"].shape == (24, 2, 2) and set(twin.truth["mask"].ravel()) <= {-1, 0, 1}


def test_no_row_loses_all():
  mask = np.arange(20) % 2 == 0
  arrays = {"a": np.ones(20), "b": np.ones(20), "label": np.arange(20) % 2}
  real = table_from_arrays({**arrays, "mask_a": mask, "mask_b": ~mask})
  twin = fake(real)
  assert (twin.mask["a"] | twin.mask["b"]).all() and not twin.mask["a"].all()


def test_too_few_rows():
  with pytest.raises(DataError, match="at least 6 rows, got 5"):
    fake(load("synthetic_1"), rows=5)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_table_to_be_generated_keeps_the_kind_of_its_labels(labelled):
  arrays = {
    "a": np.arange(24.0).reshape(12, 2),
    **({"label": np.arange(12) % 3} if labelled else {}),
  }
  table = fake(table_from_arrays(arrays, task="generation"), rows=12)
  assert table.task == "generation"
  if labelled:
    assert table.label.dtype == np.int32 and set(table.label) == {0, 1, 2}
  else:
    assert table.label is None
