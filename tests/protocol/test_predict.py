"""Predictions for new rows from a finished run."""

import csv
import json

import jax
import numpy as np
import pytest

from mmfuse import data, train
from mmfuse.protocol import _predict
from mmfuse.protocol._config import Compare
from mmfuse.protocol._rows import make_model, make_rows
from mmfuse.protocol._search import Trial

from ._helpers import QUICK, arrays, call, records


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
  part = data.Split({m: scale(m) for m in "ab"}, np.zeros(7, np.int32),
                    {m: np.ones(7, bool) for m in "ab"}, np.arange(7), None)  # fmt: skip
  record = next(r for r in records(finished.run) if r["method"] == "uniform" and r["seed"] == 2)
  splits = finished.fits[0]["splits"]
  (row,) = make_rows(Compare(methods=("uniform",)), "ab", "classification")[0]
  method = row.build(Compare(), make_model(splits, "concat"), Trial(0.03))
  template = jax.eval_shape(method.init, jax.random.key(0), train.to_batch(part))
  weights = finished.run / "runs" / "uniform" / f"seed2-lr{record['learning_rate']:g}.safetensors"
  logits = train.predict_split(method, train.load_weights(weights, template), part).logits
  chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(shown, chance, atol=2e-6)


def test_the_default_is_the_best_row_by_validation_and_its_first_seed(finished):
  found = records(finished.run)
  names = list(dict.fromkeys(r["method"] for r in found))
  mean = lambda n: np.mean([r["validation"]["fused"] for r in found if r["method"] == n])
  best = max(names, key=mean)
  _, said = _predict_new(finished)
  _, named = _predict_new(finished, "--method", best, "--seed", 0)
  assert said.code == 0 and said.out == named.out


def test_a_diverged_run_is_never_the_default():
  def record(name, score):
    return {"method": name, "seed": 0, "fold": None, "validation": {"fused": score}}

  assert _predict._pick([record("x", None), record("y", 0.1)], None, None)["method"] == "y"


def test_where_a_mask_says_absent_the_value_is_not_read(finished):
  mask = np.arange(7) != 3
  broken = np.where(mask[:, None], 0.5, np.nan) * np.ones(4)
  _, with_nan = _predict_new(finished, "--method", "joint", b=broken, mask_b=mask)
  _, with_zero = _predict_new(
    finished, "--method", "joint", b=np.nan_to_num(broken), mask_b=mask)  # fmt: skip
  _, present = _predict_new(finished, "--method", "joint", b=np.full((7, 4), 0.5))
  assert with_nan.code == 0 and with_nan.out == with_zero.out
  differ = [i for i, (x, y) in enumerate(zip(with_nan.out.splitlines()[1:],
                                             present.out.splitlines()[1:])) if x != y]  # fmt: skip
  assert differ == [3]


def test_label_split_and_other_arrays_are_ignored(finished):
  _, plain = _predict_new(finished, "--method", "joint")
  _, more = _predict_new(finished, "--method", "joint", label=np.zeros(7), extra=np.ones(3))
  assert more.out == plain.out


def test_a_file_is_written_once(finished, tmp_path):
  target = tmp_path / "p.csv"
  _, said = _predict_new(finished, "--method", "joint", "--out", target)
  _, shown = _predict_new(finished, "--method", "joint")
  assert said.code == 0 and not said.out and target.read_text() == shown.out
  _, again = _predict_new(finished, "--method", "joint", "--out", target)
  assert again.code == 2 and "nothing is overwritten" in again.err


@pytest.mark.parametrize("changes, argv, words", [
  ({"a": np.ones((7, 5))}, (), ("'a'", "[5]", "[4]")),
  ({"a": np.ones((7, 4, 2))}, (), ("'a'", "[4, 2]", "[4]")),
  ({"b": None}, (), ("'b' is not among the arrays",)),
  ({"b": np.ones((6, 4))}, (), ("'b' has 6 rows", "7")),
  ({"a": np.full((7, 4), np.nan)}, (), ("'a'", "row 0")),
  ({"mask_a": np.arange(7) > 1, "mask_b": np.arange(7) > 0}, (),
   ("1 of 7 rows have no modality present", "row 0")),
  ({}, ("--method", "jont"), ("no method 'jont'", "joint")),
  ({}, ("--seed", "9"), ("--seed 9 was not run", "0, 1, 2")),
])  # fmt: skip
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
  words[0] = 8  # the largest token is in a training row
  kept = {name: made[name] for name in ("label", "split", "a")}
  np.savez(place / "words.npz", **kept, words=words, mask_words=rng.random(80) > 0.1)
  argv = ("--methods", "joint", "--encoder", "words=embedding", *QUICK)
  assert call(place, "compare", "--data", "words.npz", *argv, "--out", "run").code == 0
  schema = json.loads((place / "run" / "schema.json").read_text())
  assert schema["inputs"]["words"] == {"shape": [3], "largest": 8}
  new = {"a": made["a"][:4], "words": words[:4]}
  np.savez(place / "new.npz", **new)
  said = call(place, "predict", "run", "--data", "new.npz")
  assert said.code == 0 and len(said.out.splitlines()) == 5
  np.savez(place / "new.npz", a=new["a"], words=new["words"] + 4)
  said = call(place, "predict", "run", "--data", "new.npz")
  assert said.code == 2 and "has the token 12, the run knows 0 to 8" in said.err


def test_multi_label_probabilities_and_regression_values_as_csv():
  schema = {"task": "multilabel", "class_names": ["cat", "dog"]}
  values = _predict._probabilities(np.array([[0.0, 200.0], [-1e4, np.log(3.0)]]), "multilabel")
  np.testing.assert_allclose(values, [[0.5, 1.0], [0.0, 0.75]])
  assert _predict._csv(values, schema) == (
    "row,prediction,p_cat,p_dog\n0,dog,0.5,1\n1,dog,0,0.75\n")  # fmt: skip
  values = _predict._probabilities(np.array([[1.5], [-2.0]]), "regression")
  assert _predict._csv(values, {"task": "regression", "class_names": []}) == (
    "row,prediction_0\n0,1.5\n1,-2\n")  # fmt: skip


def test_cite_takes_a_run(finished):
  assert call(finished.folder, "cite", "run") == (0, "% run: nothing to cite\n", "")
