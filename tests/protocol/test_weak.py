"""Weak segmentation in a report: scores of maps beside those of tags, from masks that no step has seen."""

import types

import numpy as np
import pytest

from mmfuse import data, protocol, report, train
from mmfuse.protocol import _weak


def table():
  """Bright squares on noise, tagged by whether they are there."""
  rng = np.random.default_rng(0)
  label = np.arange(40) % 2
  mask = np.zeros((40, 6, 6), np.int32)
  mask[label == 1, 1:4, 2:5] = 1
  arrays = {m: rng.normal(size=(40, 6, 6, 1)) + 3.0 * mask[..., None] for m in "ab"}
  split = np.asarray(["train", "train", "validation", "test"])[np.arange(40) // 2 % 4]
  return data.table_from_arrays({**arrays, "label": label, "split": split, "truth_mask": mask})


@pytest.mark.slow
def test_maps_are_scored_in_the_report_alone(tmp_path, monkeypatch):
  seen, fit = [], train.fit

  def watched(method, splits, **options):
    seen.append(splits)
    return fit(method, splits, **options)

  monkeypatch.setattr(train, "fit", watched)
  summary = protocol.run(
    protocol.Compare(
      methods=("joint", "wss_cmer"),
      set=("wss_cmer.width=1", "wss_cmer.levels=2"),
      encoder=("a=linear", "b=linear"),
      out=str(tmp_path / "run"),
      tune=1,
      seeds=1,
      epochs=1,
      batch_size=10,
    ),
    table=table(),
  )
  assert seen and all(not part.truth for s in seen for part in s.parts.values())
  scores = {
    r["method"]: r["scores"]["test"] for r in report.read_jsonl(tmp_path / "run" / "results.jsonl")
  }
  wanted = {f"{name}/{m}" for name in ("dice_of_slices", "map_threshold") for m in "ab"}
  assert wanted <= set(scores["wss_cmer"]) and not wanted & set(scores["joint"])
  assert any("wss_cmer a " in note for note in summary.info["notes"])


def test_what_is_said_of_maps_under_a_table():
  splits = types.SimpleNamespace(modalities=("a", "b"), parts={})
  scores = {"dice_of_slices/a": 0.25, "assd/a": 2.0, "empty_predictions/a": 3.0}
  of = lambda method, test: {"method": method, "scores": {"test": test}}
  records = [of("joint", {"accuracy": 1.0}), of("wss_cmer", scores), of("wss_cmer", scores)]
  (note,) = _weak.notes(splits, records)
  assert note.endswith("wss_cmer a 25.0, 2.00, 3.00, n/a.") and "joint" not in note
  assert _weak.notes(splits, records[:1]) == []
  names = [s.name for s in _weak.passports(("a", "b"))]
  assert "dice_of_slices/a" in names and len(names) == len(set(names)) == 8


def test_masks_that_show_nothing_are_said():
  part = lambda mask: types.SimpleNamespace(truth={"mask": np.asarray(mask)})
  of = lambda mask: types.SimpleNamespace(
    modalities=("a",),
    validation=part(mask),
    parts={"validation": part(mask), "test": part([[1]])},
  )
  (note,) = _weak.notes(of([[0, -1]]), [])
  assert note.startswith("maps are not scored: no validation mask shows anything")
  assert _weak.notes(of([[0, 1]]), []) == []


def test_masks_are_wanted_of_validation_and_test_rows():
  splits = table().splits()
  assert _weak.has_masks(splits) and not _weak.has_masks(splits.sealed())
