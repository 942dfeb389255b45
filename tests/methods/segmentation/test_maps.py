"""Activation maps and the transforms that move them: what each promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.segmentation import _maps, _transforms

RNG = np.random.default_rng(0)
MAPS = jnp.asarray(RNG.normal(size=(3, 5, 4, 2)), jnp.float32)


def test_a_map_is_normalised_to_its_own_range_whatever_its_scale():
  n = _maps.max_normalised(MAPS)
  assert float(n.min()) == 0 and float(n.max()) <= 1
  np.testing.assert_allclose(n.max((1, 2)), 1, rtol=1e-6)
  np.testing.assert_allclose(n, _maps.max_normalised(7 * MAPS), atol=1e-6)
  by_hand = _maps.max_normalised(jnp.asarray([[[[-3.0], [1.0], [4.0]]]]))
  np.testing.assert_allclose(by_hand[0, 0, :, 0], [0, 0.25, 1], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -2.0, 3.0])
def test_a_flat_map_is_zero_and_has_a_finite_gradient(value):
  flat = jnp.full((1, 3, 3, 1), value)
  other = jnp.ones((1, 3, 3))

  def distance(x):
    return _maps.map_distances(_maps.max_normalised(x)[..., 0], other).sum()

  assert not np.any(_maps.max_normalised(flat))
  assert np.isfinite(jax.grad(distance)(flat)).all()


def test_distances_are_of_unit_maps():
  p, q = (jnp.abs(MAPS[..., i]) for i in (0, 1))
  found = _maps.map_distances(p, q)
  np.testing.assert_allclose(found, _maps.map_distances(3 * p, 0.1 * q), rtol=1e-4)
  np.testing.assert_allclose(_maps.map_distances(p, 2 * p), 0, atol=1e-12)
  unit = lambda x: x / np.sqrt((x**2).sum((1, 2), keepdims=True))
  by_hand = ((unit(np.asarray(p)) - unit(np.asarray(q))) ** 2).mean((1, 2))
  np.testing.assert_allclose(found, by_hand, rtol=1e-5)


def test_a_row_is_standardised_by_itself_and_a_constant_is_nothing():
  x = jnp.concatenate([MAPS, jnp.full((1, 5, 4, 2), 0.1)])
  found = np.asarray(_maps.standardised(x))
  np.testing.assert_allclose(found[:3].mean((1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(found[:3].std((1, 2), ddof=1), 1, rtol=1e-5)
  assert not found[3].any()
  assert not np.any(_maps.standardised(jnp.ones((1, 1, 1, 1))))


def test_logits_are_the_mean_of_a_map():
  np.testing.assert_allclose(_maps.pooled(MAPS), np.asarray(MAPS).mean((1, 2)), rtol=1e-5)


def test_what_is_shown_of_a_linear_head_is_the_same_by_map_and_by_gradient():
  a, w = jnp.abs(MAPS), jnp.asarray([1.5, -0.5])
  slope = jnp.broadcast_to(w / 20, a.shape)
  cam, grad = _maps.shown(a @ w, (9, 7)), _maps.shown(_maps.grad_cam(a, slope), (9, 7))
  np.testing.assert_allclose(cam, grad, atol=1e-5)
  assert cam.shape == (3, 9, 7) and float(cam.max()) <= 1
  corners = _maps.shown(a @ w, (5, 4))[:, ::4, ::3]
  np.testing.assert_allclose(cam[:, ::8, ::6], corners, atol=1e-6)
  assert _maps.grad_cam_pp(np.float64(a), np.float64(slope)).dtype == np.float64


def moved(kind, x, seed=0):
  drawn = _transforms.draw(jax.random.key(seed), len(x), (kind,))
  return drawn, _transforms.transformed(drawn, x, (kind,))


@pytest.mark.parametrize("kind", _transforms.KINDS)
def test_images_and_maps_of_them_move_alike(kind):
  """Of a function of single places the map of the moved image is the moved map, outside of 0 too."""
  x = jnp.asarray(RNG.uniform(size=(4, 6, 6, 3)), jnp.float32)
  of = lambda x: x.sum(-1, keepdims=True)
  for seed in range(3):
    drawn, found = moved(kind, x, seed)
    assert found.shape == x.shape
    np.testing.assert_allclose(of(found), _transforms.transformed(drawn, of(x), (kind,)), atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (3, 5)])
@pytest.mark.parametrize("kind", _transforms.EXACT)
def test_exact_transforms_move_every_pixel_and_lose_none(kind, size):
  x = jnp.arange(2 * size[0] * size[1], dtype=jnp.float32).reshape(2, *size, 1)
  _, found = moved(kind, x)
  for before, after in zip(np.asarray(x), np.asarray(found)):
    assert sorted(before.ravel()) == sorted(after.ravel())
    assert (before != after).any()


def test_a_turn_is_drawn_row_by_row_and_does_not_depend_on_how_many_rows_there_are():
  x = jnp.tile(jnp.arange(9.0).reshape(1, 3, 3, 1), (24, 1, 1, 1))
  drawn, found = moved("turn", x)
  for row, turns in zip(np.asarray(found), np.asarray(drawn.turns)):
    np.testing.assert_array_equal(row, np.rot90(np.asarray(x[0]), turns))
  assert set(np.asarray(drawn.turns)) == {1, 2, 3}
  few = _transforms.draw(jax.random.key(0), 5, ("turn",))
  np.testing.assert_array_equal(few.turns, drawn.turns[:5])


def test_a_shift_is_by_whole_pixels_and_brings_in_nothing():
  x = jnp.arange(1.0, 101.0).reshape(1, 10, 10, 1)
  drawn = _transforms.draw(jax.random.key(0), 1, ("shift",))._replace(
    shift=jnp.asarray([0.2, -0.3])
  )
  found = np.asarray(_transforms.transformed(drawn, x, ("shift",)))[0, ..., 0]
  np.testing.assert_array_equal(found[2:, :7], np.asarray(x)[0, :8, 3:, 0])
  assert not found[:2].any() and not found[:, 7:].any()


def test_a_scale_is_about_the_centre():
  x = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4].set(1.0).at[0, 0, 0].set(5.0)
  drawn = _transforms.draw(jax.random.key(0), 1, ("scale",))._replace(scale=jnp.asarray(1.2))
  found = np.asarray(_transforms.transformed(drawn, x, ("scale",)))[0, ..., 0]
  # The first pixel of 9 shows 4 - 4 / 1.2 = 2/3 of a pixel further in: (1/3)^2 of the corner.
  assert found[4, 4] == pytest.approx(1.0) and found[0, 0] == pytest.approx(5 / 9, rel=1e-4)


def test_all_kinds_are_drawn():
  drawn = [int(_transforms.draw(jax.random.key(s), 1, _transforms.KINDS).kind) for s in range(30)]
  assert set(drawn) == {0, 1, 2, 3}
