"""IMTL-G, Nash-MTL, Aligned-MTL, FairGrad, UPGrad, DualProj: numbers by hand, oracles, edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mmfuse.balancing import check_contract
from mmfuse.balancing._aligned_mtl import aligned_mtl, aligned_mtl_weights
from mmfuse.balancing._dual_cone import dual_cone_gap, project_dual_cone
from mmfuse.balancing._dualproj import dualproj, dualproj_weights
from mmfuse.balancing._fairgrad import fairgrad, fairgrad_weights
from mmfuse.balancing._gram_rule import unit_gram
from mmfuse.balancing._imtl_g import imtl_g, imtl_g_weights
from mmfuse.balancing._nash_mtl import nash_mtl, nash_mtl_weights
from mmfuse.balancing._upgrad import upgrad, upgrad_weights

from ._helpers import apply, conflicting, late_fusion, params_of

FACTORIES = {
  "imtl_g": imtl_g,
  "nash_mtl": nash_mtl,
  "aligned_mtl": aligned_mtl,
  "fairgrad": fairgrad,
  "upgrad": upgrad,
  "dualproj": dualproj,
}
FAIR = jax.jit(fairgrad_weights)  # alpha is traced: one compilation for all of them
IMTL = jax.jit(imtl_g_weights, static_argnames="guard")
WEIGHTS = {
  "imtl_g": lambda a, present: IMTL(a, present, guard=True),
  "nash_mtl": jax.jit(nash_mtl_weights),
  "aligned_mtl": jax.jit(aligned_mtl_weights),
  "fairgrad": lambda a, present: FAIR(a, 2.0, present),
  "upgrad": jax.jit(upgrad_weights),
  "dualproj": jax.jit(dualproj_weights),
}
PATTERN = np.array([[4.0, -2.0], [-2.0, 9.0]], np.float32)  # n = 2, 3; cosine -1/3


def gram_of(grads):
  return np.asarray(grads, np.float64) @ np.asarray(grads, np.float64).T


def weigh(name, gram, present=None):
  here = np.ones(len(gram), bool) if present is None else np.asarray(present)
  return np.asarray(WEIGHTS[name](np.asarray(gram, np.float32), here), np.float64)


# By hand


@pytest.mark.parametrize(
  ("name", "wanted"),
  [
    ("imtl_g", [3 / 5, 2 / 5]),  # n_2 / (n_1 + n_2)
    ("nash_mtl", [np.sqrt(3 / 2) / 2, np.sqrt(3 / 2) / 3]),  # 1 / (n sqrt(1 + c))
    # e_1: v = (1, 2/9); e_2: v = (1/2, 1).
    ("upgrad", [3 / 4, 11 / 18]),
    ("dualproj", [1 / 2, 1 / 2]),  # the mean conflicts with neither: (1, 3.5)
  ],
)
def test_two_objectives_by_hand(name, wanted):
  np.testing.assert_allclose(weigh(name, PATTERN), wanted, rtol=1e-5)


def test_dualproj_where_the_mean_conflicts():
  """g_1 = (1, 0), g_2 = (-4, 1): v = (2, 1/2) lengthens g_1 until d . g_1 = 0."""
  grads = np.array([[1.0, 0.0], [-4.0, 1.0]])
  direction, _ = apply(dualproj(2), grads)
  np.testing.assert_allclose(weigh("dualproj", gram_of(grads)), [2, 0.5], rtol=1e-5)
  np.testing.assert_allclose(direction, [0, 0.5], atol=1e-5)


def test_aligned_two_orthogonal_gradients_get_the_shorter_length():
  np.testing.assert_allclose(weigh("aligned_mtl", np.diag([4.0, 25.0])), [1, 0.4], rtol=1e-5)


def test_fairgrad_two_orthogonal_gradients():
  """n^2 w = w^{-1/2} for alpha = 2: w = n^{-4/3}."""
  np.testing.assert_allclose(
    weigh("fairgrad", np.diag([4.0, 25.0])), np.array([2.0, 5.0]) ** (-4 / 3), rtol=1e-5
  )


@pytest.mark.parametrize("name", WEIGHTS)
def test_one_objective(name):
  wanted = {"nash_mtl": 0.5, "fairgrad": 2 ** (-4 / 3)}.get(name, 1.0)
  np.testing.assert_allclose(weigh(name, [[4.0]]), [wanted], rtol=1e-5)
  direction, state = apply(FACTORIES[name](1), [[3.0, -1.0]])
  np.testing.assert_allclose(direction, [3, -1], rtol=1e-5)  # nobody to weigh against
  assert state.weights[0] == 1


# What each rule solves


@pytest.mark.parametrize("num", [3, 6])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_equations(num, scale):
  for seed in range(3):
    grads = conflicting(seed, num, dim=8).astype(np.float64)
    grads[0] *= scale
    gram, norms, all_here = gram_of(grads), np.linalg.norm(grads, axis=1), np.ones(num, bool)
    imtl = np.asarray(IMTL(np.asarray(gram, np.float32), all_here, guard=False), np.float64)
    projections = gram @ imtl / norms
    np.testing.assert_allclose(projections, projections[0], rtol=1e-3)
    np.testing.assert_allclose(imtl.sum(), 1, rtol=1e-4)
    nash = weigh("nash_mtl", gram)
    np.testing.assert_allclose(nash * (gram @ nash), 1, rtol=2e-4)
    fair = weigh("fairgrad", gram)
    np.testing.assert_allclose(gram @ fair, fair**-0.5, rtol=5e-4)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 5.0])
def test_fairgrad_alpha(alpha):
  gram = gram_of(conflicting(3, 3, dim=8))
  weights = np.asarray(FAIR(np.asarray(gram, np.float32), alpha, np.ones(3, bool)), np.float64)
  np.testing.assert_allclose(gram @ weights, weights ** (-1 / alpha), rtol=2e-4)
  if alpha == 1:
    np.testing.assert_allclose(weights, weigh("nash_mtl", gram), rtol=1e-5)


@pytest.mark.parametrize("num", [2, 3, 6])
def test_aligned_gradients_have_one_singular_value(num):
  """B G of full rank has the smallest singular value of G throughout; the weights sum its rows."""
  grads = conflicting(5, num, dim=8).astype(np.float64)
  left, values, right = np.linalg.svd(grads, full_matrices=False)
  aligned = values.min() * left @ right
  np.testing.assert_allclose(
    weigh("aligned_mtl", gram_of(grads)) @ grads, aligned.sum(0), rtol=1e-4, atol=1e-4
  )


_project = jax.jit(jax.vmap(project_dual_cone, (None, 0)))
_gap = jax.jit(jax.vmap(dual_cone_gap, (None, 0, 0)))


def dual_cone_problem(kind, seed, num, dim=12):
  rng = np.random.default_rng(seed)
  grads = rng.normal(size=(num, dim))
  if kind == "conflict":
    grads -= 1.2 * grads.mean(0)
  elif kind == "scaled":
    grads *= 10.0 ** rng.uniform(-4, 4, size=(num, 1))
  elif kind == "singular":
    grads = grads[:, :2] @ rng.normal(size=(2, dim))
  elif kind == "opposite":
    grads[-1] = -2 * grads[0]
  return grads.astype(np.float32)


@pytest.mark.parametrize("num", [2, 6])
@pytest.mark.parametrize("kind", ["random", "conflict", "scaled", "singular", "opposite"])
def test_dual_cone_gap_and_nnls(kind, num):
  """Every e_i and the norms; SciPy's non-negative least squares min |G^T (u + s)| as oracle."""
  for seed in range(5):
    grads = dual_cone_problem(kind, seed, num)
    cosines, norms, _ = unit_gram(jnp.asarray(gram_of(grads), jnp.float32), jnp.ones(num, bool))
    targets = jnp.concatenate([jnp.eye(num), (norms / norms.max())[None]])
    points = _project(cosines, targets)
    assert (points >= targets).all()
    # Three gradients of a plane: float32 cosines leave 1e-7 times |v|^2 (about 30^2) of the gap.
    assert _gap(cosines, targets, points).max() < (1e-3 if kind == "singular" else 5e-5)
    if kind == "singular":
      continue
    unit = grads / np.linalg.norm(grads.astype(np.float64), axis=1, keepdims=True)
    for u, v in zip(np.asarray(targets, np.float64), np.asarray(points, np.float64)):
      s, _ = nnls(unit.T, -(unit.T @ u), maxiter=500)
      error = np.linalg.norm(unit.T @ (v - u - s))
      assert error <= 1e-4 * np.linalg.norm(unit.T @ u)


def test_the_gap_sees_a_wrong_point():
  cosines = jnp.array([[1.0, -0.6], [-0.6, 1.0]])
  target = jnp.tile(jnp.array([1.0, 0.0]), (3, 1))
  # Right; d conflicts with the second; too far.
  right, short, far = _gap(cosines, target, jnp.array([[1.0, 0.6], [1.0, 0.0], [1.0, 0.9]]))
  assert right < 1e-6
  assert short > 0.5
  assert far > 0.2


@pytest.mark.parametrize("name", ["upgrad", "dualproj"])
def test_projections_leave_what_does_not_conflict(name):
  gram = gram_of(np.abs(conflicting(0, 3)))
  np.testing.assert_allclose(weigh(name, gram), 1 / 3, rtol=1e-6)


# Invariants of all


@pytest.mark.parametrize("name", FACTORIES)
def test_permutation(name):
  gram = gram_of(conflicting(4, 6, dim=9))
  order = [2, 0, 1, 5, 3, 4]
  np.testing.assert_allclose(
    weigh(name, gram[np.ix_(order, order)]), weigh(name, gram)[order], rtol=1e-3, atol=1e-4
  )


@pytest.mark.parametrize("name", FACTORIES)
def test_identical_gradients_give_a_positive_multiple(name):
  for num in (2, 3, 6):
    weights = weigh(name, 4.0 * np.ones((num, num)))
    np.testing.assert_allclose(weights, weights[0], rtol=1e-3)
    assert weights[0] > 0


@pytest.mark.parametrize("name", ["imtl_g", "nash_mtl"])
def test_the_direction_does_not_depend_on_the_scale_of_a_loss(name):
  gram, scale = gram_of(conflicting(6, 3)), np.array([1.0, 100.0, 0.1])
  plain, scaled = weigh(name, gram), weigh(name, gram * np.outer(scale, scale)) * scale
  np.testing.assert_allclose(scaled / scaled.sum(), plain / plain.sum(), rtol=1e-3)


@pytest.mark.parametrize("name", ["nash_mtl", "fairgrad", "upgrad", "dualproj"])
@pytest.mark.parametrize("num", [2, 3, 6])
def test_no_objective_is_opposed(name, num):
  for seed in range(4):
    grads = dual_cone_problem("conflict", seed, num)
    direction = weigh(name, gram_of(grads)) @ grads
    slack = grads @ direction / np.linalg.norm(grads, axis=1)
    assert slack.min() >= -1e-4 * np.linalg.norm(grads, axis=1).max()


# Edges


@pytest.mark.parametrize("name", FACTORIES)
def test_absent_objectives_are_left_out(name):
  gram = gram_of(conflicting(0, 3))
  weights = weigh(name, gram, [True, False, True])
  wanted = weigh(name, gram[np.ix_([0, 2], [0, 2])])
  np.testing.assert_allclose(weights[[0, 2]], wanted, rtol=1e-4, atol=1e-5)
  assert weights[1] == 0


@pytest.mark.parametrize("name", ["nash_mtl", "upgrad"])
def test_absent_objectives_do_not_move_the_update(name):
  grads, here = conflicting(0, 3), jnp.array([True, False, True])
  direction, state = apply(FACTORIES[name](3), grads, present=here)
  np.testing.assert_allclose(direction, state.weights @ grads, rtol=1e-5, atol=1e-6)
  assert state.weights[1] == 0


@pytest.mark.parametrize("name", FACTORIES)
def test_nobody_present_and_nothing_to_do(name):
  gram = gram_of(conflicting(0, 3))
  np.testing.assert_array_equal(weigh(name, gram, [False] * 3), 0)
  assert np.isfinite(weigh(name, np.zeros((3, 3)))).all()


@pytest.mark.parametrize("name", ["imtl_g", "nash_mtl", "fairgrad"])
def test_a_zero_gradient_leaves_equal_weights_on_the_others(name):
  """Undefined in the papers; the length is the rule's own."""
  gram = np.zeros((3, 3))
  gram[1:, 1:] = PATTERN
  weights = weigh(name, gram)
  assert weights[0] == 0
  np.testing.assert_allclose(weights[1], weights[2], rtol=1e-6)
  if name == "imtl_g":
    np.testing.assert_allclose(weights[1:], 0.5)
  elif name == "nash_mtl":
    np.testing.assert_allclose(weights @ gram @ weights, 2, rtol=1e-5)  # |d|^2 = K
  else:
    np.testing.assert_allclose(weights @ gram @ weights, (weights[1:] ** 0.5).sum(), rtol=1e-5)


def test_a_zero_gradient_where_the_rule_is_defined():
  gram = np.zeros((3, 3))
  gram[1:, 1:] = PATTERN
  np.testing.assert_allclose(
    weigh("aligned_mtl", gram)[1:], weigh("aligned_mtl", PATTERN), rtol=1e-5
  )
  np.testing.assert_allclose(weigh("upgrad", gram), np.array([1, 3 / 2, 11 / 9]) / 3, rtol=1e-5)


@pytest.mark.parametrize("name", FACTORIES)
def test_opposite_gradients_stay_finite(name):
  grads = np.array([[1.0, 2.0, 0.0], [-2.0, -4.0, 0.0], [0.0, 1.0, 3.0]], np.float32)
  for chosen in (grads[:2], grads):
    weights = weigh(name, gram_of(chosen))
    assert np.isfinite(weights).all()
    assert np.linalg.norm(weights @ chosen) <= 1.01 * np.linalg.norm(chosen.sum(0)) + 2.0


# g_3 is weak and needs a negative weight: \sum b / n < 0, and the published weights ascend.
AGAINST = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.08, 0.08, 0.02]])


def test_imtl_g_guard():
  gram, all_here = gram_of(AGAINST).astype(np.float32), np.ones(3, bool)
  published, guarded = (np.asarray(IMTL(gram, all_here, guard=g)) for g in (False, True))
  assert (gram @ published).max() < 0
  np.testing.assert_allclose(published.sum(), 1, rtol=1e-3)
  np.testing.assert_allclose(guarded, 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("name", ["imtl_g", "aligned_mtl", "dualproj"])
def test_sum_is_comparable_with_the_plain_sum(name):
  grads = conflicting(0, 3)
  plain = weigh(name, gram_of(grads))
  scaled = apply(FACTORIES[name](3, rescale="sum"), grads)[1].weights
  factor = 3.0 if name == "dualproj" else 3.0 / plain.sum()
  np.testing.assert_allclose(scaled, plain * factor, rtol=1e-4)


def test_nash_clipping():
  """|d| is sqrt(K): clipping at 1 divides by it."""
  grads = conflicting(1, 3)
  free = weigh("nash_mtl", gram_of(grads)) @ grads
  np.testing.assert_allclose(np.linalg.norm(free), np.sqrt(3), rtol=1e-4)
  np.testing.assert_allclose(apply(nash_mtl(3), grads)[0], free / np.sqrt(3), rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(apply(nash_mtl(3, max_norm=9.0), grads)[0], free, rtol=1e-4, atol=1e-5)


def test_fairgrad_clipping():
  """|d|^2 = sum w^{1 - 1 / alpha} before; a short d stays as it is."""
  grads = conflicting(1, 3)
  weights = weigh("fairgrad", gram_of(grads))
  free = weights @ grads
  length = np.sqrt((weights**0.5).sum())
  assert length > 1
  np.testing.assert_allclose(np.linalg.norm(free), length, rtol=1e-4)
  for bound, wanted in ((1.0, free / length), (None, free), (9.0, free)):
    direction, _ = apply(fairgrad(3, 2.0, max_norm=bound), grads)
    np.testing.assert_allclose(direction, wanted, rtol=1e-3, atol=1e-5)
  # As long as the plain sum's: neither grows when gradients shrink.
  rule = fairgrad(3, 2.0, rescale="sum", max_norm=None)
  np.testing.assert_allclose(apply(rule, grads)[1].weights.sum(), 3, rtol=1e-5)


def test_nash_keeps_alpha_between_solutions():
  rule = nash_mtl(2, update_every=2, max_norm=None)
  update = jax.jit(rule.update)
  state = rule.init({"x": jnp.zeros(2)})
  first, second = jnp.array([[2.0, 0], [0, 1]]), jnp.array([[1.0, 0], [0, 4]])
  _, state = update({"x": first}, state)
  np.testing.assert_allclose(state.alpha, [0.5, 1], rtol=1e-5)
  direction, state = update({"x": second}, state)
  np.testing.assert_allclose(direction["x"], [0.5, 4], rtol=1e-5)
  _, state = update({"x": second}, state, present=jnp.array([True, False]))
  np.testing.assert_allclose(state.alpha, [1, 1], rtol=1e-5)  # the absent one keeps its own
  np.testing.assert_allclose(state.weights, [1, 0], rtol=1e-5)


@pytest.mark.parametrize("name", ["imtl_g", "nash_mtl"])
def test_heads_keep_their_plain_gradient(name):
  """One Gram matrix per encoder, between the fused and the own objective."""
  stacked, owners = late_fusion()
  rule = FACTORIES[name](3, scope="encoder")
  update = jax.jit(lambda g: rule.update(g, rule.init(params_of(g)), owners=owners))
  direction, state = update(stacked)
  np.testing.assert_allclose(direction["heads"]["audio"], stacked["heads"]["audio"][1], rtol=1e-6)
  audio = np.concatenate([np.reshape(x, (3, -1)) for x in jax.tree.leaves(stacked["audio"])], 1)
  gram = gram_of(audio[:2])
  wanted = weigh(name, gram)
  if name == "nash_mtl":
    wanted = wanted / np.sqrt(wanted @ gram @ wanted)
  np.testing.assert_allclose(state.weights[1], wanted[1], rtol=1e-3)


@pytest.mark.parametrize(
  "factory",
  [*FACTORIES.values(), functools.partial(nash_mtl, update_every=2)],
  ids=[*FACTORIES, "nash_mtl_every_2"],
)
def test_contract(factory):
  check_contract(factory, num_objectives=3)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: fairgrad(3, 0.0), "alpha must be positive"),
    (lambda: nash_mtl(3, max_norm=0.0), "max_norm must be positive"),
    (lambda: fairgrad(3, max_norm=-1.0), "max_norm must be positive"),
    (lambda: nash_mtl(3, update_every=0), "update_every must be at least 1"),
    (lambda: nash_mtl(3, update_every=2, scope="encoder"), "needs scope='global'"),
    (lambda: upgrad(0), "num_objectives must be at least 1"),
    (lambda: imtl_g(2, rescale="mean"), "rescale must be one of none, sum"),
    (lambda: dualproj(2, scope="leaf"), "scope must be one of global, encoder"),
  ],
)
def test_bad_knobs_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
