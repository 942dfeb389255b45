"""OGM and OGM-GE: hand-computed coefficients, noise, owners, windows, absent modalities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import balancing, tree
from mmfuse.balancing import _ogm
from mmfuse.core import Clock

PARAMS = {
  "audio": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
  "image": {"kernel": jnp.ones((2, 2, 1, 3)), "bias": jnp.ones(3)},
  "head": {"kernel": jnp.ones((3, 4))},
}
GRADS = jax.tree.map(lambda p: jnp.arange(p.size, dtype=jnp.float32).reshape(p.shape), PARAMS)
KEY = jax.random.key(0)


def scores(**values):
  return {m: jnp.float32(v) for m, v in values.items()}


def clock(epoch):
  return Clock(*(jnp.int32(n) for n in (0, epoch, 0, 1, 9)))


def update(tx, grads=GRADS, **extra):
  return tx.update(grads, tx.init(PARAMS), PARAMS, **extra)


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_encoder_ahead_is_damped():
  k = _ogm.ogm_coefficients(scores(audio=0.6, image=0.3), 0.3)
  np.testing.assert_allclose(k["audio"], 1 - np.tanh(0.3 * 2.0), rtol=1e-6)
  assert k["image"] == 1.0


def test_swapping_modalities_swaps_coefficients():
  one = _ogm.ogm_coefficients(scores(audio=0.6, image=0.3), 0.3)
  two = _ogm.ogm_coefficients(scores(audio=0.3, image=0.6), 0.3)
  assert one["audio"] == two["image"] and one["image"] == two["audio"]


def test_a_tie_damps_the_first_modality():
  k = _ogm.ogm_coefficients(scores(visual=0.4, audio=0.4), 0.5)
  np.testing.assert_allclose(k["audio"], 1 - np.tanh(0.5), rtol=1e-6)
  assert k["visual"] == 1.0


def test_three_modalities_compare_with_the_mean_of_the_others():
  r = _ogm.discrepancy_ratios(scores(a=0.2, b=0.4, c=0.6))
  np.testing.assert_allclose([r["a"], r["b"], r["c"]], [0.4, 1.0, 2.0], rtol=1e-6)
  k = _ogm.ogm_coefficients(scores(a=0.2, b=0.4, c=0.6), 1.0)
  assert k["a"] == 1.0 and k["b"] == 1.0 and k["c"] < 0.04


def test_an_absent_modality_is_no_rival():
  k = _ogm.ogm_coefficients(scores(a=0.0, b=0.4, c=0.2), 0.3)
  assert k["a"] == 1.0 and k["c"] == 1.0
  np.testing.assert_allclose(k["b"], 1 - np.tanh(0.6), rtol=1e-6)
  for values in ({"a": 0.0, "b": 0.4}, {"a": 0.0, "b": 0.0}):
    assert set(map(float, _ogm.ogm_coefficients(scores(**values), 0.3).values())) == {1.0}


def test_coefficients_lie_in_the_unit_interval_and_one_is_below_it():
  rng = np.random.default_rng(0)
  pairs = jnp.asarray(rng.uniform(0.01, 1.0, (64, 2)), jnp.float32)
  k = jax.vmap(lambda p: _ogm.ogm_coefficients({"a": p[0], "b": p[1]}, 0.3))(pairs)
  stacked = np.stack([k["a"], k["b"]])
  assert ((stacked > 0) | np.isclose(stacked, 0)).all() and (stacked <= 1).all()
  assert ((stacked < 1).sum(0) == 1).all()


def test_alpha_zero_is_the_identity():
  updates, _ = update(balancing.ogm(0.0), scores=scores(audio=0.6, image=0.3))
  same(updates, GRADS)


def test_only_weight_tensors_of_encoders_change():
  updates, state = update(balancing.ogm(0.3), scores=scores(audio=0.3, image=0.6))
  k = 1 - np.tanh(0.6)
  np.testing.assert_allclose(updates["image"]["kernel"], GRADS["image"]["kernel"] * k, rtol=1e-6)
  same(updates["image"]["bias"], GRADS["image"]["bias"])
  same(updates["audio"], GRADS["audio"])
  same(updates["head"], GRADS["head"])
  np.testing.assert_allclose(state.coefficients["image"], k, rtol=1e-6)


def test_released_variant_touches_4d_kernels_only():
  tx = balancing.ogm(0.3, variant="released")
  updates, _ = update(tx, scores=scores(audio=0.6, image=0.3))
  same(updates, GRADS)
  updates, _ = update(tx, scores=scores(audio=0.3, image=0.6))
  assert not np.allclose(updates["image"]["kernel"], GRADS["image"]["kernel"])


def test_noise_has_the_spread_of_the_gradient_before_modulation():
  noise = jax.tree.map(jnp.ones_like, GRADS)
  seen = scores(audio=0.6, image=0.3)
  updates, state = update(balancing.ogm_ge(0.3), scores=seen, key=KEY, noise=noise)
  for m in ("audio", "image"):
    g = np.asarray(GRADS[m]["kernel"])
    want = g * float(state.coefficients[m]) + np.std(g, ddof=1) + 1e-8
    np.testing.assert_allclose(updates[m]["kernel"], want, rtol=1e-6)
    same(updates[m]["bias"], GRADS[m]["bias"])


def test_drawn_noise_is_standard_normal_and_differs_between_leaves():
  params = {m: {"w": jnp.zeros((40, 50))} for m in ("a", "b")}
  grads = jax.tree.map(
    lambda p: jnp.tile(jnp.array([-1.0, 1.0]), p.size // 2).reshape(p.shape), params
  )
  tx = balancing.ogm_ge(0.0)
  updates, _ = tx.update(grads, tx.init(params), scores=scores(a=0.5, b=0.6), key=KEY)
  z = {m: np.asarray(updates[m]["w"] - grads[m]["w"]) for m in params}
  for m in z:
    assert abs(z[m].mean()) < 0.1 and abs(z[m].std() - 1) < 0.1
  assert abs(np.corrcoef(z["a"].ravel(), z["b"].ravel())[0, 1]) < 0.1
  again, _ = tx.update(grads, tx.init(params), scores=scores(a=0.5, b=0.6), key=KEY)
  same(again, updates)


def test_zero_gradients_get_noise_of_size_1e_8():
  zero = jax.tree.map(jnp.zeros_like, GRADS)
  noise = jax.tree.map(jnp.ones_like, GRADS)
  seen = scores(audio=0.6, image=0.3)
  updates, _ = update(balancing.ogm_ge(0.3), zero, scores=seen, key=KEY, noise=noise)
  np.testing.assert_allclose(updates["audio"]["kernel"], np.full((2, 3), 1e-8), rtol=1e-5)


def test_an_absent_encoder_gets_no_noise():
  noise = jax.tree.map(jnp.ones_like, GRADS)
  seen = scores(audio=0.0, image=0.3)
  updates, _ = update(balancing.ogm_ge(0.3), scores=seen, key=KEY, noise=noise)
  same(updates["audio"], GRADS["audio"])
  assert not np.allclose(updates["image"]["kernel"], GRADS["image"]["kernel"])


def test_a_single_number_has_no_spread():
  params = {"a": jnp.ones((1, 1)), "b": jnp.ones((1, 1))}
  tx = balancing.ogm_ge(0.3)
  updates, _ = tx.update(params, tx.init(params), scores=scores(a=0.5, b=0.6), key=KEY)
  np.testing.assert_allclose(updates["a"], 1.0, rtol=1e-6)


def test_the_window_is_inclusive():
  tx = balancing.ogm(0.3, start_epoch=1, end_epoch=2)
  seen = scores(audio=0.6, image=0.3)
  damped = [
    float(update(tx, scores=seen, clock=clock(e))[1].coefficients["audio"]) < 1 for e in range(4)
  ]
  assert damped == [False, True, True, False]
  outside, _ = update(balancing.ogm_ge(0.3, end_epoch=0), scores=seen, key=KEY, clock=clock(1))
  same(outside, GRADS)


def test_labels_given_to_the_factory_win():
  nested = {"net": PARAMS}
  rule = functools.partial(tree.owners_of, modalities=("audio", "image"))
  tx = balancing.ogm(0.3, owners=lambda p: {"net": rule(p["net"])})
  updates, state = tx.update(
    {"net": GRADS}, tx.init(nested), nested, scores=scores(audio=0.3, image=0.6)
  )
  assert set(state.coefficients) == {"audio", "image"}
  assert not np.allclose(updates["net"]["image"]["kernel"], GRADS["image"]["kernel"])
  same(updates["net"]["head"], GRADS["head"])


def test_labels_of_the_step_spare_heads():
  params = {**PARAMS, "heads": {"image": {"kernel": jnp.ones((3, 4))}}}
  grads = jax.tree.map(jnp.ones_like, params)
  tx = balancing.ogm(0.3)
  updates, _ = tx.update(
    grads,
    tx.init(params),
    params,
    scores=scores(audio=0.3, image=0.6),
    owners=tree.owners_of(params, ("audio", "image")),
  )
  same(updates["heads"], grads["heads"])
  assert not np.allclose(updates["image"]["kernel"], 1.0)


def test_in_a_users_chain_under_jit():
  tx = optax.chain(balancing.ogm_ge(alpha=0.3), optax.sgd(0.1, momentum=0.9))
  step = jax.jit(lambda g, s, k, seen: tx.update(g, s, PARAMS, scores=seen, key=k))
  updates, state = step(GRADS, tx.init(PARAMS), KEY, scores(audio=0.6, image=0.3))
  np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * GRADS["head"]["kernel"], rtol=1e-6)
  assert float(optax.tree.get(state, "coefficients")["audio"]) < 1


def test_what_is_missing_is_named():
  with pytest.raises(TypeError, match="scores"):
    update(balancing.ogm(), key=KEY)
  with pytest.raises(TypeError, match="key"):
    update(balancing.ogm_ge(), scores=scores(audio=0.6, image=0.3))
  with pytest.raises(
    ValueError, match="modality 'video', but the parameters have the subtrees audio"
  ):
    update(balancing.ogm(), scores=scores(audio=0.6, video=0.3))
  with pytest.raises(ValueError, match="clock"):
    update(balancing.ogm(end_epoch=3), scores=scores(audio=0.6, image=0.3))
  with pytest.raises(ValueError, match="alpha"):
    balancing.ogm(-1.0)
  with pytest.raises(ValueError, match="variant must be one of default, released"):
    balancing.ogm_ge(variant="paper")
