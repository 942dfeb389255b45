"""A likelihood whose noise drowns the rows is said before anything is trained."""

import types

import numpy as np
import pytest

from mmfuse import data
from mmfuse.protocol import _worth
from mmfuse.protocol._config import UsageError


@pytest.mark.parametrize("shape", [(400, 6), (40, 90)])
def test_the_worth_of_a_latent_is_the_gain_of_probabilistic_pca(shape):
  """Against log N(x; mean, C) with its best C = W W^T + 1, from the eigenvectors and not the formula."""
  rng = np.random.default_rng(0)
  x = 0.5 * rng.normal(size=shape) + 3 * rng.normal(size=(shape[0], 1)) * rng.normal(size=shape[1])
  centred = x - x.mean(0)
  values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
  best = (vectors * np.maximum(values, 1)) @ vectors.T

  def log_p(cov):
    away = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(cov), centred)
    return float(np.mean(-0.5 * (away + np.linalg.slogdet(cov)[1])))

  gain = log_p(best) - log_p(np.eye(shape[1]))
  assert gain > 1
  np.testing.assert_allclose(_worth.worth(x), gain, rtol=1e-9)
  assert _worth.worth(0.01 * x) == 0


def _splits(scale):
  rng = np.random.default_rng(0)
  said = rng.normal(size=(60, 1))
  x = {m: scale * (said + 0.1 * rng.normal(size=(60, 5))) for m in ("röntgen", "b")}
  present = np.arange(60) > 6
  x["röntgen"][~present] = np.nan
  given = {**x, "label": rng.integers(0, 2, 60), "mask_röntgen": present}
  return data.from_arrays(given, scale=dict.fromkeys(x, "raw"))


def _notes(splits, *likelihood, needs=("likelihood",)):
  row = types.SimpleNamespace(name="mvae", entry=types.SimpleNamespace(needs=needs))
  return _worth.notes([row], types.SimpleNamespace(likelihood=likelihood), splits)


def test_noise_that_drowns_the_rows_is_said_with_a_smaller_one():
  (note,) = _notes(_splits(0.1), "röntgen=normal:1", "b=normal:9")
  assert "normal(1) of röntgen" in note and "normal(9) of b" in note
  assert "the best linear latent is worth 0.00 nats a row" in note
  assert "--likelihood b=normal:0.08" in note  # of the one that drowns most
  (note,) = _notes(_splits(1.0), "normal:2.2")
  assert "normal(2.2) of b, röntgen" in note and "=normal:0.8, " in note


def test_nothing_is_said_where_a_latent_has_something_to_say_or_nobody_asks():
  assert _notes(_splits(0.1), "normal:.01") == []
  assert _notes(_splits(9.0)) == []
  assert _notes(_splits(0.1), "normal:9", needs=()) == []
  assert _notes(_splits(0.1), "röntgen=normal:9", "b=bernoulli") == []


def test_rows_that_do_not_differ_get_a_sentence_and_no_scale_of_zero():
  splits = _splits(0.0)
  (note,) = _notes(splits)
  assert note.endswith("no value differs between training rows")
  one = splits.train.inputs | {"b": _splits(0.1).train.inputs["b"]}
  moving = splits.with_parts(train=splits.train.replace(inputs=one))
  assert "--likelihood b=normal:0.08" in _notes(moving)[0]


def test_nothing_is_said_of_sequences_of_several_lengths():
  rng = np.random.default_rng(0)
  x = {"gang": 0.01 * rng.normal(size=(40, 9, 3)), "b": 0.01 * rng.normal(size=(40, 2))}
  given = {**x, "length_gang": rng.integers(1, 10, 40), "label": rng.integers(0, 2, 40)}
  splits = data.from_arrays(given, scale=dict.fromkeys(x, "raw"))
  assert _notes(splits) == []


def test_a_likelihood_that_tokens_cannot_have_is_refused_at_the_door():
  rng = np.random.default_rng(0)
  given = {"wörter": rng.integers(0, 5, (40, 7)), "b": rng.normal(size=(40, 2))}
  given["label"] = rng.integers(0, 2, 40)
  splits = data.from_arrays(given, encoders={"wörter": "embedding"})
  with pytest.raises(UsageError, match=r"'wörter' holds tokens.*name=word"):
    _notes(splits, "normal:9")
  assert _notes(splits, "b=normal:9") == []  # of tokens nothing is said
