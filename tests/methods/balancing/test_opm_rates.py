"""Drop rates of OPM by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.balancing import _opm_rates


def rates(values, **options):
  names = "abcde"[: len(values)]
  found = _opm_rates.opm_drop_rates({m: jnp.float32(v) for m, v in zip(names, values)}, **options)
  return [float(found[m]) for m in names]


def q(ratio, base=0.4, alpha=0.5):
  return base * (1 + alpha * np.tanh(ratio - 1))


@pytest.mark.parametrize(
  "values, want",
  [
    ((0.6, 0.3), (q(2), 0.0)),
    ((0.3, 0.6), (0.0, q(2))),
    ((0.5, 0.5), (0.0, 0.0)),
    ((0.5,), (0.0,)),
    ((0.5, 0.0), (0.0, 0.0)),  # an absent modality is no rival
    ((0.6, 0.3, 0.1), (q(3), 0.0, 0.0)),
    ((0.6, 0.3, 0.0), (q(2), 0.0, 0.0)),
    ((0.0, 0.0), (0.0, 0.0)),
  ],
)
def test_clean_rule(values, want):
  np.testing.assert_allclose(rates(values), want, rtol=1e-4, atol=1e-7)


def test_released_code_divides_in_place():
  # The first ratio is 2; the second score is then divided by that 2, not by .6.
  np.testing.assert_allclose(rates((0.6, 0.3), variant="released"), [q(2), 0.0], rtol=1e-4)
  # .1 / 1 = .1, then 1 / .1 = 10: both sides see another table.
  np.testing.assert_allclose(rates((0.1, 1.0), variant="released"), [0.0, q(10)], rtol=1e-3)
  # (.6 / .4), then .3 / (1.5 + .1), then .1 / (1.5 + .1875)
  np.testing.assert_allclose(rates((0.6, 0.3, 0.1), variant="released"), [q(1.5), 0, 0], rtol=1e-3)


def test_rates_are_clipped_to_probabilities():
  assert rates((0.9, 0.1), q_base=0.9, alpha=1.0) == [1.0, 0.0]


@pytest.mark.parametrize(
  "options, message",
  [
    ({"q_base": 1.5}, r"q_base must lie in \[0, 1\]"),
    ({"alpha": -1}, "alpha must not be negative"),
    ({"variant": "buggy"}, "unknown variant 'buggy'"),
  ],
)
def test_bad_settings_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    rates((0.1, 0.2), **options)
