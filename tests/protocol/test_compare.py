"""The whole comparison, end to end, on tiny data."""

import csv
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mmfuse import data, methods, protocol, report, train
from mmfuse.protocol import _estimate, _finish, _notes, _trained
from mmfuse.protocol._config import Compare
from mmfuse.protocol._progress import duration
from mmfuse.protocol._rows import Row, make_rows
from mmfuse.report._format import plural

from ._helpers import COMMON, QUICK, arrays, call, numbers, records
from ._helpers import quick as _quick


@pytest.fixture
def cheap_programs(monkeypatch):
  """Programs that are run once: no diagnostics, and XLA need not make them fast."""
  fit = train.fit
  monkeypatch.setattr(train, "fit", lambda *args, **options: fit(*args, diagnose=False, **options))
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


def _row(folder, name) -> report.Row:
  return next(r for r in report.summarise(records(folder)).rows if r.method == name)


# Fair numbers.


@pytest.mark.slow
def test_a_rule_equal_to_joint_under_another_name_differs_by_exactly_nothing(finished):
  difference = _row(finished.run, "twin").differences["joint"]
  assert (difference.mean, difference.half, difference.p, difference.p_holm) == (0.0, 0.0, 1.0, 1.0)
  found = numbers(finished.run)
  for seed in range(3):
    joint, twin = found["joint", seed, None], found["twin", seed, None]
    for field in ("validation", "test", "learning_rate", "selected_epoch", "tuning", "scores"):
      assert joint[field] == twin[field]


@pytest.mark.slow
def test_uniform_times_three_is_uniform_once_the_rate_is_searched(finished, monkeypatch):
  """lr .01 on three times the losses is lr .03 on the losses: SGD cannot tell them apart."""
  _quick(monkeypatch)
  options = ("--data", "my.npz", "--methods", "uniform,mine.py:tripled")
  said = call(finished.folder, "compare", *options, "--out", "searched", *COMMON)
  assert said.code == 0, said
  found = numbers(finished.folder / "searched")
  for seed in range(3):
    plain, tripled = found["uniform", seed, None], found["tripled", seed, None]
    assert (plain["learning_rate"], tripled["learning_rate"]) == (0.03, 0.01)
    assert plain["validation"] == tripled["validation"] and plain["test"] == tripled["test"]
    assert plain["scores"]["test"]["nll"] == pytest.approx(tripled["scores"]["test"]["nll"], 1e-4)
  difference = _row(finished.folder / "searched", "tripled").differences["uniform"]
  assert (difference.mean, difference.p_holm) == (0.0, 1.0)
  # The row of another table is the same row.
  assert numbers(finished.folder / "searched", ["uniform"]) == numbers(finished.run, ["uniform"])


def test_uniform_times_three_is_another_rule_at_one_rate_for_all(finished, monkeypatch):
  _quick(monkeypatch)
  options = ("--data", "my.npz", "--methods", "uniform,mine.py:tripled", "--tune", "1")
  said = call(finished.folder, "compare", *options, "--out", "untuned", *COMMON)
  assert said.code == 0
  found = numbers(finished.folder / "untuned")
  assert {r["learning_rate"] for r in found.values()} == {0.03}
  assert any(
    found["uniform", s, None]["validation"] != found["tripled", s, None]["validation"]
    for s in range(3)
  )
  nll = lambda name: [found[name, s, None]["scores"]["test"]["nll"] for s in range(3)]
  assert np.abs(np.subtract(nll("uniform"), nll("tripled"))).min() > 1e-3
  assert "one learning rate for all rows: not a comparison of methods" in said.out.replace(
    "\n", " "
  )


def test_noise_in_the_test_rows_changes_no_choice(finished, monkeypatch):
  _quick(monkeypatch)
  made = arrays()
  test = made["split"] == "test"
  noise = np.random.default_rng(9).normal(size=(test.sum(), 4)) * 100
  for m in "ab":
    made[m][test] = noise
  np.savez(finished.folder / "noisy.npz", **made)
  methods = ("--methods", "joint,uniform")
  said = call(
    finished.folder, "compare", "--data", "noisy.npz", *methods, "--out", "noisy", *COMMON
  )
  assert said.code == 0
  noisy, clean = numbers(finished.folder / "noisy"), numbers(finished.run)
  for key, record in noisy.items():
    for field in ("selected_epoch", "validation", "learning_rate", "tuning"):
      assert record[field] == clean[key][field]
    assert record["test"] != clean[key]["test"]
    assert record["data_fingerprint"] != clean[key]["data_fingerprint"]


def test_the_test_rows_are_opened_after_every_choice_is_written(place, monkeypatch):
  _quick(monkeypatch)
  seen, opened = [], _finish.records_of

  def records_of(search, row, choice, test, shared, *tables):
    seen.append(sorted(p.parent.name for p in search.store.runs.glob("*/choice.json")))
    return opened(search, row, choice, test, shared, *tables)

  monkeypatch.setattr(_finish, "records_of", records_of)
  options = ("--data", "my.npz", "--methods", "joint,uniform", "--out", "run", *QUICK)
  assert call(place, "compare", *options).code == 0
  assert seen == [["joint", "uniform"]] * 2


@pytest.mark.slow
def test_nine_trials_for_rows_with_a_grid_and_without(place, monkeypatch):
  _quick(monkeypatch)
  options = ("--tune", "9", "--seeds", "1", "--epochs", "1", "--batch-size", "16", "--out", "run")
  said = call(place, "compare", "--data", "my.npz", "--methods", "joint,stch", *options)
  assert said.code == 0, said
  joint, stch = records(place / "run")
  for row in (joint, stch):  # and one more for each step outwards
    trials = len(row["tuning"]["trials"])
    assert 9 <= trials <= 11 and row["gradient_evaluations"] == trials * 48
  assert joint["tuning"]["hyper"] == {} and set(stch["tuning"]["hyper"]) == {"mu"}
  assert len({t["learning_rate"] for t in joint["tuning"]["trials"][:9]}) == 9
  assert len({(t["learning_rate"], t["hyper"]["mu"]) for t in stch["tuning"]["trials"][:9]}) == 9


@pytest.mark.slow
def test_folds_by_group_test_every_group_once(place, monkeypatch):
  _quick(monkeypatch)
  made = arrays(group=np.arange(80) // 2 % 5)
  del made["split"]
  np.savez(place / "grouped.npz", **made)
  fits, fit = [], train.fit
  monkeypatch.setattr(train, "fit", lambda m, s, **o: (fits.append((s, o)), fit(m, s, **o))[1])
  options = ("--methods", "joint", "--folds", "3", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "grouped.npz", *options)
  assert said.code == 0, said
  assert [(r["seed"], r["fold"]) for r in records(place / "run")] == [(0, 0), (0, 1), (0, 2)]
  everything, tested = set(range(5)), []
  for splits in [s for s, options in fits if "checkpoint_dir" in options]:
    trained, validated = set(splits.train.group), set(splits.validation.group)
    assert not trained & validated and splits.test is None
    tested.append(everything - trained - validated)
  assert sorted(g for groups in tested for g in groups) == [0, 1, 2, 3, 4] and all(tested)
  assert "over 3 folds x 1 seed (test rows" in said.out
  np.savez(place / "new.npz", a=made["a"][:2], b=made["b"][:2])
  assert call(place, "predict", "run", "--data", "new.npz").code == 0


def test_modalities_that_one_file_name_would_mix_up_are_both_trained(place, monkeypatch):
  _quick(monkeypatch)
  np.savez(place / "names.npz", **arrays(modalities=("音频", "视频")))
  options = ("--data", "names.npz", "--methods", "unimodal", "--out", "run", *QUICK)
  said = call(place, "compare", *options)
  assert said.code == 0, said
  first, second = records(place / "run")
  assert (first["method"], second["method"]) == ("unimodal/视频", "unimodal/音频")
  assert first["scores"] != second["scores"]
  assert len(list((place / "run" / "runs").glob("*/*.safetensors"))) == 2
  new = {m: x[:4] for m, x in arrays(modalities=("音频", "视频")).items() if m == "音频"}
  np.savez(place / "new.npz", **new)
  said = call(place, "predict", "run", "--data", "new.npz")
  assert said.code == 0 and "note: unimodal/音频, seed 0: the best row by validation" in said.err


# Rows that fail or cannot run.


def test_the_whole_reason_of_a_failed_row_on_one_line(tmp_path, capsys):
  row = Row("mine", methods.METHODS["joint"], {})
  error = ValueError("shapes differ:\n  kernel [3, 4]\n  expected [3, 5]")
  why = "failed: ValueError: shapes differ: kernel [3, 4] expected [3, 5]"
  assert _trained.failure(tmp_path, row, error) == why
  assert _trained.failure(tmp_path, row, KeyError()) == "failed: KeyError"
  long = _trained.failure(tmp_path, row, ValueError("word " * 400 + "the end"))
  assert len(long) < 600 and long.endswith("word ... (all of it is in errors.log)")
  log = (tmp_path / "errors.log").read_text()
  assert "the end" in log and "kernel [3, 4]\n" in log
  assert capsys.readouterr().err.count("\n") == 3


def test_a_row_that_raises_is_a_reason_and_the_others_are_there(place, monkeypatch):
  _quick(monkeypatch)
  options = ("--methods", "mine.py:broken,joint,uniform", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "my.npz", *options)
  assert said.code == 1
  assert "broken failed (RuntimeError: no such luck); see run/errors.log" in said.err
  assert "Traceback" not in said.err
  assert [r["method"] for r in records(place / "run")] == ["joint", "uniform"]
  assert "failed: RuntimeError: no such luck" in (place / "run" / "table.md").read_text()
  log = (place / "run" / "errors.log").read_text()
  assert log.startswith("--- broken\nTraceback") and "mine.py" in log


def test_the_reason_of_a_failed_row_is_whole_but_for_pages_of_it(tmp_path):
  row = SimpleNamespace(name="x")
  said = _trained.failure(tmp_path, row, ValueError("first line\n\n  and what to do about it\n"))
  assert said == "failed: ValueError: first line and what to do about it"
  said = _trained.failure(tmp_path, row, ValueError("word " * 5000))
  assert said.endswith("word ... (all of it is in errors.log)") and 450 < len(said) < 600
  assert (tmp_path / "errors.log").read_text().count("word") >= 5000


def test_only_rows_that_raise_make_a_table_of_reasons(place, monkeypatch):
  _quick(monkeypatch)
  options = ("--methods", "mine.py:broken", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "my.npz", *options)
  assert said.code == 1 and records(place / "run") == []
  assert "no estimate of the time, broken fails (RuntimeError)" in said.out


def test_a_row_that_cannot_be_evaluated_is_a_reason_too(place, monkeypatch):
  _quick(monkeypatch)
  opened = _finish.records_of

  def records_of(search, row, choice, test, shared, *tables):
    if row.name == "uniform":
      raise FloatingPointError("strange rows")
    return opened(search, row, choice, test, shared, *tables)

  monkeypatch.setattr(_finish, "records_of", records_of)
  options = ("--methods", "joint,uniform", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "my.npz", *options)
  assert said.code == 1 and "uniform failed (FloatingPointError: strange rows)" in said.err
  assert [r["method"] for r in records(place / "run")] == ["joint"]


# Of every kind, with hooks, phases, memory and parts; tests/test_methods.py steps all of them.
MANY = (
  "unimodal",
  "late_average",
  "joint",
  "uniform",
  "gblending",
  "mmpareto",
  "modo",
  "agm",
  "pmr",
  "opm",
  "greedy",
  "umt",
  "mdrnn_pcd",
)
SOME = ("unimodal", "joint", "gblending", "greedy", "umt", "mdrnn_pcd")


@pytest.mark.parametrize("names", [SOME, pytest.param(MANY, marks=pytest.mark.slow)])
def test_every_kind_runs_on_one_modality_and_regression(place, monkeypatch, cheap_programs, names):
  _quick(monkeypatch)
  made = arrays(modalities=("a",))
  made["label"] = made["a"][:, 0] * 2.0 + 1.0
  np.savez(place / "one.npz", **made)
  options = ("--methods", ",".join(names), "--encoder", "a=mine.py:Line", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "one.npz", *options)
  assert said.code == 0, said
  found = records(place / "run")
  expected = [n for n in names if "regression" in methods.METHODS[n].tasks and n != "greedy"]
  assert [r["method"] for r in found] == [{"unimodal": "unimodal/a"}.get(n, n) for n in expected]
  assert {r["metric"] for r in found} == {"r2"}
  assert all(np.isfinite(r["test"]["fused"]) and r["contribution"] == {} for r in found)
  lines = (place / "run" / "table.md").read_text().splitlines()
  for name in set(names) - set(expected):
    reason = "two modalities" if name == "greedy" else "labels, these are regression"
    assert re.search(f"^{name}: n/a: .*{reason}", said.out, re.MULTILINE)
    assert any(name in line and reason in line for line in lines)


@pytest.mark.slow
def test_every_kind_runs_on_three_modalities_often_absent_and_many_labels(
  place, monkeypatch, cheap_programs
):
  _quick(monkeypatch)
  rng = np.random.default_rng(1)
  made = arrays(modalities=("a", "b", "c"))
  made["label"] = np.stack([made["label"], rng.integers(0, 2, 80)], 1)
  absent = rng.permutation(80)
  for i, m in enumerate("abc"):  # 10 % of each, never the same row
    made[f"mask_{m}"] = ~np.isin(np.arange(80), absent[8 * i : 8 * i + 8])
  np.savez(place / "three.npz", **made)
  lines = ("--encoder", ",".join(f"{m}=mine.py:Line" for m in "abc"))
  options = ("--methods", ",".join(MANY), *lines, "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "three.npz", *options)
  assert said.code == 0, said
  found = records(place / "run")
  singles = ["unimodal/a", "unimodal/b", "unimodal/c"]
  expected = [n for n in MANY[1:] if "multilabel" in methods.METHODS[n].tasks and n != "greedy"]
  assert [r["method"] for r in found] == [*singles, *expected]
  for r in found:
    assert np.isfinite(r["test"]["fused"])
    if r["method"] not in singles:
      assert set(r["contribution"]) == {"a", "b", "c"}
  rows = list(csv.DictReader((place / "run" / "table.csv").read_text().splitlines()))
  assert {r["method"] for r in rows} >= {r["method"] for r in found}


def test_a_value_that_the_mask_calls_absent_is_never_read(place, monkeypatch):
  _quick(monkeypatch)
  made = arrays()
  mask = np.arange(80) % 10 != 3
  made["b"] = np.where(mask[:, None], made["b"], 0.0)
  options = ("--methods", "joint,late_average", *QUICK)
  for name, filler in (("zeros", 0.0), ("nans", np.nan)):
    b = np.where(mask[:, None], made["b"], filler)
    np.savez(place / f"{name}.npz", **{**made, "b": b}, mask_b=mask)
    assert call(place, "compare", "--data", f"{name}.npz", *options).code == 0
  zeros, nans = (numbers(place / "results" / name) for name in ("zeros", "nans"))
  assert zeros == nans


def test_rows_without_a_modality_are_dropped_on_demand_and_counted(place, monkeypatch):
  _quick(monkeypatch)
  present = np.arange(80) % 20 != 7
  np.savez(place / "my.npz", **arrays(), mask_a=present, mask_b=present)
  said = call(place, "compare", "--data", "my.npz", "--drop-empty", "--methods", "joint", *QUICK)
  assert said.code == 0, said
  assert "note: 4 rows without a modality dropped" in said.out
  assert "4 rows without a modality dropped" in (place / "results/my/table.md").read_text()


@pytest.mark.parametrize("part", ["test", "train"])
def test_a_modality_that_a_part_lacks_is_judged_nowhere(place, monkeypatch, part):
  _quick(monkeypatch)
  made = arrays()
  group = np.arange(80) % 8  # each in several parts
  np.savez(place / "my.npz", **made, mask_b=made["split"] != part, group=group)
  options = ("--allow-straddling", "--methods", "unimodal,joint", "--out", "run", *QUICK)
  said = call(place, "compare", "--data", "my.npz", *options)
  assert said.code == 0, said
  why = "n/a: b is in no test row" if part == "test" else "n/a: b is in no training row"
  assert f"unimodal/b: {why}" in said.out
  assert "note: 8 of 8 groups stand in more than one part of the split column" in said.out
  table = (place / "run" / "table.md").read_text()
  counts = ", ".join(
    f"{p} {0 if p == part else n}" for p, n in (("train", 48), ("validation", 16), ("test", 16))
  )
  assert f"| unimodal/b | {why} |" in table
  assert f"1 modality has no row in some part: b ({counts})" in table
  found = {r["method"]: r for r in records(place / "run")}
  assert set(found) == {"unimodal/a", "joint"}
  for r in found.values():
    assert r["test"]["b"] is None and r["contribution"] == {}
    assert set(r["shapley"]) == {"a"}
  assert isinstance(found["joint"]["test"]["fused"], float)
  assert (found["joint"]["validation"]["b"] is None) == (part == "train")


def test_notes_of_folds_are_said_once_or_with_their_fold():
  splits = {
    fold: SimpleNamespace(notes=notes)
    for fold, notes in {0: ("x", "y"), 1: ("x",), 2: ("x", "y", "z")}.items()
  }
  assert _notes.of_splits(splits) == ["x", "fold 0, 2: y", "fold 2: z"]
  assert _notes.of_splits({None: splits[0]}) == ["x", "y"]


# The folder, the first line and the smoke run.


def test_what_is_in_the_output_folder_is_moved_aside_whole(place, monkeypatch):
  _quick(monkeypatch)
  (place / "run").mkdir()
  (place / "run" / "precious.txt").write_text("mine")
  options = ("--data", "my.npz", "--methods", "joint", "--out", "run", *QUICK)
  said = call(place, "compare", *options)
  assert said.code == 0 and "moved the earlier run to run-1" in said.out
  assert [p.name for p in (place / "run-1").iterdir()] == ["precious.txt"]
  first = {p: p.read_bytes() for p in (place / "run").rglob("*") if p.is_file()}
  assert call(place, "compare", *options).code == 0
  for path, content in first.items():
    assert (place / "run-2" / path.relative_to(place / "run")).read_bytes() == content


def test_the_first_line_says_how_much_there_is_to_do(finished):
  assert "\n6 rows, at least 42 runs of 2 epochs: about " in finished.said.out
  assert ", more where the best rate is the first or last of those tried\n" in finished.said.out


@pytest.mark.parametrize(
  ("words", "timed", "minutes"),
  # A step of the timed row takes 1 s, an epoch 10; 4 runs of 30 epochs a row, 1.2 for the rest.
  [
    ("unimodal,mine.py:twin,joint", "joint", 3 * 24),
    ("unimodal", "unimodal/a", 2 * 24),
    ("mine.py:twin,unimodal,uniform", "uniform", 3 * 24),
    ("mine.py:twin", "twin", 24),
    ("joint,mmpareto", "joint", 24 + 1.8 * 24),
  ],
)
def test_the_estimate_times_joint_and_a_single_modality_costs_its_part(
  place, monkeypatch, words, timed, minutes
):
  monkeypatch.chdir(place)
  cfg = protocol.Compare(methods=(words,), tune=1, epochs=30, batch_size=64)
  rows, _ = make_rows(cfg, ("a", "b"), "classification")
  entry = SimpleNamespace(history=[{"seconds_per_step": 1.0}])
  seen = []
  fit = lambda method, *_, **__: (seen.append(method), SimpleNamespace(logs=[entry]))[1]
  monkeypatch.setattr(train, "fit", fit)
  part = SimpleNamespace(index=np.arange(640))
  splits = SimpleNamespace(modalities=("a", "b"), train=part)
  search = SimpleNamespace(splits=splits, method=lambda row, trial: row.name)
  said = _estimate.estimate(cfg, rows, search, dict.fromkeys((r.name for r in rows), 4))
  assert seen == [timed]
  assert (
    said
    == f"{plural(len(rows), 'row')}, {4 * len(rows)} runs of 30 epochs: about "
    + duration(60 * minutes)
  )


def test_select_by_another_metric(finished, monkeypatch):
  _quick(monkeypatch)
  options = ("--methods", "joint", "--select", "nll", "--out", "nll", *COMMON)
  assert call(finished.folder, "compare", "--data", "my.npz", *options).code == 0
  found = records(finished.folder / "nll")
  trials = found[0]["tuning"]["trials"]
  assert all(t["validation"] < 0 for t in trials)  # minus the loss: larger is better
  assert found[0]["metric"] == "accuracy"


def test_a_smoke_run_takes_three_methods_through_random_rows(place, monkeypatch):
  _quick(monkeypatch)
  seen, fake = [], data.fake
  monkeypatch.setattr(data, "fake", lambda t, rows: (seen.append(rows), fake(t, rows))[1])
  said = call(place, "compare", "--data", "my.npz", "--smoke")
  assert said.code == 0, said
  found = records(place / "results" / "my")
  assert [(r["method"], r["seed"]) for r in found] == [
    (m, s) for m in methods.SMOKE for s in (0, 1)
  ]
  config = json.loads((place / "results/my/run.json").read_text())["config"]
  assert (config["epochs"], config["tune"]) == (1, 1) and seen == [96]


@pytest.mark.parametrize("name", ["av_mnist", "emoji", "wikipedia"])
def test_a_smoke_run_needs_no_file_that_the_user_has_to_bring(name, monkeypatch):
  monkeypatch.delenv("MMFUSE_DATA_DIR", raising=False)
  table = protocol.load_table(Compare(data=name, smoke=True))
  assert table.name == f"{name}_fake" and len(table.label) == 96
  assert {m: x.shape[1:] for m, x in table.inputs.items()} == {
    m: x.shape[1:] for m, x in data.load(name, fake=True).inputs.items()
  }
