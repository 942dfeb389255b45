"""A segmentation from a file of the user's to a table, pictures and predicted maps."""

import numpy as np
import pytest

from mmfuse import cli, data, protocol, report
from mmfuse.protocol import UsageError, _maps

ROWS, SIZE = 30, (7, 10)


def arrays():
  rng = np.random.default_rng(0)
  a = rng.normal(size=(ROWS, *SIZE))
  label = np.where(a > 0.3, 7, 3)
  label[:, 0] = -1
  there = np.arange(ROWS) % 4 > 0
  a[~there] = np.nan
  return {"a": a, "b": rng.normal(size=(ROWS, *SIZE, 2)), "label": label, "mask_a": there}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("segmentation")
  np.savez(folder / "slices.npz", **arrays())
  cfg = protocol.Compare(
    data=str(folder / "slices.npz"),
    methods=("joint", "mimo", "linear_probe"),
    out=str(folder / "out"),
    seeds=2,
    epochs=1,
    tune=1,
    missing=True,
  )
  return folder, protocol.run(cfg)


def test_the_table_is_by_miou_and_other_rows_are_not_available(run):
  folder, summary = run
  assert summary.metric == "miou" and summary.info["task"] == "segmentation"
  for name in ("mimo", "linear_probe"):
    assert (
      summary.unavailable[name].startswith("needs ") and "segmentation" in summary.unavailable[name]
    )
  text = (folder / "out" / "table.md").read_text()
  assert "read as segmentation with 2 classes (3, 7)" in text
  assert "optimiser: adam, the default of segmentation" in text
  assert "mIoU at .5" in text and "ASSD in pixels" in text
  assert (folder / "out" / "maps_joint.png").read_bytes().startswith(b"\x89PNG")
  config = report.read_jsonl(folder / "out" / "results.jsonl")[0]
  assert config["learning_rate"] == pytest.approx(0.001)  # Adam's, by the task


def test_a_record_has_every_score_and_the_thresholds(run):
  folder, _ = run
  for record in report.read_jsonl(folder / "out" / "results.jsonl"):
    scores = record["scores"]["test"]
    assert {"miou", "miou_at_half", "dice", "dice_of_slices", "assd", "empty_predictions"} <= set(
      scores
    )
    assert set(record["thresholds"]) == {"a", "b", "a+b"}
    assert [s["modalities"] for s in record["subsets"]] == [["a"], ["b"], ["a", "b"]]
    limits = _maps.limits_of(record["thresholds"], ("a", "b"))
    back = 1 / (1 + np.exp(-limits[[1, 2, 3]]))
    np.testing.assert_allclose(back, [record["thresholds"][k] for k in ("a", "b", "a+b")])


def test_predict_writes_maps_of_the_users_own_classes(run, capsys):
  folder, _ = run
  new = arrays()
  np.savez(folder / "new.npz", a=new["a"], mask_a=new["mask_a"], b=new["b"])
  out = folder / "maps.npz"
  words = ["predict", str(folder / "out"), "--data", str(folder / "new.npz")]
  assert cli.main([*words, "--out", str(out)]) == 0
  maps = data.read_arrays(out)
  assert maps["prediction"].shape == (ROWS, *SIZE) and set(np.unique(maps["prediction"])) <= {3, 7}
  assert maps["probability"].shape == (ROWS, *SIZE, 2)
  np.testing.assert_allclose(maps["probability"].sum(-1), 1.0, atol=1e-5)
  assert cli.main(words) == 2
  assert "--out maps.npz says where they go" in capsys.readouterr().err
  np.savez(folder / "small.npz", b=new["b"][:, :5])
  with pytest.raises(UsageError, match=r"rows of shape \[5, 10, 2\], the run was trained on"):
    protocol.predict_maps(str(folder / "out"), str(folder / "small.npz"))


def test_fusions_and_encoders_of_vectors_are_refused(run):
  folder, _ = run
  of = lambda **given: protocol.run(
    protocol.Compare(data=str(folder / "slices.npz"), methods=("joint",), **given)
  )
  with pytest.raises(UsageError, match="--fusion gated joins vectors"):
    of(fusion="gated")
  with pytest.raises(UsageError, match="--encoder a=conv2d gives no maps"):
    of(encoder=("a=conv2d",))
