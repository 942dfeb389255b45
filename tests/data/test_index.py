import json
import subprocess
import sys

import pytest

from mmfuse.data import DATASETS, DataError, catalogue, load


def test_catalogue():
  rows = json.loads(json.dumps(catalogue()))
  assert [r["name"] for r in rows] == sorted(DATASETS)
  assert set(DATASETS) == {
    "watch_imu",
    "digit_pairs",
    "digits",
    "synthetic_1",
    "synthetic_2",
    "av_mnist",
    "emoji",
    "emoji_text",
    "wikipedia",
    "mini_polymnist",
    "mini_polymnist_28",
    "skeletons",
    "phantom",
    "lesions",
  }
  for row in rows:
    assert set(row) == {"name", "what", "size", "licence", "how"} and all(row.values())


def test_sizes_are_true():
  for name in ("watch_imu", "digits", "digit_pairs", "skeletons", "synthetic_1", "synthetic_2"):
    table, size = load(name), DATASETS[name].size
    assert f"{len(table.label):,} " in size and f"{table.num_outputs} classes" in size
    for m, x in table.inputs.items():
      assert f"{m} {list(x.shape[1:])}" in size


def test_unknown_names(tmp_path):
  with pytest.raises(DataError, match=r"unknown data set 'watch_imo'; closest: watch_imu.*\.npz"):
    load("watch_imo")
  (tmp_path / "x.csv").write_text("1")
  with pytest.raises(DataError, match=r"is no .npz archive"):
    load(str(tmp_path / "x.csv"))


def test_choices_for_a_built_in_set():
  assert load("synthetic_1", encoders={"A": "gru"}).encoders == {"A": "gru"}
  assert load("synthetic_1", task="classification").task == "classification"
  assert load("synthetic_1", task="generation").task == "generation"
  with pytest.raises(DataError, match="a classification set, it cannot be a regression"):
    load("synthetic_1", task="regression")
  with pytest.raises(DataError, match="the encoder for 'Z' belongs to no modality"):
    load("synthetic_1", encoders={"Z": "mlp"})
  with pytest.raises(DataError, match="'A' of synthetic_1 holds numbers"):
    load("synthetic_1", encoders={"A": "embedding"})


def test_import_needs_no_jax():
  code = "import sys, mmfuse.data; sys.exit('jax' in sys.modules or 'sklearn' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
