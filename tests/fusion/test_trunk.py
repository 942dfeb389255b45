"""The shared trunk: maps side by side, what is absent is zero, what distillation reads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, train
from mmfuse.encoders._resnet import Stage

QUICK = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"widths": (4, 6), "ratio": 2}
ROWS, SIDE = 4, 4
RNG = np.random.default_rng(0)
MAPS = {
  m: jnp.asarray(RNG.normal(size=(ROWS, SIDE * SIDE, d)), jnp.float32)
  for m, d in (("a", 3), ("b", 2))
}
# Row 0 has both, row 3 nothing.
MASK = {"a": jnp.array([True, True, False, False]), "b": jnp.array([True, False, True, False])}


def random(shapes):
  """Parameters that are nowhere zero, drawn by NumPy."""
  draw = lambda p: jnp.asarray(0.3 * RNG.normal(size=p.shape), p.dtype)
  return jax.tree.map(draw, shapes)


def variables(module, features=MAPS, mask=MASK):
  init = lambda: module.init(jax.random.key(0), features, mask, num_classes=2, train=False)
  shapes = jax.eval_shape(init)
  stats = jax.tree.map(lambda s: jnp.ones(s.shape), shapes.get("batch_stats", {}))
  return {"params": random(shapes["params"]), "batch_stats": stats}


def test_it_is_two_stages_a_mean_and_a_linear_head():
  module = fusion.Trunk(**SMALL)
  v = variables(module)
  logits, beside = QUICK(lambda v: module.apply(v, MAPS, MASK, num_classes=2, train=False))(v)
  x = jnp.concatenate(
    [jnp.where(MASK[m][:, None, None], MAPS[m], 0).reshape(ROWS, SIDE, SIDE, -1) for m in "ab"], -1
  )
  for name, width in (("layer3", 4), ("layer4", 6)):
    own = {k: v[k][name] for k in v}
    stage = Stage(2, width, 2, "batch", "auto", 2)
    x = QUICK(lambda own, x, s=stage: s.apply(own, x, jnp.ones(ROWS, bool), train=False))(own, x)
  assert x.shape == (ROWS, 1, 1, 6)
  np.testing.assert_allclose(beside["latent"], x.reshape(ROWS, -1), atol=1e-5)
  out = v["params"]["out"]
  want = x.mean((1, 2)) @ out["kernel"] + out["bias"][None]
  np.testing.assert_allclose(logits, want, atol=1e-5)


@pytest.mark.parametrize("train_", [False, True])
def test_what_is_absent_is_not_read(train_):
  module = fusion.Trunk(**SMALL)
  v = variables(module)

  def loss(features):
    (logits, _), new = module.apply(
      v, features, MASK, num_classes=2, train=train_, mutable=["batch_stats"]
    )
    return jnp.sin(logits).sum(), (logits, new)

  run = QUICK(jax.grad(loss, has_aux=True))
  garbage = {m: jnp.where(MASK[m][:, None, None], x, jnp.nan) for m, x in MAPS.items()}
  clean, dirty = run(MAPS), run(garbage)
  jax.tree.map(np.testing.assert_array_equal, clean, dirty)
  for m, g in clean[0].items():
    there = np.asarray(MASK[m])
    assert np.abs(g[there]).max() > 0 and not np.asarray(g[~there]).any()


def test_maps_that_are_not_square_say_their_height():
  flat = {m: x[:, :8] for m, x in MAPS.items()}
  shape = lambda **options: (
    jax.eval_shape(
      lambda: fusion.Trunk(**SMALL, **options).init_with_output(
        jax.random.key(0), flat, MASK, num_classes=2, train=False
      )[0]
    )[1]["latent"].shape
  )
  assert shape(height=2) == (ROWS, 6) and shape(height=8) == (ROWS, 2 * 6)
  with pytest.raises(ValueError, match="8 positions of 'a' are no map of height 3; say height="):
    shape()
  with pytest.raises(ValueError, match=r"a trunk reads maps \[B, H W, D\], got \[4, 3\] of 'a'"):
    variables(fusion.Trunk(**SMALL), {m: x[:, 0] for m, x in MAPS.items()})


def test_with_stems_it_is_a_model_like_any_other():
  """A step of the joint loss; the trunk belongs to no modality."""
  stem = encoders.SEResNet18Stem((3, 4), 2)
  model = fusion.LateFusion(dict.fromkeys("ab", stem), 2, fusion.Trunk(**SMALL))
  inputs = {
    m: jnp.asarray(RNG.normal(size=(ROWS, 16, 16, c)), jnp.float32) for m, c in (("a", 1), ("b", 3))
  }
  said = jax.eval_shape(
    lambda: train.outputs_of(
      model, _kept(model.init(jax.random.key(0), inputs, MASK)), inputs, MASK
    )
  )
  assert said.logits.shape == (ROWS, 2) and set(said.aux) == {"latent"}
  assert {m: x.shape for m, x in said.features.items()} == dict.fromkeys("ab", (ROWS, 2 * 2 * 4))
  assert model.restrict(["a"]).fusion == model.fusion


def _kept(variables):
  return {"params": variables["params"], "stats": variables["batch_stats"]}
