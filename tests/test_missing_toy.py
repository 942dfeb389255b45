"""The tables, the data and the optimiser of `experiments.missing_toy`; that it runs: test_experiments.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _missing_toy as toy
from experiments import missing_toy
from mmfuse import data
from mmfuse.core import Clock


def test_missing_toy_by_hand():
  def trained(*means, hard=None):
    scores = np.repeat(np.asarray(means)[:, None], 7, 1)
    return toy.Trained(scores, hard, 1000, 1.0)

  found = {
    "joint": trained(50.0, 52.0, 54.0),
    "dropout": trained(64.0, 66.5, 68.0),
    "prior": trained(65.0, 66.5, 67.0, hard=np.arange(7)),
  }
  every = missing_toy.contrasts(found)
  assert set(every) == {("dropout", "joint"), ("prior", "dropout")}
  assert every["dropout", "joint"].significant and not every["prior", "dropout"].significant
  said = missing_toy.verdict(found, every)
  assert "| joint | 48-57 | 52.0 | yes |" in said and said.count("yes") == 3
  assert "| dropout less joint | at least 10, beyond noise | +14.2 ± 0.7 | yes |" in said
  worse = {**found, "dropout": trained(50.0, 53.0, 54.0)}
  assert missing_toy.verdict(worse, missing_toy.contrasts(worse)).count("no |") == 2
  table = missing_toy.contrasts_table(every)
  assert "| dropout less joint | +14.2 ± 0.7* |" in table
  assert "| prior less dropout | +0.0 ± 2.5 |" in table
  assert "| prior | 0 | 1 | 2 | 3 | 4 | 5 | 6 |" in missing_toy.hard_table(found)
  assert "| joint | 0.02 | 52.9 ± 2.4 | 52.0 ± 5.0 | 52.0 |" in missing_toy.scores_table(found)


def test_every_difference_of_missing_toy_is_of_two_of_its_rows():
  assert {name for pair in missing_toy.CONTRASTS for name in pair} == set(toy.ROWS)


def test_the_data_of_missing_toy():
  built_in = data.load("digits")
  first, second = toy.make_data(0), toy.make_data(1)
  assert (len(first.train), len(first.test), first.validation) == (700, 1097, None)
  for m, std in (("A", 0.15), ("B", 0.45), ("C", 0.35)):
    whole = np.concatenate([first.train.inputs[m], first.test.inputs[m]])
    np.testing.assert_allclose(whole, built_in.inputs[m], atol=1e-6)  # seed 0 is the set's own
    apart = first.test.inputs[m] - second.test.inputs[m]
    assert apart.std() == pytest.approx(2**0.5 * std, rel=0.02)


def test_the_rate_of_missing_toy_falls_at_three_quarters():
  tx, params = toy.make_tx(0.1), {"w": jnp.ones(2)}
  at = lambda epoch: Clock(*(jnp.int32(v) for v in (0, epoch, 0, 4, 8)))
  step = lambda epoch: tx.update({"w": jnp.ones(2)}, tx.init(params), params, clock=at(epoch))[0]
  # -rate (g + .9 g) of a first step, g with its decay.
  np.testing.assert_allclose(step(5)["w"], -0.1 * 1.9 * 1.0005, rtol=1e-6)
  np.testing.assert_allclose(step(6)["w"], -0.01 * 1.9 * 1.0005, rtol=1e-6)
  assert jax.tree.structure(step(0)) == jax.tree.structure(params)


def test_rows_that_differ_in_their_rate_share_a_program():
  groups = missing_toy.toy.programs(toy.ROWS)
  assert ["hcr_intended", "hcr_intended_fast"] in groups and ["shaspec"] in groups
  assert sorted(name for group in groups for name in group) == sorted(toy.ROWS)
