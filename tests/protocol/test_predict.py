"""Predictions for new rows from a finished run."""

import csv
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from mmfuse import core, data, tasks, train
from mmfuse.protocol import UsageError, _new_rows, _predict
from mmfuse.protocol._config import Compare
from mmfuse.protocol._model import make_model
from mmfuse.protocol._rows import make_rows
from mmfuse.protocol._search import Trial

from ._helpers import MINE, QUICK, arrays, call, records


def _table(text: str) -> tuple[list[str], list[list[str]]]:
  lines = list(csv.reader(text.splitlines()))
  return lines[0], lines[1:]


def _new(path, **changes):
  rng = np.random.default_rng(5)
  made = {"a": 3.0 + rng.normal(size=(7, 4)), "b": rng.normal(size=(7, 4)), **changes}
  np.savez(path, **{k: v for k, v in made.items() if v is not None})
  return made


def _predict_new(finished, *argv, **changes):
  path = finished.folder / "new.npz"
  made = _new(path, **changes)
  return made, call(finished.folder, "predict", "run", "--data", "new.npz", *argv)


def test_probabilities_are_those_of_the_saved_weights_with_the_runs_standardisation(finished):
  made, said = _predict_new(finished, "--method", "uniform", "--seed", 2)
  assert said.code == 0, said
  header, lines = _table(said.out)
  assert header == ["row", "prediction", "p_0", "p_1"]
  assert [line[0] for line in lines] == [str(i) for i in range(7)]
  shown = np.asarray([[float(v) for v in line[2:]] for line in lines])
  np.testing.assert_allclose(shown.sum(1), 1.0, atol=2e-6)
  assert [line[1] for line in lines] == [str(k) for k in shown.argmax(1)]

  # By hand: moments of the 48 training rows, then the weights of seed 2 at the chosen rate.
  old = arrays()
  rows = old["split"] == "train"
  scale = lambda m: ((made[m] - old[m][rows].mean(0)) / old[m][rows].std(0)).astype(np.float32)
  part = data.Split(
    {m: scale(m) for m in "ab"},
    np.zeros(7, np.int32),
    {m: np.ones(7, bool) for m in "ab"},
    np.arange(7),
    None,
  )
  record = next(r for r in records(finished.run) if r["method"] == "uniform" and r["seed"] == 2)
  splits = finished.fits[0]["splits"]
  (row,) = make_rows(Compare(methods=("uniform",)), "ab", "classification")[0]
  method = row.build(Compare(), make_model(splits, "concat"), Trial(0.03))
  template = jax.eval_shape(
    functools.partial(train.initial, method), jax.random.key(0), train.to_batch(part)
  )
  weights = finished.run / "runs" / "uniform" / f"seed2-lr{record['learning_rate']:g}.safetensors"
  logits = train.predict_split(method, train.load_weights(weights, template), part).logits
  chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(shown, chance, atol=2e-6)


def test_the_default_is_the_row_the_table_marks_and_its_first_seed(finished):
  marked = next(
    x for x in (finished.run / "table.md").read_text().split("\n") if "(best fused)" in x
  )
  best = marked.split("|")[1].split()[0]
  _, said = _predict_new(finished)
  _, named = _predict_new(finished, "--method", best, "--seed", 0)
  assert said.code == 0 and said.out == named.out


def test_a_diverged_run_is_never_the_default():
  def record(name, score):
    return {
      "method": name,
      "seed": 0,
      "fold": None,
      "metric": "accuracy",
      "validation": {"fused": score},
    }

  found, why = _predict._pick([record("x", None), record("y", 0.1)], None, None)
  assert found["method"] == "y" and why == "the best fused row by validation, accuracy 0.1"


def test_a_row_that_has_become_another_name_is_refused_or_passed_over():
  records = [{"method": name, "seed": 0} for name in ("inter", "joint")]
  rows = {
    r.name: r for r in make_rows(Compare(methods=("inter", "joint")), "ab", "classification")[0]
  }
  without = _predict._without(records, rows, absent=[], gone=[])
  assert list(without) == ["inter"] and "another name of a row" in without["inter"]


def test_where_a_mask_says_absent_the_value_is_not_read(finished):
  mask = np.arange(7) != 3
  broken = np.where(mask[:, None], 0.5, np.nan) * np.ones(4)
  _, with_nan = _predict_new(finished, "--method", "joint", b=broken, mask_b=mask)
  _, with_zero = _predict_new(finished, "--method", "joint", b=np.nan_to_num(broken), mask_b=mask)
  _, present = _predict_new(finished, "--method", "joint", b=np.full((7, 4), 0.5))
  assert with_nan.code == 0 and with_nan.out == with_zero.out
  differ = [
    i
    for i, (x, y) in enumerate(zip(with_nan.out.splitlines()[1:], present.out.splitlines()[1:]))
    if x != y
  ]
  assert differ == [3]


def test_label_split_and_other_arrays_are_ignored(finished):
  _, plain = _predict_new(finished, "--method", "joint")
  known = {
    "label": np.zeros(7),
    "split": np.zeros(3),
    "group": np.ones(2),
    "weight": np.ones(7),
    "mask_label": np.ones(7, bool),
  }
  _, more = _predict_new(finished, "--method", "joint", **known)
  assert more.out == plain.out and more.err == plain.err == "note: joint, seed 0: as asked\n"
  other = {"extra": np.ones(3), "mask_extra": np.ones(2), "length_extra": np.ones(1)}
  _, more = _predict_new(finished, "--method", "joint", **other)
  assert more.out == plain.out and more.err.splitlines()[1:] == [
    "note: not read, since the run does not know them: extra, length_extra, mask_extra"
  ]


def test_a_modality_that_is_left_out_is_absent_from_every_row(finished):
  _, left_out = _predict_new(finished, "--method", "joint", b=None)
  _, absent = _predict_new(finished, "--method", "joint", mask_b=np.zeros(7, bool))
  _, present = _predict_new(finished, "--method", "joint")
  assert left_out.code == 0 and left_out.out == absent.out != present.out
  assert "note: not in the file, so absent from every row: b" in left_out.err


def test_a_row_that_reads_only_what_is_left_out_is_refused_or_passed_over(finished):
  _, said = _predict_new(finished, "--method", "unimodal/b", b=None)
  assert said.code == 2 and said.err.count("\n") == 1
  assert (
    "unimodal/b reads 'b' alone, which is not among the arrays; --method takes joint" in said.err
  )
  record = lambda name, score: {
    "method": name,
    "seed": 3,
    "fold": None,
    "metric": "accuracy",
    "validation": {"fused": score},
  }
  both = [record("unimodal/b", 0.9), record("joint", 0.8)]
  without = {"unimodal/b": "reads 'b' alone, which is not among the arrays"}
  found, why = _predict._pick(both, None, None, without)
  assert found["method"] == "joint" and why.endswith("0.8, of those that can be taken")
  with pytest.raises(UsageError, match=r"not among the arrays; no row of the run can"):
    _predict._pick(both[:1], None, None, without)


def test_rows_that_lack_all_that_a_row_reads_are_counted(finished):
  _, said = _predict_new(finished, "--method", "unimodal/b", mask_b=np.arange(7) > 1)
  assert said.code == 0 and "note: 2 rows lack b, all that unimodal/b reads" in said.err


@pytest.mark.parametrize("name", ["joint", "uniform", "twin", "late_average", "unimodal/a"])
def test_every_row_predicts_a_single_example(finished, name):
  rng = np.random.default_rng(3)
  np.savez(finished.folder / "one.npz", **{m: rng.normal(size=(1, 4)) for m in "ab"})
  said = call(finished.folder, "predict", "run", "--data", "one.npz", "--method", name)
  assert said.code == 0 and len(said.out.splitlines()) == 2, said


def test_a_file_is_written_once(finished, tmp_path):
  target = tmp_path / "p.csv"
  _, said = _predict_new(finished, "--method", "joint", "--out", target)
  _, shown = _predict_new(finished, "--method", "joint")
  assert said.code == 0 and not said.out and target.read_text() == shown.out
  _, again = _predict_new(finished, "--method", "joint", "--out", target)
  assert again.code == 2 and "nothing is overwritten" in again.err


@pytest.mark.parametrize(
  "changes, argv, words",
  [
    ({"a": np.ones((7, 5))}, (), ("'a'", "[5]", "[4]")),
    ({"a": np.ones((7, 4, 2))}, (), ("'a'", "[4, 2]", "[4]")),
    ({"a": None, "b": None, "c": np.ones(7)}, (), ("no modality of the run", "holds c", "on a, b")),
    ({"b": None, "mask_b": np.arange(7) > 3}, (), ("mask_b says that 'b' is there",)),
    ({"b": None, "mask_a": np.arange(7) > 0}, (), ("1 of 7 rows have no modality", "row 0")),
    ({"b": np.ones((6, 4))}, (), ("'b' has 6 rows", "7")),
    ({"a": np.full((7, 4), np.nan)}, (), ("'a'", "row 0")),
    (
      {"mask_a": np.arange(7) > 1, "mask_b": np.arange(7) > 0},
      (),
      ("1 of 7 rows have no modality present", "row 0"),
    ),
    ({}, ("--method", "jont"), ("no method 'jont'", "joint")),
    ({}, ("--seed", "9"), ("--seed 9 was not run", "0, 1, 2")),
  ],
)
def test_rows_that_do_not_fit_are_refused(finished, changes, argv, words):
  _, said = _predict_new(finished, *argv, **changes)
  assert said.code == 2 and said.err.count("\n") == 1 and not said.out
  assert all(w in said.err for w in words), said.err


def test_a_run_whose_weights_are_gone_says_so(finished):
  files = list((finished.run / "runs" / "twin").glob("seed0*.safetensors"))
  for f in files:
    f.rename(f.with_suffix(".away"))
  _, said = _predict_new(finished, "--method", "twin")
  for f in files:
    f.with_suffix(".away").rename(f)
  assert said.code == 2 and "the weights of 'twin' are gone" in said.err


def test_tokens_and_missing_rows(place):
  rng = np.random.default_rng(0)
  made = arrays()
  words = rng.integers(0, 5, (80, 3)) + 2 * made["label"][:, None]
  test = made["split"] == "test"
  words[~test] = np.minimum(words[~test], 8)
  words[0], words[test, 0] = 8, 57  # the vocabulary is that of the training rows
  kept = {name: made[name] for name in ("label", "split", "a")}
  np.savez(place / "words.npz", **kept, words=words, mask_words=rng.random(80) > 0.1)
  argv = ("--methods", "joint", "--encoder", "words=embedding", *QUICK)
  assert call(place, "compare", "--data", "words.npz", *argv, "--out", "run").code == 0
  schema = json.loads((place / "run" / "schema.json").read_text())
  assert schema["inputs"]["words"] == {"shape": [3], "largest": 8}
  said = call(place, "predict", "run", "--data", "words.npz")
  assert said.code == 0 and "words has unknown tokens (above 8) in" in said.err
  chosen = np.asarray([int(line[1]) for line in _table(said.out)[1]])
  (record,) = records(place / "run")
  assert record["test"]["fused"] == pytest.approx(np.mean(chosen[test] == made["label"][test]))
  new = {"a": made["a"][:4], "words": words[:4]}
  np.savez(place / "new.npz", **new)
  said = call(place, "predict", "run", "--data", "new.npz")
  assert said.code == 0 and len(said.out.splitlines()) == 5
  # Tokens that the run has never seen share one row of the table, whichever they are.
  unknown = np.where(words[:4] == words[0, 0], 9, words[:4])
  told = []
  for token in (9, 57, 2**31 - 1):
    np.savez(place / "new.npz", a=new["a"], words=np.where(unknown == 9, token, unknown))
    said = call(place, "predict", "run", "--data", "new.npz")
    assert said.code == 0, said
    told.append(said)
  assert told[0].out == told[1].out == told[2].out
  count = int((unknown == 9).any(1).sum())
  assert f"note: words has unknown tokens (above 8) in {count} rows" in told[0].err


SCHEMA = {
  "data": "",
  "task": "regression",
  "num_outputs": 1,
  "class_names": [],
  "scaler": data.Scaler({}, {}, ("s",)).to_json(),
  "inputs": {"s": {"shape": [3, 2], "largest": None, "length": True}},
}


def test_shorter_sequences_are_padded_and_longer_ones_refused():
  values = np.arange(8.0, dtype=np.float32).reshape(2, 2, 2)
  want = SCHEMA["inputs"]["s"]
  fitted = _new_rows._fitted("s", core.Sequence(values, np.int32([2, 1])), np.ones(2, bool), want)
  assert fitted.values.shape == (2, 3, 2) and list(fitted.length) == [2, 1]
  np.testing.assert_array_equal(fitted.values[:, :2], values)
  whole = _new_rows._fitted(
    "s", values, np.array([True, False]), want
  )  # without lengths: all steps
  assert list(whole.length) == [2, 0]
  with pytest.raises(UsageError, match="'s' has rows of 4 steps, the run was trained on at most 3"):
    _new_rows._fitted("s", np.zeros((2, 4, 2), np.float32), np.ones(2, bool), want)
  with pytest.raises(UsageError, match=r"rows of shape \[3, 5\], the run was trained on \[3, 2\]"):
    _new_rows._fitted("s", np.zeros((2, 3, 5), np.float32), np.ones(2, bool), want)
  plain = {"shape": [2, 2], "largest": None}
  early = core.Sequence(values, np.int32([2, 1]))
  with pytest.raises(UsageError, match="rows that end early"):
    _new_rows._fitted("s", early, np.ones(2, bool), plain)
  assert _new_rows._fitted("s", early, np.array([True, False]), plain) is values


def test_a_stand_in_has_the_runs_shapes_and_largest_token():
  words = {"shape": [4], "largest": 8}
  made = _new_rows.stand_in({**SCHEMA, "inputs": {**SCHEMA["inputs"], "w": words}}, {})
  assert made.train.inputs["s"].values.shape == (2, 3, 2) and made.test is None
  assert made.train.inputs["w"].dtype == np.int32 and (made.train.inputs["w"] == 8).all()


def test_regression_is_predicted_in_the_unit_of_the_file():
  target = {"mean": [100.0, 0.0], "std": [10.0, 2.0]}
  logits = np.array([[0.5, 1.0], [-1.0, 0.0]])
  np.testing.assert_allclose(_predict._in_unit(logits, target), [[105.0, 2.0], [90.0, 0.0]])
  assert _predict._in_unit(logits, None) is logits


def test_a_run_of_another_version_and_an_edited_method_are_refused(finished, place):
  shutil.copytree(finished.run, place / "run")
  _new(place / "new.npz")
  ask = lambda *argv: call(place, "predict", "run", "--data", "new.npz", *argv)
  assert ask("--method", "twin").code == 0
  (place / "mine.py").write_text(MINE + "\n# edited\n")
  assert ask("--method", "joint").code == 0
  said = ask("--method", "twin")
  assert said.code == 2 and "twin is another method than in the run" in said.err
  info = json.loads((place / "run" / "run.json").read_text())
  (place / "run" / "run.json").write_text(json.dumps({**info, "format": 2}))
  said = ask("--method", "joint")
  assert said.code == 2 and "written by another version of mmfuse" in said.err


def test_multi_label_probabilities_and_regression_values_as_csv():
  schema = {"task": "multilabel", "class_names": ["cat", "dog"]}
  values = tasks.get("multilabel").probabilities(np.array([[0.0, 200.0], [-1e4, np.log(3.0)]]))
  np.testing.assert_allclose(values, [[0.5, 1.0], [0.0, 0.75]])
  assert _predict._csv(values, schema) == (
    "row,prediction,p_cat,p_dog\n0,dog,0.5,1\n1,dog,0,0.75\n"
  )
  values = tasks.get("regression").probabilities(np.array([[1.5], [-2.0]]))
  assert _predict._csv(values, {"task": "regression", "class_names": []}) == (
    "row,prediction_0\n0,1.5\n1,-2\n"
  )


def test_cite_takes_a_run(finished):
  assert call(finished.folder, "cite", "run") == (0, "% run: nothing to cite\n", "")
