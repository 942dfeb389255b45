"""wss_cmer: networks, both passes of batch norm, what masks and missing modalities may not do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, encoders, fusion, train
from mmfuse.core import Batch, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.segmentation import _maps
from mmfuse.methods.segmentation._cam_net import CamNet, Nets

WIDTH = 2


def model(names="ab", classes=2):
  return fusion.LateFusion({m: encoders.MLP(2, ()) for m in names}, classes)


def build(names="ab", classes=2, **options):
  return METHODS["wss_cmer"](model(names, classes), 0.1, width=WIDTH, levels=2, **options)


@functools.cache
def table(truth: float):
  """Bright squares, tagged; the masks hold `truth` where there is one."""
  rng = np.random.default_rng(0)
  rows, label = 14, np.arange(14) % 2
  arrays = {m: rng.normal(size=(rows, 6, 6, 1)).astype(np.float32) for m in "ab"}
  mask = np.zeros((rows, 6, 6), np.float32)
  mask[label == 1, 1:4, 2:5] = 1
  for m in "ab":
    arrays[m] += 3 * mask[..., None]
  arrays |= {"label": label, "split": np.repeat([0, 1, 2], [8, 4, 2])}
  arrays["truth_mask"] = np.where(mask > 0, np.float32(truth), mask)
  return data.from_arrays(arrays)


@functools.cache
def trained(truth=1.0):
  return train.fit(method(), table(truth), steps=4, batch_size=8)


@functools.cache
def method():
  return build()


def test_masks_that_are_no_numbers_change_no_parameter():
  assert np.isnan(table(np.nan).train.truth["mask"]).any()
  good, bad = (trained(t).state().params for t in (1.0, np.nan))
  for x, y in zip(jax.tree.leaves(good), jax.tree.leaves(bad), strict=True):
    np.testing.assert_array_equal(x, y)


def test_what_is_said_is_the_mean_of_what_networks_say_of_their_own_maps():
  state, split = trained().state(), table(1.0).validation
  outputs = train.predict_split(method(), state, split)
  chances = [jax.nn.softmax(outputs.unimodal_logits[m]) for m in "ab"]
  np.testing.assert_allclose(jax.nn.softmax(outputs.logits), np.mean(chances, 0), rtol=1e-5)
  for m in "ab":
    cams = outputs.aux["cams"][m]
    assert cams.shape == (4, 6, 6, 2) and cams.min() >= 0 and cams.max() <= 1


def test_an_absent_modality_has_no_map_and_no_say():
  state, split = trained().state(), table(1.0).validation
  mask = {"a": np.ones(4, bool), "b": np.arange(4) > 1}
  outputs = jax.jit(method().predict)(state, split.inputs, mask)
  assert not np.any(outputs.aux["cams"]["b"][:2]) and np.any(outputs.aux["cams"]["b"][2:])
  alone = jax.nn.log_softmax(outputs.unimodal_logits["a"][:2])
  np.testing.assert_allclose(outputs.logits[:2], alone, rtol=1e-5)


def test_where_a_class_is_seen():
  state, split = trained().state(), table(1.0).validation
  mask = {m: np.arange(4) > 0 for m in "ab"}
  of = method().functions["saliency"]
  kinds = ("cam", "grad_cam", "grad_cam_pp")
  cams, grads, others = jax.jit(
    lambda state: [of(state, split.inputs, mask, 1, kind) for kind in kinds]
  )(state)
  for m in "ab":
    assert cams[m].shape == (4, 6, 6) and not cams[m][0].any()
    np.testing.assert_allclose(cams[m], grads[m], atol=1e-4)
  assert np.isfinite(others["a"]).all()


@pytest.mark.parametrize("size", [(7, 5), (8, 8)])
def test_a_map_has_the_size_of_the_image_and_pools_to_the_logits(size):
  net, x = CamNet(1, 3, formulation="lax"), jnp.ones((2, *size, 2))
  (maps, last), _ = jax.eval_shape(
    lambda: net.init_with_output(jax.random.key(0), x, jnp.ones(2, bool), train=False)
  )
  assert maps.shape == (2, *size, 3) and last.shape == (2, *size, 1)


def test_both_passes_move_the_statistics_one_after_the_other():
  nets = Nets(("a",), WIDTH, 2, lambda inputs, mask: 2, same_size=True)
  rng = np.random.default_rng(0)
  views = jnp.asarray(rng.normal(size=(2, 4, 4, 4, 1)), jnp.float32)
  present = jnp.asarray([True, True, False, True])
  batch = Batch({"a": views[0]}, None, {"a": present}, np.ones(4), np.arange(4), {})
  variables, _ = nets.begin(jax.random.key(0), batch, 4)
  learn = jax.jit(lambda present: nets.learn(variables, "a", views, present))
  maps, stats = learn(present)
  net, now = CamNet(WIDTH, 2, 2), {k: v["a"] for k, v in variables.items()}
  one = jax.jit(lambda v, x: net.apply(v, x, present, train=True, mutable=["batch_stats"]))
  for x, found in zip(views, maps):
    (want, _), new = one(now, x)
    np.testing.assert_allclose(found, want, atol=1e-5)
    now = {**now, **new}
  for x, y in zip(jax.tree.leaves(stats), jax.tree.leaves(now["batch_stats"]), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
  _, still = learn(jnp.zeros(4, bool))
  for x, y in zip(jax.tree.leaves(still), jax.tree.leaves(variables["batch_stats"]), strict=True):
    np.testing.assert_array_equal(x, y)
  np.testing.assert_allclose(_maps.pooled(maps[0]), np.asarray(maps[0]).mean((1, 2)), atol=1e-6)


def test_what_it_cannot_do_is_said():
  with pytest.raises(Unavailable, match="needs two or more"):
    build("a")
  for options, words in (
    ({"cross": -1.0}, "weight of cmer"),
    ({"temperature": 0.0}, "temperature must be positive"),
    ({"transforms": ()}, "got none"),
    ({"transforms": ("flip", "bend")}, "transforms are some of"),
  ):
    with pytest.raises(ValueError, match=words):
      build(**options)
  with pytest.raises(ValueError, match="width must be at least 1"):
    METHODS["wss_cmer"](model(), 0.1, width=0)


def batch_of(**shapes) -> Batch:
  inputs = {m: np.zeros((4, *shape), np.float32) for m, shape in shapes.items()}
  ones = np.ones(4, bool)
  rows = np.arange(4)
  return Batch(inputs, rows % 2, dict.fromkeys(shapes, ones), ones * 1.0, rows, {})


@pytest.mark.parametrize(
  "shapes, words",
  [
    ({"a": (6,), "b": (6, 6, 1)}, "'a' holds none"),
    ({"a": (6, 2), "b": (6, 6, 1)}, "'a' holds none"),
    ({"a": (6, 6, 1), "b": (6, 4, 1)}, "a 6 x 6, b 6 x 4"),
  ],
)
def test_it_needs_images_of_one_size(shapes, words):
  with pytest.raises(Unavailable, match=words):
    train.initial(method(), jax.random.key(0), batch_of(**shapes))


def test_images_of_different_sizes_will_do_where_maps_are_not_compared():
  apart = build(cross=0.0)
  state = jax.eval_shape(
    lambda: train.initial(apart, jax.random.key(0), batch_of(a=(6, 6, 1), b=(4, 4, 3)))
  )
  assert set(state.params) == {"a", "b"}
