"""The loss against its own sum over all combinations, by hand and in plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, methods, train
from mmfuse.core import Batch, Clock, Outputs, Unavailable
from mmfuse.methods.balancing._tcmax import tcmax_loss
from mmfuse.tree import FUSED

ROWS, CLASSES = 5, 3


def _case(names="ab", *, seed=0, present=1.0, scale=1.0):
  rng = np.random.default_rng(seed)
  split = {m: (scale * rng.normal(size=(ROWS, CLASSES))).astype(np.float32) for m in names}
  mask = {m: rng.random(ROWS) < present for m in names}
  mask[names[0]][:] = True
  label = rng.integers(0, CLASSES, ROWS)
  batch = Batch(
    {m: np.zeros((ROWS, 2), np.float32) for m in names},
    jnp.asarray(label),
    {m: jnp.asarray(v) for m, v in mask.items()},
    jnp.ones(ROWS),
    jnp.arange(ROWS),
  )
  return split, batch


def _loss(split, batch):
  outputs = Outputs(jnp.asarray(sum(split.values())), {}, {}, {"split_logits": dict(split)})
  return tcmax_loss(outputs, batch)[FUSED]


def _by_loops(split, batch):
  """The definition: every combination of rows, one of each modality, every class."""
  weight = np.asarray(batch.weight, np.float64)
  there = {m: [j for j in range(ROWS) if batch.mask[m][j] and weight[j] > 0] for m in split}
  there = {m: rows for m, rows in there.items() if rows}
  total = sum(
    np.exp(sum(np.float64(split[m][j, c]) for m, j in zip(there, rows)))
    for rows in itertools.product(*there.values())
    for c in range(CLASSES)
  )
  count = CLASSES * np.prod([len(rows) for rows in there.values()])
  own = sum(np.float64(z) for z in split.values())[np.arange(ROWS), np.asarray(batch.label)]
  return np.log(total / count) - (weight * own).sum() / weight.sum()


def test_by_hand():
  split, batch = _case()
  one = {m: np.zeros((ROWS, CLASSES), np.float32) for m in split}
  assert _loss(one, batch) == pytest.approx(0.0, abs=1e-6)
  one["a"][:, 0] = np.log(2.0)  # the denominator's mean of exp f is (2 + 1 + 1) / 3
  first = batch._replace(label=jnp.zeros(ROWS, int))
  assert _loss(one, first) == pytest.approx(np.log(4 / 3) - np.log(2), abs=1e-6)


@pytest.mark.parametrize("names", ["a", "ab", "abc"])
@pytest.mark.parametrize("present", [1.0, 0.6, 0.0])
def test_the_factorised_sum_is_the_sum_over_all_combinations(names, present):
  split, batch = _case(names, seed=len(names), present=present)
  assert _loss(split, batch) == pytest.approx(_by_loops(split, batch), abs=1e-5)


def test_rows_of_weight_zero_count_nowhere():
  split, batch = _case()
  batch = batch._replace(weight=jnp.array([1.0, 0, 1, 1, 0]))
  far = {m: np.where(np.asarray(batch.weight)[:, None] > 0, z, 50.0) for m, z in split.items()}
  assert _loss(split, batch) == pytest.approx(_by_loops(split, batch), abs=1e-5)
  assert _loss(far, batch) == pytest.approx(float(_loss(split, batch)), abs=1e-5)
  assert _loss(split, batch._replace(weight=jnp.zeros(ROWS))) == 0.0


def test_a_constant_on_one_modality_changes_nothing_and_large_logits_stay_finite():
  split, batch = _case()
  moved = {**split, "b": split["b"] + 7.0}
  assert _loss(moved, batch) == pytest.approx(float(_loss(split, batch)), abs=1e-5)
  large, batch = _case(scale=300.0)
  gradient = jax.grad(lambda s: _loss(s, batch))({m: jnp.asarray(z) for m, z in large.items()})
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def _model(head):
  return fusion.LateFusion({m: encoders.MLP(4) for m in "ab"}, CLASSES, head)


def test_a_head_that_is_not_additive_is_refused():
  with pytest.raises(Unavailable, match="needs the fusion concat, sum or cosine, got Gated"):
    methods.METHODS["tcmax"](_model(fusion.FUSIONS["gated"]()))
  with pytest.raises(ValueError, match="split_logits"):
    tcmax_loss(Outputs(jnp.zeros((ROWS, CLASSES)), {}, {}, {}), _case()[1])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate"), [("concat", 0.1), ("sum", 0.1), ("cosine", 0.01)])
def test_it_learns(name, rate):
  rng = np.random.default_rng(0)
  label = rng.integers(0, CLASSES, 96)
  means = rng.normal(size=(CLASSES, 6)).astype(np.float32)
  noise = lambda: rng.normal(size=(96, 6)).astype(np.float32)
  batch = Batch(
    {m: means[label] + noise() for m in "ab"},
    jnp.asarray(label),
    {m: jnp.ones(96, bool) for m in "ab"},
    jnp.ones(96),
    jnp.arange(96),
  )
  method = methods.METHODS["tcmax"](_model(fusion.FUSIONS[name]()), rate)
  state = train.initial(method, jax.random.key(0), batch, num_rows=96)
  step = jax.jit(method.phases[0].step)
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  losses = []
  for i in range(30):
    state, log = step(state, batch, jax.random.key(i), clock)
    losses.append(float(log["loss/fused"]))
  predicted = method.predict(state, batch.inputs, batch.mask).logits.argmax(-1)
  assert losses[-1] < losses[0] - 0.3 and float((predicted == label).mean()) > 0.6
