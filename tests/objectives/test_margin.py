"""Distillation of similarities: by hand, what it does not see, and where the released code breaks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.objectives import (
  dense_margin_distillation,
  margin_distillation,
  similarity_distillation,
)
from mmfuse.objectives._margin import entropy_weights, teacher_entropy

ROWS, WIDTH, CLASSES = 6, 4, 3
RNG = np.random.default_rng(0)
STUDENT, TEACHER = (jnp.asarray(RNG.normal(size=(ROWS, WIDTH)), jnp.float32) for _ in range(2))
LOGITS = jnp.asarray(2 * RNG.normal(size=(ROWS, CLASSES)), jnp.float32)


def by_hand(student, teacher, logits, axis):
  """In float64, entry by entry."""
  s, t, z = (np.asarray(x, np.float64) for x in (student, teacher, logits))
  q = np.exp(z) / np.exp(z).sum(1, keepdims=True)
  h = -(q * np.log(q)).sum(1)
  w = h / h.sum()
  total = 0.0
  for i in range(len(s)):
    gs, gt = s @ s[i], t @ t[i]
    gs, gt = gs / np.sqrt(gs @ gs), gt / np.sqrt(gt @ gt)
    for j in range(len(s)):
      total += (gs[j] - gt[j]) ** 2 * w[i if axis == "row" else j]
  return total


@pytest.mark.parametrize("axis", ["row", "column"])
def test_by_hand(axis):
  got = margin_distillation(STUDENT, TEACHER, LOGITS, weight_axis=axis)
  assert float(got) == pytest.approx(by_hand(STUDENT, TEACHER, LOGITS, axis), rel=1e-5)
  released = margin_distillation(STUDENT, TEACHER, LOGITS, weight_axis=axis, variant="released")
  assert float(released) == pytest.approx(float(got), rel=1e-5)


def test_two_rows_on_paper():
  """Student rows at a right angle, the teacher's alike: (1, 0) against (1, 1) / sqrt(2), in both rows."""
  student, teacher = jnp.eye(2), jnp.ones((2, 2))
  want = (1 - 0.5**0.5) ** 2 + 0.5
  assert float(margin_distillation(student, teacher, jnp.zeros((2, 2)))) == pytest.approx(want)
  # Over four pairs instead of two rows.
  assert float(similarity_distillation(student, teacher)) == pytest.approx(2 * want / 4)


def test_the_two_axes_differ_where_rows_do():
  row, column = (by_hand(STUDENT, TEACHER, LOGITS, a) for a in ("row", "column"))
  assert abs(row - column) > 1e-3


def test_scale_and_rotation_are_not_seen():
  turned = jnp.linalg.qr(jnp.asarray(RNG.normal(size=(WIDTH, WIDTH)), jnp.float32))[0]
  assert float(margin_distillation(3 * STUDENT, STUDENT, LOGITS)) < 1e-10
  assert float(margin_distillation(STUDENT @ turned, STUDENT, LOGITS)) < 1e-10
  plain = float(margin_distillation(STUDENT, TEACHER, LOGITS))
  assert 0 < plain <= 4
  order = RNG.permutation(ROWS)
  permuted = margin_distillation(STUDENT[order], TEACHER[order], LOGITS[order])
  assert float(permuted) == pytest.approx(plain, rel=1e-5)


def test_no_gradient_reaches_the_teacher():
  loss = lambda t, z: margin_distillation(STUDENT, t, z)
  for g in jax.grad(loss, (0, 1))(TEACHER, LOGITS):
    np.testing.assert_array_equal(g, 0.0)


def test_weights():
  ones = jnp.ones(ROWS)
  w = entropy_weights(teacher_entropy(LOGITS), ones)
  assert float(w.sum()) == pytest.approx(1.0, rel=1e-6)
  np.testing.assert_allclose(
    entropy_weights(teacher_entropy(jnp.zeros((ROWS, 2))), ones), 1 / ROWS, rtol=1e-6
  )
  # The teacher that is least certain takes it all where the others are certain.
  certain = jnp.asarray([[300.0, 0]] * 5 + [[1.0, 0]])
  np.testing.assert_allclose(entropy_weights(teacher_entropy(certain), ones)[-1], 1.0)
  # Of labels told one by one, entropies add up: two fair coins are ln 4.
  coins = teacher_entropy(jnp.zeros((1, 2, 2)))
  np.testing.assert_allclose(coins, np.log(4), rtol=1e-6)


def test_a_certain_teacher_is_nan_as_released_and_uniform_by_default():
  certain = jnp.asarray([[300.0, 0], [0, 300.0]] * 3)
  run = lambda variant: jax.value_and_grad(
    lambda s: margin_distillation(s, TEACHER, certain, variant=variant)
  )(STUDENT)
  value, grad = run("intended")
  flat = margin_distillation(STUDENT, TEACHER, jnp.zeros((ROWS, 2)))
  assert float(value) == pytest.approx(float(flat), rel=1e-6) and np.isfinite(grad).all()
  value, grad = run("released")
  assert np.isnan(value) and np.isnan(grad).all()


@pytest.mark.parametrize("loss", [margin_distillation, dense_margin_distillation])
def test_a_row_of_zeros_has_no_gradient_and_the_released_one_explodes(loss):
  shape = (1, ROWS, 1, -1) if loss is dense_margin_distillation else (ROWS, -1)
  student = STUDENT.at[0].set(0.0)

  def run(variant):
    f = lambda s: loss(*(x.reshape(shape) for x in (s, TEACHER, LOGITS)), variant=variant)
    return jax.value_and_grad(f)(student)

  (value, grad), (released, exploded) = run("intended"), run("released")
  assert float(value) == pytest.approx(float(released), rel=1e-5)
  np.testing.assert_array_equal(grad[0], 0.0)
  assert np.abs(exploded[0]).max() > 1e9
  np.testing.assert_allclose(grad[1:], exploded[1:], rtol=1e-3, atol=1e-6)
  assert np.abs(grad[1:]).max() > 1e-3


def of(loss, **options):
  """(student, teacher, logits, weight) -> (value, gradient of the student)."""

  def run(student, teacher, logits, weight):
    more = () if loss is similarity_distillation else (logits,)
    return jax.value_and_grad(lambda s: loss(s, teacher, *more, weight, **options))(student)

  return run


@pytest.mark.parametrize("variant", ["intended", "released"])
@pytest.mark.parametrize("loss", [margin_distillation, similarity_distillation])
def test_rows_of_weight_0_are_never_read(loss, variant):
  """Neither as rows nor as columns: value and gradient are those of the others alone."""
  rows, run = jnp.asarray([1, 4]), of(loss, variant=variant)
  there = np.setdiff1d(np.arange(ROWS), rows)
  weight = jnp.ones(ROWS).at[rows].set(0.0)
  value, grad = run(*(x.at[rows].set(jnp.nan) for x in (STUDENT, TEACHER, LOGITS)), weight)
  want, alone = run(*(x[there] for x in (STUDENT, TEACHER, LOGITS)), None)
  assert float(value) == pytest.approx(float(want), rel=1e-5)
  np.testing.assert_allclose(grad[there], alone, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(grad[rows], 0.0)


@pytest.mark.parametrize("loss", [margin_distillation, similarity_distillation])
def test_a_batch_without_rows_is_0(loss):
  value, grad = of(loss)(STUDENT, TEACHER, LOGITS, jnp.zeros(ROWS))
  assert float(value) == 0 and not np.asarray(grad).any()


def test_an_example_that_weighs_more():
  """w_i is the share of u_i H_i."""
  u = jnp.asarray([2.0, 1, 1, 1, 1, 0.5])
  h = teacher_entropy(LOGITS)
  np.testing.assert_allclose(entropy_weights(h, u), u * h / (u @ h), rtol=1e-6)


def dense_by_hand(student, teacher, logits):
  """Pixels [N, D]: the columns in two halves, each with lengths of its own."""
  n = len(student)
  total = 0.0
  q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  h = -(q * np.log(q)).sum(1)
  for half in (slice(0, n // 2), slice(n // 2, n)):
    gs, gt = student @ student[half].T, teacher @ teacher[half].T
    unit = lambda g: g / np.linalg.norm(g, axis=1, keepdims=True)
    total += ((unit(gs) - unit(gt)) ** 2).sum(1) @ (h / h.sum())
  return total


MAPS = [RNG.normal(size=(3, 2, 3, d)) for d in (WIDTH, WIDTH, CLASSES)]


def dense(maps, weight=None, **options):
  return dense_margin_distillation(*(jnp.asarray(x, jnp.float32) for x in maps), weight, **options)


@pytest.mark.parametrize("images, columns", [(2, 3), (1, 3), (3, 1)])  # 12, 6 and 6 pixels
def test_dense_by_hand(images, columns):
  maps = [x[:images, :, :columns] for x in MAPS]
  want = dense_by_hand(*(x.reshape(-1, x.shape[-1]) for x in maps))
  assert float(dense(maps)) == pytest.approx(want, rel=1e-5)


def test_an_odd_number_of_pixels():
  maps = [x[:, :1] for x in MAPS]  # 9: halves of 4 and 5
  want = dense_by_hand(*(x.reshape(-1, x.shape[-1]) for x in maps))
  assert float(dense(maps)) == pytest.approx(want, rel=1e-5)


def test_an_image_of_weight_0_moves_no_half():
  weight = jnp.asarray([1.0, 0, 1])
  garbage = [np.where(np.arange(3).reshape(3, 1, 1, 1) == 1, np.nan, x) for x in MAPS]
  assert float(dense(garbage, weight)) == pytest.approx(
    float(dense([x[[0, 2]] for x in MAPS])), rel=1e-5
  )


def test_logits_and_high_maps_are_averaged():
  want = float(dense(MAPS))
  twice = [np.repeat(np.repeat(x, 2, axis=1), 2, axis=2) for x in MAPS]
  waves = [x + np.where(np.arange(4).reshape(4, 1, 1) % 2, 1.0, -1.0) for x in twice]  # mean 0
  assert float(dense([*MAPS[:2], waves[2]])) == pytest.approx(want, rel=1e-5)
  assert float(dense(waves, most=(2, 3))) == pytest.approx(want, rel=1e-5)
  assert abs(float(dense(waves)) - want) > 1e-2  # 4 pixels high is no more than 30


def test_over_a_mesh_the_similarities_are_those_of_the_whole_batch():
  mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  place = lambda x: jax.device_put(
    x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  )
  spread = jax.jit(margin_distillation)(*map(place, (STUDENT, TEACHER, LOGITS)))
  assert float(spread) == pytest.approx(by_hand(STUDENT, TEACHER, LOGITS, "row"), rel=1e-5)


@pytest.mark.parametrize(
  "run, message",
  [
    (lambda: margin_distillation(STUDENT, TEACHER, LOGITS, weight_axis="x"), "weight_axis 'x'"),
    (lambda: margin_distillation(STUDENT, TEACHER, LOGITS, variant="x"), "variant 'x'"),
    (lambda: dense(MAPS, variant="x"), "variant 'x'"),
    (lambda: similarity_distillation(STUDENT, TEACHER, variant="x"), "variant 'x'"),
  ],
)
def test_unknown_options_are_refused(run, message):
  with pytest.raises(ValueError, match=f"unknown {message}; expected one of"):
    run()
