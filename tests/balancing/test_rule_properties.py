"""Rules x properties on problems with known answers: what is promised is measured."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import rule_properties as page
from mmfuse import balancing

_measure = functools.cache(lambda name: page.measure(page.RULES[name][0]))


@pytest.mark.parametrize("name", page.RULES)
def test_promises_hold(name):
  """One compilation a rule."""
  measured = _measure(name)
  assert set(measured) == set(page.PROPERTIES)
  broken = {
    p: measured[p] for p in page.RULES[name][1] if not page.PROPERTIES[p].holds(measured[p])
  }
  assert not broken, f"{name} promises what it does not keep: {broken}"


def test_the_measures_can_fail():
  """The plain sum descends no worst objective, follows the largest loss, and is not convex."""
  measured = _measure("uniform")
  for name in ("descends", "scale", "simplex"):
    assert not page.PROPERTIES[name].holds(measured[name]), name
  for name in ("mimo", "pcgrad", "gradvac"):
    assert not page.PROPERTIES["permutation"].holds(_measure(name)["permutation"]), name
  assert not page.PROPERTIES["plain_sum"].holds(_measure("nash_mtl")["plain_sum"])


class StillState(NamedTuple):
  weights: jax.Array


def test_a_rule_that_stands_still_or_breaks_is_noticed():
  def still(num):
    def update(updates, state, params=None, *, present, **extra_args):
      broken = jnp.where(present.all(), 0.0, jnp.nan)
      return {"a": 0.0 * updates["a"][0]}, StillState(state.weights + broken)

    return balancing.Aggregator(lambda params: StillState(jnp.ones(num)), update)

  measured = page.measure(still)
  assert not page.PROPERTIES["pareto"].holds(measured["pareto"])
  assert not page.PROPERTIES["finite"].holds(measured["finite"])


def test_a_weight_for_an_absent_objective_is_noticed():
  def rude(num):
    def weigh(losses, state, params=None, **extra_args):
      return jnp.ones(num), state

    return balancing.Weighting(lambda params: StillState(jnp.ones(num)), weigh)

  # Three of the seven edges lack an objective.
  assert page.measure(rude)["finite"] == pytest.approx(4 / 7)


def test_the_problems_are_what_they_say():
  sums = {name: page._gradients(page.stack(group)) for name, group in page.PROBES.items()}
  products = np.einsum("nkd,njd->nkj", sums["acute"], sums["acute"])
  assert products.min() >= 0
  assert np.einsum("nkd,njd->nkj", sums["plain"], sums["plain"]).min() < 0
  pair = page.stack([page.RUNS["conflicting pair"]])
  on, off = np.zeros((1, page.DIM)), np.eye(page.DIM)[1:2] * 0.5
  assert page.stationarity(on, pair) == pytest.approx(0, abs=1e-6)
  assert page.stationarity(off, pair) == pytest.approx(0.5)  # distance to the segment


def test_the_page_lists_every_rule_and_promise():
  rows = {line.split("`")[1]: line for line in page.PAGE.read_text().splitlines() if "| `" in line}
  assert list(rows) == list(page.RULES), "run python -m experiments.rule_properties"
  for name, (_, promised) in page.RULES.items():
    cells = rows[name].split("|")[2:-1]
    bold = {p for p, cell in zip(page.PROPERTIES, cells) if "**" in cell}
    assert bold == promised, f"{name}: run python -m experiments.rule_properties"
    assert "**no**" not in rows[name]
