"""Modality valuation: Shapley values row by row, and what is resampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _valuation

from .. import _small


def test_values_by_hand_and_efficient():
  # Rows: both needed; a alone is enough; b misleads.
  values = {("a",): [0, 1, 1], ("b",): [0, 0, 0], ("a", "b"): [1, 1, 0]}
  phi = _valuation.sample_shapley({s: np.array(v) for s, v in values.items()}, ("a", "b"))
  np.testing.assert_allclose(phi["a"], [0.5, 1.0, 0.5])
  np.testing.assert_allclose(phi["b"], [0.5, 0.0, -0.5])


def test_three_modalities_are_efficient_and_symmetric():
  rng = np.random.default_rng(0)
  names = ("a", "b", "c")
  values = {
    s: rng.integers(0, 2, 9)
    for s in [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), names]
  }
  phi = _valuation.sample_shapley(values, names)
  np.testing.assert_allclose(sum(phi.values()), values[names])
  values[("b",)], values[("b", "c")] = values[("a",)], values[("a", "c")]
  phi = _valuation.sample_shapley(values, names)
  np.testing.assert_allclose(phi["a"], phi["b"], atol=1e-12)


def test_copies_skip_the_boundaries():
  phi = np.array([1.0, 0.5, 0.4, 0.0, -0.1, -0.5])
  assert _valuation.copies_by_value(phi).tolist() == [0, 1, 0, 2, 0, 3]


@pytest.mark.parametrize(
  "means, want",
  [
    ({"a": 0.6, "b": 0.3}, 0.4),
    ({"a": 0.4}, 0.0),
    # |gaps| of three pairs .3 + .6 + .3, both ways round, over 2
    ({"a": 0.6, "b": 0.3, "c": 0.0}, 0.8),
    ({"a": 2.0, "b": -1.0}, 1.0),
  ],
)
def test_resampled_share(means, want):
  assert _valuation.resampled_share(means) == pytest.approx(want)


def make(build, **options):
  method = build(_small.model(), **options)
  state = method.phases[0].begin(_small.start(method), _small.hooks(), None, _small.hour())
  return method.phases[0], state


def table(state, **copies):
  old = state.memory["valuation"]
  new = {
    m: jnp.zeros(_small.ROWS, jnp.int8)
    .at[jnp.array(list(rows))]
    .set(jnp.array(list(rows.values()), jnp.int8))
    for m, rows in copies.items()
  }
  return train.remember(state, valuation={**old, "copies": {**old["copies"], **new}})


def test_first_epoch_has_every_row_once():
  phase, state = make(METHODS["valuation_sample"])
  index, keep = phase.rows(state, _small.hooks(), jax.random.key(0), _small.hour())
  assert sorted(index.tolist()) == list(range(_small.ROWS))
  assert all(k.all() for k in keep.values())


def test_copies_show_one_modality():
  phase, state = make(METHODS["valuation_sample"], grow=True)
  index, keep = phase.rows(
    table(state, a={3: 2}, b={5: 1}), _small.hooks(), jax.random.key(0), _small.hour()
  )
  assert index[_small.ROWS :].tolist() == [3, 3, 5]
  assert keep["a"][_small.ROWS :].tolist() == [True, True, False]
  assert keep["b"][_small.ROWS :].tolist() == [False, False, True]
  assert keep["a"][: _small.ROWS].all() and keep["b"][: _small.ROWS].all()


def test_an_epoch_has_as_many_rows_as_the_training_set():
  phase, state = make(METHODS["valuation_sample"])
  state = table(state, a=dict.fromkeys(range(_small.ROWS), 3))
  index, keep = phase.rows(state, _small.hooks(), jax.random.key(0), _small.hour())
  assert len(index) == len(keep["a"]) == _small.ROWS
  assert 0 < (~keep["b"]).sum() < _small.ROWS
  again, _ = phase.rows(state, _small.hooks(), jax.random.key(1), _small.hour())
  assert index.tolist() != again.tolist()


@pytest.mark.parametrize("build", [METHODS["valuation_sample"], METHODS["valuation_modality"]])
def test_absent_modalities_are_never_shown_alone(build):
  phase, state = make(build, grow=True)
  after = phase.epoch_end(state, _small.hooks(), jax.random.key(0), _small.hour())
  split = _small.splits().train
  copies = {m: np.asarray(c)[: _small.ROWS] for m, c in after.memory["valuation"]["copies"].items()}
  for m, c in copies.items():
    assert not c[~split.mask[m]].any()
  if build is METHODS["valuation_modality"]:
    assert sum(c.any() for c in copies.values()) <= 1 and max(c.max() for c in copies.values()) <= 1
  else:
    # An untrained model: some row is not right by either modality alone.
    assert max(c.max() for c in copies.values()) >= 2


def test_correctness_of_a_row_without_the_subset_is_zero():
  _, state = make(METHODS["valuation_sample"])
  split = _small.splits().train
  right = train.over_split(_valuation._Correct(_small.model()), state, split)
  assert right.shape == (_small.ROWS, 3) and right.any()
  assert not right[~split.mask["a"], 0].any() and not right[~split.mask["b"], 1].any()


def test_refusals():
  with pytest.raises(ValueError, match=r"part_ratio must lie in \(0, 1\], got 0"):
    METHODS["valuation_modality"](_small.model(), part_ratio=0)
  method = METHODS["valuation_sample"](_small.model())
  nine = type(_small.model())({f"m{i}": _small.model().encoders["a"] for i in range(9)}, 3)
  with pytest.raises(Unavailable, match="9 modalities are more than 8"):
    METHODS["valuation_sample"](nine)
  split = _small.hooks()["train"].replace(label=np.zeros(_small.ROWS, np.float32))
  method = METHODS["valuation_sample"](_small.model())
  with pytest.raises(Unavailable, match="one class per row"):
    method.phases[0].begin(_small.start(method), {"train": split}, None, _small.hour())
