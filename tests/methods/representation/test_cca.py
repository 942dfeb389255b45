"""Canonical correlation: known correlations, more than two sets, absent rows, wide inputs."""

import jax
import numpy as np
import pytest

from mmfuse import core, data, train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.representation import _canonical

from .. import _small

RNG = np.random.default_rng(0)


def views(rows=4000, rho=(0.9, 0.5), extra=2, turn=True):
  """{a, b}: `rho` correlations between them, then columns of their own; each turned at random."""
  z, k = RNG.normal(size=(rows, len(rho))), len(rho)
  r = np.asarray(rho)
  a = np.hstack([z, RNG.normal(size=(rows, extra))])
  b = np.hstack(
    [r * z + np.sqrt(1 - r**2) * RNG.normal(size=(rows, k)), RNG.normal(size=(rows, extra))]
  )
  mix = lambda x: x @ RNG.normal(size=(x.shape[1],) * 2) + 3.0 if turn else x
  return {"a": mix(a), "b": mix(b)}


def every(x):
  return {m: np.ones(len(v)) for m, v in x.items()}


def variates(maps, x):
  return {m: (x[m] - v.mean) @ v.kernel for m, v in maps.items()}


def test_two_sets_have_their_canonical_correlations():
  x = views()
  maps = _canonical.canonical_maps(x, every(x), 3, 0.0)
  found = variates(maps, x)
  for i, rho in enumerate((0.9, 0.5)):
    assert np.corrcoef(found["a"][:, i], found["b"][:, i])[0, 1] == pytest.approx(rho, abs=0.04)
    assert found["a"][:, i].std() * 2**0.5 == pytest.approx(rho, abs=0.04)  # scaled by it
  between = found["a"].T @ found["b"] / len(x["a"])
  assert np.abs(between - np.diag(np.diag(between))).max() < 1e-10


def test_scale_and_mean_of_the_inputs_do_not_matter_to_the_angles():
  x = views(300)
  moved = {"a": 50 * x["a"] - 7, "b": x["b"]}
  for ridge in (0.0, 0.1):
    plain = variates(_canonical.canonical_maps(x, every(x), 2, ridge), x)
    other = variates(_canonical.canonical_maps(moved, every(x), 2, ridge), moved)
    for m in "ab":
      np.testing.assert_allclose(plain[m], other[m], atol=1e-8)


def test_a_third_set_finds_what_all_share():
  z = RNG.normal(
    size=2000
  )  # in all three; a and b share something else too, c has noise of its own
  own = lambda n: RNG.normal(size=(2000, n))
  noisy = lambda of: of + 0.5 * RNG.normal(size=2000)
  pair = RNG.normal(size=2000)
  x = {
    "a": np.column_stack([noisy(z), noisy(pair), own(1)]),
    "b": np.column_stack([own(1), noisy(z), noisy(pair)]),
    "c": np.column_stack([own(2), noisy(z)]),
  }
  found = variates(_canonical.canonical_maps(x, every(x), 2, 0.01), x)
  for m in "abc":
    assert abs(np.corrcoef(found[m][:, 0], z)[0, 1]) > 0.85
  assert abs(np.corrcoef(found["a"][:, 1], pair)[0, 1]) > 0.85


def test_a_row_that_lacks_one_counts_for_the_other_alone():
  x = views(400)
  weight = every(x)
  weight["b"][200:] = 0
  garbage = {"a": x["a"], "b": np.where(weight["b"][:, None] > 0, x["b"], 0.0)}
  maps = _canonical.canonical_maps(garbage, weight, 2, 0.1)
  np.testing.assert_allclose(maps["a"].mean, x["a"].mean(0))
  np.testing.assert_allclose(maps["b"].mean, x["b"][:200].mean(0))
  twice = {m: np.repeat(v, 2, 0) for m, v in garbage.items()}
  doubled = _canonical.canonical_maps(
    twice, {m: np.repeat(w, 2) for m, w in weight.items()}, 2, 0.1
  )
  heavy = _canonical.canonical_maps(garbage, {m: 2 * w for m, w in weight.items()}, 2, 0.1)
  for other in (doubled, heavy):
    for m in "ab":
      np.testing.assert_allclose(maps[m].kernel, other[m].kernel, atol=1e-9)
  nobody = {"a": (np.arange(400) < 200) * 1.0, "b": (np.arange(400) >= 200) * 1.0}
  with pytest.raises(Unavailable, match="no training row has"):
    _canonical.canonical_maps(x, nobody, 2, 0.1)
  with pytest.raises(Unavailable, match="no modality does"):
    _canonical.canonical_maps(
      {m: np.ones((9, 2)) for m in "ab"}, dict.fromkeys("ab", np.ones(9)), 2, 0.1
    )


def test_more_columns_than_rows_and_more_of_both_than_are_decomposed(monkeypatch):
  x = views(60, extra=80)
  tall = _canonical.canonical_maps(x, every(x), 3, 0.3)
  # The same by the covariance of all columns.
  directions, variances = _canonical.principal(x["a"] - x["a"].mean(0))
  inside = (x["a"] - x["a"].mean(0)) @ directions
  np.testing.assert_allclose(inside.T @ inside, np.diag(variances), atol=1e-6 * variances.max())
  assert directions.shape == (82, 59)
  monkeypatch.setattr(_canonical, "MOST", 50)
  monkeypatch.setattr(_canonical, "SKETCH", 59)
  sketched = _canonical.canonical_maps(x, every(x), 3, 0.3)
  for m in "ab":  # the sketch is as wide as the rank
    np.testing.assert_allclose(sketched[m].kernel, tall[m].kernel, atol=1e-6)


def test_the_sign_of_a_variate_is_not_that_of_the_decomposition(monkeypatch):
  """The directions of each modality turned round: the same maps."""
  x = views(60)
  found = _canonical.canonical_maps(x, every(x), 2, 0.1)
  principal = _canonical.principal
  turned = lambda v: ((p := principal(v))[0] * -1.0, p[1])
  monkeypatch.setattr(_canonical, "principal", turned)
  again = _canonical.canonical_maps(x, every(x), 2, 0.1)
  for m in "ab":
    np.testing.assert_allclose(again[m].kernel, found[m].kernel, atol=1e-9)
    assert np.abs(found[m].kernel).max() > 0


def test_fewer_directions_than_components_leave_zeros():
  x = {"a": RNG.normal(size=(50, 1)), "b": RNG.normal(size=(50, 2))}
  maps = _canonical.canonical_maps(x, every(x), 5, 0.1)
  assert maps["b"].kernel.shape == (2, 5) and not maps["b"].kernel[:, 1:].any()


def test_it_reads_sequences_and_refuses_tokens():
  rows, label = 24, np.arange(24) % 3
  length = 1 + np.arange(rows) % 4
  arrays = {
    "a": RNG.normal(size=(rows, 4, 2)),
    "length_a": length,
    "b": RNG.normal(size=(rows, 3)),
    "label": label,
  }
  splits = data.from_arrays(arrays, task="retrieval")
  assert isinstance(splits.train.inputs["a"], core.Sequence)
  method = METHODS["cca"](_small.model(), task="retrieval")
  result = train.fit(method, splits, epochs=1, batch_size=8)
  assert result.states.params["a"]["kernel"].shape == (1, 8, 10) and result.logs[0].examples == 0
  batch = _small.batch()
  tokens = batch._replace(inputs={**batch.inputs, "b": batch.inputs["b"].astype(np.int32)})
  with pytest.raises(Unavailable, match="cca correlates numbers, and 'b' holds int32"):
    method.init(jax.random.key(0), tokens, 6)
