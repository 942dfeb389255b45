"""MLA: projection and fusion by hand, whose turn moves what, missing modalities, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import train
from mmfuse.core import Unavailable
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS
from mmfuse.methods.balancing import _mla as mla_file
from mmfuse.methods.balancing import _mla_rules as rule

from .. import _small

RNG = np.random.default_rng(0)
H = RNG.normal(size=(4, 3)).astype(np.float32)


def leaves(tree):
  return [np.asarray(x) for x in jax.tree.leaves(tree)]


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


# Projection.


def test_rls_by_hand():
  """h = (1, 0), alpha = 1: P = diag(1/2, 1); once more: diag(1/3, 1)."""
  mean = jnp.array([1.0, 0.0])
  once = rule.rls_matrix(jnp.eye(2), mean, 1.0)
  np.testing.assert_allclose(once, np.diag([0.5, 1.0]), rtol=1e-6)
  np.testing.assert_allclose(rule.rls_matrix(once, mean, 1.0), np.diag([1 / 3, 1.0]), rtol=1e-6)


def test_rls_is_the_inverse_of_the_sum():
  state, alpha = rule.init_projection(3), 0.5
  for h in H:
    before = np.linalg.eigvalsh(state.matrix)
    state = rule.step_projection(state, jnp.asarray(h), alpha)
    assert (np.linalg.eigvalsh(state.matrix) <= before + 1e-6).all()
  # The first update leaves P as it is.
  expected = np.linalg.inv(np.eye(3) + H[1:].T @ H[1:] / alpha)
  np.testing.assert_allclose(state.matrix, expected, atol=1e-5)
  np.testing.assert_array_equal(state.matrix, state.matrix.T)
  assert int(state.updates) == 4


def test_released_by_hand():
  """h = (1, 0), alpha = 1: P' = diag(1 - 1 / 2, 1), divided by its norm; zero means only divide."""
  found = rule.released_matrix(jnp.eye(2), jnp.array([1.0, 0.0]), 1.0)
  np.testing.assert_allclose(found, np.diag([0.5, 1.0]) / np.sqrt(1.25), rtol=1e-6)
  still = rule.released_matrix(jnp.eye(2), jnp.zeros(2), 0.1)
  np.testing.assert_allclose(still, np.eye(2) / np.sqrt(2), rtol=1e-6)


def test_released_alpha_falls_through_an_epoch():
  found = [float(rule.released_alpha(jnp.int32(b), jnp.int32(4))) for b in (0, 2, 4)]
  assert found == pytest.approx([0.1, 0.1**1.5, 0.01])


def test_project():
  gradient = jnp.array([[2.0, 4.0], [1.0, 1.0]])
  early = rule.ProjectionState(jnp.diag(jnp.array([0.5, 0.0])), jnp.int32(1))
  late = early._replace(updates=jnp.int32(2))
  np.testing.assert_array_equal(rule.project(early, gradient), gradient)
  np.testing.assert_allclose(rule.project(late, gradient), [[1.0, 2.0], [0.0, 0.0]])
  np.testing.assert_allclose(rule.project(late, gradient, "bb_add"), [[3.0, 6.0], [1.0, 1.0]])


# Fusion.


def test_fusion_by_hand():
  """Row 1: b is uniform (H = log 2), a certain (H = 0): weights 2/3, 1/3. Row 2: a alone."""
  logits = {"a": jnp.array([[60.0, 0.0], [3.0, 1.0]]), "b": jnp.array([[2.0, 2.0], [9.0, 9.0]])}
  mask = {"a": jnp.array([True, True]), "b": jnp.array([True, False])}
  found = rule.entropy_weights(logits, mask)
  np.testing.assert_allclose(found["a"], [2 / 3, 1.0], rtol=1e-6)
  np.testing.assert_allclose(found["b"], [1 / 3, 0.0], rtol=1e-6)
  fused = rule.fuse(logits, mask)
  np.testing.assert_allclose(fused, [[40 + 2 / 3, 2 / 3], [3.0, 1.0]], rtol=1e-6)
  mean = rule.entropy_weights(logits, mask, "mean")
  np.testing.assert_allclose(mean["b"], [0.5, 0.0])


@pytest.mark.parametrize("fusion", rule.FUSIONS)
def test_weights_are_on_the_simplex_and_absent_content_is_never_read(fusion):
  logits = {m: jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32) for m in "abc"}
  present = np.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0], [1, 1, 0]], bool)
  mask = {m: jnp.asarray(present[:, i]) for i, m in enumerate("abc")}

  @jax.jit
  def everything(logits):
    weights = rule.entropy_weights(logits, mask, fusion)
    fuse = lambda z: rule.fuse(z, mask, fusion)
    return (
      jnp.stack([*weights.values()], -1),
      fuse(logits),
      jax.grad(lambda z: fuse(z).sum())(logits),
    )

  found, fused, grads = map(jax.device_get, everything(logits))
  np.testing.assert_allclose(found.sum(-1), present.any(-1), rtol=1e-6)
  assert (found[~present] == 0).all()
  spoilt = {m: np.where(present[:, i : i + 1], logits[m], np.nan) for i, m in enumerate("abc")}
  np.testing.assert_array_equal(everything(spoilt)[1], fused)
  np.testing.assert_array_equal(fused[3], 0.0)
  assert _small.finite(grads)


def test_batch_fusion_depends_on_the_batch():
  logits = {m: jnp.asarray(RNG.normal(size=(4, 3)), jnp.float32) for m in "ab"}
  weigh = jax.jit(lambda mask: rule.entropy_weights(logits, {"a": mask, "b": mask}, "batch")["a"])
  found = weigh(jnp.ones(4, bool))
  assert np.ptp(found) == 0 and abs(float(found[0]) - 0.5) > 1e-3
  # Of a single row the softmax over rows is 1: no entropy, equal weights.
  np.testing.assert_allclose(weigh(jnp.arange(4) < 1), [0.5, 0.0, 0.0, 0.0])


# The step.


@functools.cache
def run(num=2, absent=(), steps=2, norm="none", **options):
  """(method, states, logs) of some steps, all on one batch."""
  method = METHODS["mla"](_small.model(num, norm), **options)
  step, state = jax.jit(method.phases[0].step), _small.start(method, num)
  states, logs = [state], []
  for i in range(steps):
    state, log = step(state, _small.batch(num, absent), jax.random.key(i), _small.clock(0, i))
    states.append(state)
    logs.append(log)
  return method, states, logs


def test_a_step_is_the_turns_by_hand():
  """Two turns of plain SGD without projection: the second one sees the first one's head."""
  _, (before, after), (log,) = run(steps=1, tx=optax.sgd(0.1), projection="off")
  batch, params = _small.batch(), before.params
  shared = mla_file.shared_head(_small.model())

  @functools.partial(jax.jit, static_argnames="m")
  def pull(p, m):
    def loss(p):
      variables = {"params": p, "batch_stats": {}}
      h = shared.encode(variables, batch.inputs, batch.mask, train=True)[0][m]
      z = h @ p["heads"]["fused"]["kernel"] + p["heads"]["fused"]["bias"][None]
      rows = optax.softmax_cross_entropy_with_integer_labels(z, batch.label)
      return jnp.sum(rows * batch.mask[m]) / batch.mask[m].sum()

    return jax.value_and_grad(loss)(p)

  for m in "ab":
    value, grads = pull(params, m)
    assert float(log[f"loss/{m}"]) == pytest.approx(float(value), rel=1e-5)
    params = jax.tree.map(lambda p, g: np.asarray(p) - np.float32(0.1) * g, params, grads)
  for want, got in zip(leaves(params), leaves(after.params), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_first_projected_turn_is_plain_and_large_alpha_always_is():
  plain, far, near = (run(**o)[1][-1] for o in ({"projection": "off"}, {"alpha": 1e9}, {}))
  for a, b in zip(leaves(plain.params), leaves(far.params), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert not np.allclose(
    plain.params["heads"]["fused"]["kernel"], near.params["heads"]["fused"]["kernel"], atol=1e-4
  )
  assert int(near.memory["mla"].updates) == 4


def test_order_is_an_argument():
  assert not same(run()[1][1].params, run(order="ba", steps=1)[1][1].params)


@pytest.mark.parametrize("projection", ["rls", "bb_add"])
def test_an_absent_modality_has_no_turn(projection):
  options = {"num": 2, "norm": "batch", "projection": projection}
  _, states, logs = run(absent=("b",), **options)
  assert same(states[0].params["b"], states[-1].params["b"])
  assert same(states[0].stats["b"], states[-1].stats["b"])
  assert not same(states[0].stats["a"], states[-1].stats["a"])
  assert same(states[0].opt["train"]["b"], states[-1].opt["train"]["b"])
  assert all(bool(log["finite"]) and float(log["gradient_norm"]) > 0 for log in logs)
  assert int(states[-1].memory["mla"].updates) == 2  # two steps of one turn


def test_nothing_moves_where_nobody_is_present():
  _, (before, after), (log,) = run(absent=("a", "b"), steps=1)
  assert same(before, after) and bool(log["finite"])


def test_coasting_moves_encoders_after_their_turn():
  tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
  plain, coasting = (run(tx=tx, projection="off", coast=c, steps=1)[1][-1] for c in (False, True))
  assert not same(plain.params["a"], coasting.params["a"])
  assert same(plain.params["b"], coasting.params["b"])  # the last turn: nobody after it
  assert same(plain.params["heads"], coasting.params["heads"])


@pytest.mark.parametrize("num", [1, 2, 5])
def test_any_number_of_modalities(num):
  method, states, logs = run(num)
  assert bool(logs[-1]["finite"]) and _small.finite(states[-1].params)
  rows = _small.batch(num)
  found = jax.jit(method.predict)(states[-1], rows.inputs, rows.mask)
  assert sorted(found.unimodal_logits) == list("abcde"[:num])
  if num == 1:
    np.testing.assert_allclose(found.logits, found.unimodal_logits["a"], rtol=1e-6)


def test_two_epochs_of_fit_learn():
  method = METHODS["mla"](_small.model(), 0.1)
  log = train.fit(
    method, _small.splits(), epochs=3, batch_size=_small.BATCH, loop="scan", diagnose=False
  ).logs[0]
  found = [e["loss/a"] + e["loss/b"] for e in log.history]
  assert log.diverged_at is None and found[-1] < found[0]
  assert log.examples == 3 * _small.ROWS


def test_state_is_strongly_typed_and_keeps_its_structure():
  _, (state, *_, after), _ = run(absent=("b",), norm="batch", projection="rls", num=2)
  shapes = lambda s: [(x.shape, x.dtype, x.weak_type) for x in map(jax.typeof, jax.tree.leaves(s))]
  assert not any(weak for _, _, weak in shapes(state))
  assert jax.tree.structure(after) == jax.tree.structure(state) and shapes(after) == shapes(state)
  assert train.has_learning_rate(state.opt)
  assert set(state.params["heads"]) == {"fused"}


def test_dropout_of_the_model_reaches_the_head():
  shared = mla_file.shared_head(LateFusion({"a": MLP(8, ())}, 3, dropout=0.5))
  params = {"heads": {"fused": {"kernel": jnp.ones((8, 3)), "bias": jnp.zeros(3)}}}
  variables, features = {"params": params, "batch_stats": {}}, {"a": jnp.ones((4, 8))}
  mask = {"a": jnp.ones(4, bool)}
  z = lambda **kw: shared.heads(variables, features, mask, **kw)[0].unimodal_logits["a"]
  assert not np.allclose(z(train=True, rngs={"dropout": jax.random.key(0)}), 8.0)
  np.testing.assert_allclose(z(train=False), 8.0)
  with pytest.raises(ValueError, match="dropout"):
    z(train=True)


# Refusals.


@pytest.mark.parametrize(
  "options, match",
  [
    ({"projection": "owm"}, "projection must be one of"),
    ({"fusion": "max"}, "fusion must be one of"),
    ({"alpha": 0.0}, "alpha must be above 0"),
    ({"order": "a"}, "each modality once, got a; the model has a, b"),
  ],
)
def test_unknown_options_are_refused(options, match):
  with pytest.raises(ValueError, match=match):
    METHODS["mla"](_small.model(), **options)


def test_other_labels_and_other_widths_are_refused():
  batch = _small.batch()
  with pytest.raises(ValueError, match="one class per row"):
    train.initial(
      METHODS["mla"](_small.model()),
      jax.random.key(0),
      batch._replace(label=batch.label.astype(jnp.float32)),
    )
  wide = LateFusion({"a": MLP(3, ()), "b": MLP(4, ())}, 3)
  with pytest.raises(Unavailable, match="equally wide features; these are a 3, b 4"):
    train.initial(METHODS["mla"](wide), jax.random.key(0), batch)
