"""Re-learning: purity and clusters by hand, when and how far encoders go back."""

import jax
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _relearning

from .. import _small
from . import _modulated


def test_purity_by_hand():
  label = np.array([0, 0, 1, 1, 2, 2])
  assert _relearning.purity(label, label) == 1.0
  assert _relearning.purity(label, np.zeros(6, int)) == pytest.approx(1 / 3)
  assert _relearning.purity(label, np.array([0, 0, 0, 1, 1, 1])) == pytest.approx(4 / 6)
  assert np.isnan(_relearning.purity(label[:0], label[:0]))


def test_weight_by_hand():
  assert _relearning.reinit_weight(0.9, 0.7) == pytest.approx(np.tanh(0.6))
  assert _relearning.reinit_weight(0.7, 0.9, 1.0) == pytest.approx(np.tanh(0.2))
  assert _relearning.reinit_weight(0.9, float("nan")) == 0.0


def test_separated_clusters_are_found():
  rng = np.random.default_rng(0)
  label = np.arange(60) % 3
  points = np.eye(3)[label] * 20 + rng.normal(size=(60, 3))
  found = _relearning.k_means(points, 3, np.random.default_rng(1))
  assert _relearning.purity(label, found) == 1.0
  again = _relearning.k_means(points, 3, np.random.default_rng(1))
  np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("rows", [1, 5])
def test_equal_points_and_more_clusters_than_points(rows):
  found = _relearning.k_means(np.ones((rows, 2)), 8, np.random.default_rng(0))
  assert found.shape == (rows,) and (found == found[0]).all()


def shifted(method):
  """The initial state, with encoders shifted by 1."""
  state = train.initial(method, jax.random.key(0), _modulated.batch(2))
  moved = {m: jax.tree.map(lambda x: x + 1.0, state.params[m]) for m in "ab"}
  return state._replace(params={**state.params, **moved})


@pytest.mark.parametrize(
  ("options", "epoch", "epochs", "due"),
  [
    ({}, 4, 10, True),  # five of ten done
    ({}, 3, 10, False),
    ({}, 0, 2, True),
    ({}, 0, 1, False),  # the end of training
    ({"epochs": (2, 15)}, 14, 30, True),
    ({"epochs": (2, 15)}, 14, 15, False),
  ],
)
def test_encoders_go_back_by_the_purity_gap(options, epoch, epochs, due, monkeypatch):
  gaps = iter([{"a": 0.9, "b": 0.5}, {"a": 0.7, "b": 0.5}])
  monkeypatch.setattr(_relearning, "modality_purities", lambda *args: next(gaps))
  method = METHODS["relearning"](_modulated.model(2), **options)
  before, nothing = shifted(method), {"train": None, "validation": None}
  hour = _modulated.hour(epoch + 1, epochs)
  after = method.phases[0].epoch_end(before, nothing, jax.random.key(0), hour)
  w = np.tanh(0.6) if due else 0.0
  first = before.memory["relearning"]["initial"]
  for m, share in (("a", w), ("b", 0.0)):
    jax.tree.map(
      lambda i, b, a, s=share: np.testing.assert_allclose(a, s * i + (1 - s) * b, atol=1e-6),
      first[m],
      before.params[m],
      after.params[m],
    )
  assert float(after.memory["relearning"]["weights"]["a"]) == pytest.approx(w)


@pytest.mark.slow
def test_fits_with_missing_entries():
  state, log = _modulated.fitted(METHODS["relearning"](_modulated.model(2), 0.1), epochs=3)
  weights = {m: float(w) for m, w in state.memory["relearning"]["weights"].items()}
  assert _modulated.finite(state.params) and all(0 <= w < 1 for w in weights.values())
  assert max(weights.values()) > 0
  losses = _modulated.fused_losses(log)
  assert losses[-1] < losses[0]


def test_a_modality_alone_and_labels():
  method = METHODS["relearning"](_modulated.model(1))
  given = _modulated.splits(1)
  state = train.initial(method, jax.random.key(0), _modulated.batch(1))
  method.phases[0].begin(state, _modulated.hooks(given), jax.random.key(0), _modulated.hour())
  got = _relearning.modality_purities(method, state, given.train, np.random.default_rng(0))
  assert set(got) == {"a"} and 1 / 3 <= got["a"] <= 1
  with pytest.raises(Unavailable, match="needs a validation split"):
    method.phases[0].begin(
      state, _modulated.without_validation(given), jax.random.key(0), _modulated.hour()
    )
  wrong = given.train.replace(label=given.train.label.astype(np.float32))
  with pytest.raises(ValueError, match="one integer per row"):
    method.phases[0].begin(
      state,
      {"train": wrong, "validation": given.validation},
      jax.random.key(0),
      _modulated.hour(),
    )


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"strength": -1.0}, "strength"),
    ({"at": (0.2, 0.4, 0.6)}, "at most two"),
    ({"at": (1.0,)}, "shares"),
    ({"epochs": (0,)}, "numbers of epochs"),
  ],
)
def test_impossible_options(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS["relearning"](_modulated.model(2), **options)


@pytest.mark.parametrize("hide", ["mask", "labelled"])
def test_a_part_without_a_modality_or_a_label_has_no_purity(hide):
  method = METHODS["relearning"](_small.model(2))
  split = _small.splits(2).validation
  if hide == "mask":
    split = split.replace(mask={**split.mask, "b": np.zeros(12, bool)})
  else:
    split = split.replace(labelled=~split.mask["b"])
  found = _relearning.modality_purities(
    method, _small.start(method), split, np.random.default_rng(0)
  )
  assert np.isnan(found["b"]) and 0 < found["a"] <= 1
  assert _relearning.reinit_weight(found["a"], found["b"]) == 0
