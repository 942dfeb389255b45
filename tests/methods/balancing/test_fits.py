"""Every method with hooks or a model of its own trains on rows of which a tenth lacks a modality."""

import jax
import numpy as np
import pytest

from .. import _small


def losses(log, phase):
  return [
    sum(float(v) for k, v in entry.items() if k.startswith("loss/"))
    for entry in log.history
    if entry["phase"] == phase
  ]


# A turn of ReconBoost, a phase of UMT and of the probe are single epochs here.
FALLING = {"mmcosine", "lfm", "opm", "amco", "valuation_sample", "valuation_modality"}


@pytest.mark.slow
@pytest.mark.parametrize("name", _small.BUILDERS)
@pytest.mark.parametrize("num", [2, 3])
def test_two_epochs(name, num):
  result = _small.fitted(name, num)
  log = result.logs[0]
  assert log.diverged_at is None
  assert log.examples == 2 * _small.ROWS  # whatever the phases, two epochs are two epochs
  found = losses(log, "train")
  assert np.isfinite(found).all()
  if name in FALLING:
    assert found[-1] < found[0]
  assert all(0 <= e["validation"]["fused"]["accuracy"] <= 1 for e in log.history)


@pytest.mark.parametrize(
  "name", sorted(set(_small.BUILDERS) - {"gblending", "umt", "linear_probe"})
)
@pytest.mark.parametrize("num, absent", [(1, ()), (2, ("b",))])
def test_one_modality_and_one_absent_from_the_batch(name, num, absent):
  """A finite step that does not move what is absent."""
  method = _small.BUILDERS[name](_small.model(num), 0.1)
  state = _small.start(method, num)
  step = jax.jit(method.phases[-1].step)
  after, log = step(state, _small.batch(num, absent), jax.random.key(2), _small.clock(2, 2))
  assert bool(log["finite"]) and _small.finite(after.params)
  for m in absent:
    for old, new in zip(jax.tree.leaves(state.params[m]), jax.tree.leaves(after.params[m])):
      np.testing.assert_array_equal(old, new)
  moved = [
    float(abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (state.params, after.params)))
  ]
  assert max(moved) > 0
