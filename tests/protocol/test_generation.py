"""Data without labels go through the whole comparison under a task that needs none."""

import json
import pathlib

import numpy as np
import pytest

from mmfuse import data, protocol
from mmfuse.protocol import _generation, _notes, _rows
from tests.open import vae

from ._helpers import QUICK, arrays, call, quick

OWN = """

def vae(model, learning_rate=0.01, *, tx=None):
  return method(learning_rate)
"""


def test_a_row_of_ones_own_is_judged_by_its_elbo_and_rows_with_labels_say_why_not(tmp_path):
  rng = np.random.default_rng(0)
  z = rng.normal(size=(60, 2))
  np.savez(tmp_path / "my.npz", **{m: z @ rng.normal(size=(2, d)) for m, d in (("a", 5), ("b", 3))})
  (tmp_path / "mine.py").write_text(pathlib.Path(vae.__file__).read_text() + OWN)
  said = call(
    tmp_path,
    *("compare", "--data", "my.npz", "--task", "generation", "--out", "run"),
    *("--methods", "joint,mine.py:vae", "--scale", "a=raw", *QUICK),
  )
  assert said.code == 0 and "joint: n/a: needs classification" in said.out
  (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
  assert record["metric"] == "elbo" and np.isfinite(record["test"]["fused"])
  assert json.loads((tmp_path / "run" / "baselines.json").read_text()) == []
  refused = call(tmp_path, "predict", "run", "--data", "my.npz")
  assert refused.code == 2 and "has no labels (task generation)" in refused.err
  forgotten = call(tmp_path, "compare", "--data", "my.npz", "--methods", "joint", *QUICK)
  assert forgotten.code == 2 and "--task generation" in forgotten.err


@pytest.mark.slow  # half a minute: two commands, and classifiers that say what is seen
def test_vaes_are_judged_by_one_score_and_generate_what_is_not_there(tmp_path, monkeypatch):
  quick(monkeypatch)
  np.savez(tmp_path / "my.npz", **arrays())
  said = call(
    tmp_path,
    *("compare", "--data", "my.npz", "--task", "generation", "--out", "run", *QUICK),
    *("--methods", "joint,mdrnn,mvae", "--scale", "a=raw", "--likelihood", "b=laplace:.75"),
    *("--encoder", "a=linear", "b=linear", "--set", "mvae.num_latent=2"),
  )
  assert said.code == 0, said.err
  assert "joint: n/a: needs " in said.out and "mdrnn: n/a: needs " in said.out
  assert "normal(1) of a (as it is); laplace(0.75) of b (standardised)" in said.out
  (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
  scores = record["scores"]["test"]
  assert scores["elbo"] < scores["iwae"] and 0 <= scores["coherence/1"] <= 1
  assert {"probe/a", "probe/b", "reconstruction/a", "reconstruction/b"} <= set(scores)
  page = (tmp_path / "run" / "index.html").read_text()
  assert "IWAE(64) in nats" in page and "coherence given 1" in page
  _generates(tmp_path)


def _generates(place):
  """Arrays in the unit of the data, the same again from the same seed; else one sentence."""
  np.savez(place / "new.npz", a=arrays()["a"][:5])
  run = lambda *words: call(place, "generate", "run", *words)
  ask = ("--from", "a", "--data", "new.npz")
  for out, more in (("one", ()), ("again", ()), ("other", ("--seed", "1"))):
    assert run(*ask, "--to", "b", "--samples", "3", "--out", out, *more).code == 0
  one, again, other = (np.load(place / f"{n}.npz") for n in ("one", "again", "other"))
  assert set(one) == {"b"} and one["b"].shape == (5, 3, 4)
  np.testing.assert_array_equal(one["b"], again["b"])
  assert not np.array_equal(one["b"], other["b"])
  assert run("--samples", "2", "--out", "prior").code == 0
  assert {m: x.shape for m, x in np.load(place / "prior.npz").items()} == {
    "a": (1, 2, 4),
    "b": (1, 2, 4),
  }
  for words, sentence in (
    ((*ask, "--out", "one"), "'one.npz' exists"),
    (("--from", "z", "--data", "new.npz"), "--from names 'z', which is no modality of the run"),
    ((*ask, "--to", "z"), "--to names 'z'"),
    (("--from", "a"), "--from and --data go together"),
    ((*ask, "--method", "mvea"), "no method 'mvea'; closest: mvae"),
    ((*ask, "--samples", "0"), "--samples must be at least 1"),
    (("--from", "b", "--data", "new.npz"), "the file has no modality of the run"),
  ):
    refused = run(*words)
    assert refused.code == 2 and sentence in refused.err and refused.err.count("\n") == 1


def test_likelihoods_are_of_all_modalities_or_of_each():
  ask = lambda *words: _generation.likelihoods(protocol.Compare(likelihood=words), ("a", "b"))
  assert ask() == "auto" and ask("laplace:.75") == "laplace:.75"
  assert ask("a=bernoulli b=normal:2") == {"a": "bernoulli", "b": "normal:2"}
  for words, sentence in (
    (("gauss",), "unknown likelihood 'gauss'"),
    (("bernoulli:2",), "normal:scale, laplace:scale; got 'bernoulli:2'"),
    (("c=normal",), "'c', which is no modality"),
    (("normal", "a=laplace"), "one word for all modalities or name=word"),
  ):
    with pytest.raises(protocol.UsageError, match=sentence):
      ask(*words)


def test_what_is_a_picture():
  assert _generation.picture(np.zeros(9)).shape == (3, 3)
  assert _generation.picture(np.zeros((4, 5, 1))).shape == (4, 5)
  assert _generation.picture(np.zeros((4, 5, 3))).shape == (4, 5, 3)
  assert (
    _generation.picture(np.zeros(8)) is None and _generation.picture(np.zeros((2, 2, 2))) is None
  )
  assert _generation.pictures(np.zeros((2, 8))) == []


def test_coherence_by_hand(monkeypatch):
  """Three modalities; what is made of `a` for `b` is wrong in one of four rows, all else is right."""
  label = np.array([0, 1, 0, 1], np.int32)
  mask = {m: np.ones(4, bool) for m in "abc"}
  split = data.Split({m: np.zeros((4, 1)) for m in "abc"}, label, mask, np.arange(4))

  class Seen:
    def classes(self, m, x, split):
      return x

  def made(method, state, split, given):
    wrong = given == ("a",)
    return {m: np.where((np.arange(4) == 0) & wrong & (m == "b"), 1, label) for m in "abc"}

  monkeypatch.setattr(_generation, "generated", made)
  found = _generation.coherence(None, None, split, Seen())
  assert found == {"coherence/1": 1 - 0.25 / 6, "coherence/2": 1.0}


def test_rows_that_learn_from_complete_rows_say_how_many_there_are():
  made = arrays(mask_a=np.arange(80) % 4 > 0)
  splits = {None: data.from_arrays(made)}
  cfg = protocol.Compare(methods=("joint,jmvae,mmiai,mvae",))
  rows, _ = _rows.make_rows(cfg, ("a", "b"), "classification")
  whole = int(splits[None].train.mask["a"].sum())
  (said,) = _notes.on_complete_rows(rows, splits)
  assert said == f"jmvae, mmiai learn from training rows that have all modalities: {whole} of 48"
  assert _notes.on_complete_rows(rows, {None: data.from_arrays(arrays())}) == []
  assert _notes.on_complete_rows(rows[:1], splits) == []
