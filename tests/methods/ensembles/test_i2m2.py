"""I2M2: the product of experts, phases, separate weights, missing modalities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, train
from mmfuse.core import Batch, Sequence, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.ensembles import _experts, i2m2_recipes

from .. import _small


def draw(seed, shape=(5, 4)):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_product_and_mixture_by_hand():
  logits = {"a": jnp.log(jnp.asarray([[0.8, 0.2]])), "b": jnp.log(jnp.asarray([[0.5, 0.5]]))}
  logits["c"] = jnp.log(jnp.asarray([[0.25, 0.75]]))
  # .8 * .5 * .25 : .2 * .5 * .75 = 4 : 3.
  np.testing.assert_allclose(np.exp(fusion.combine_experts(logits)), [[4 / 7, 3 / 7]], rtol=1e-6)
  mean = [[1.55 / 3, 1.45 / 3]]
  np.testing.assert_allclose(np.exp(fusion.mix_experts(logits)), mean, rtol=1e-6)
  mask = {"a": jnp.asarray([True]), "b": jnp.asarray([True]), "c": jnp.asarray([False])}
  np.testing.assert_allclose(np.exp(fusion.combine_experts(logits, mask)), [[0.8, 0.2]], rtol=1e-6)
  np.testing.assert_allclose(np.exp(fusion.mix_experts(logits, mask)), [[0.65, 0.35]], rtol=1e-6)
  nobody = dict.fromkeys("abc", jnp.asarray([False]))
  np.testing.assert_allclose(np.exp(fusion.combine_experts(logits, nobody)), [[0.5, 0.5]])
  np.testing.assert_array_equal(fusion.mix_experts(logits, nobody), [[0.0, 0.0]])
  for combine in (fusion.combine_experts, fusion.mix_experts):
    with pytest.raises(ValueError, match="at least one"):
      combine({})


def test_invariants_of_the_product():
  a, b, c = draw(0), draw(1), draw(2)
  out = fusion.combine_experts({"a": a, "b": b, "c": c})
  close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
  close(np.exp(out).sum(-1), np.ones(5))
  close(out, jax.nn.log_softmax(a + b + c))
  close(out, fusion.combine_experts({"a": a + draw(3, (5, 1)), "b": b, "c": c}))  # shift
  close(out, fusion.combine_experts({"a": c, "b": a, "c": b}))  # permutation
  close(out, fusion.combine_experts({"a": a, "b": b, "c": c, "d": jnp.full((5, 4), 7.0)}))
  close(fusion.combine_experts(dict.fromkeys("abc", a)), jax.nn.log_softmax(3 * a))
  close(fusion.combine_experts({"a": a}), jax.nn.log_softmax(a))
  grads = jax.grad(lambda z: fusion.combine_experts(z)[:, 0].sum())({"a": a, "b": b})
  close(grads["a"], grads["b"])


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_phases_and_shares(num):
  names = [f"expert_{m}" for m in _small.NAMES[:num]]
  found = METHODS["i2m2"](_small.model(num)).phases
  assert [p.name for p in found] == [*names, "expert_joint", "train"]
  assert sum(p.share for p in found) == pytest.approx(1.0)
  assert [p.name for p in METHODS["intra"](_small.model(num)).phases] == [*names, "train"]
  for build in (METHODS["i2m2"], METHODS["intra"]):
    (phase,) = build(_small.model(num), pretrained=False).phases
    assert (phase.name, phase.share) == ("train", 1.0)
  assert [p.name for p in METHODS["inter"](_small.model(num)).phases] == ["train"]


def moved(before, after):
  return max(float(abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (before, after))))


@pytest.mark.parametrize("num", [1, 3])
def test_a_phase_moves_its_expert_alone(num):
  model = _small.model(num, norm="batch")
  experts = _experts.experts_of(model, model)
  method = METHODS["i2m2"](model, 0.1)
  first = _small.start(method, num)
  everyone = [*experts.modalities, "joint"]
  for phase in method.phases:
    after, log = jax.jit(phase.step)(first, _small.batch(num), jax.random.key(1), _small.clock())
    assert bool(log["finite"]) and jax.tree.structure(after) == jax.tree.structure(first)
    trained = everyone if phase.name == "train" else [phase.name.removeprefix("expert_")]
    for name in everyone:
      own = lambda s, name=name: experts.take(s.stats, name, stats=True)
      distances = (
        moved(experts.take(first.params, name), experts.take(after.params, name)),
        moved(own(first), own(after)),
      )
      assert all(d > 0 for d in distances) if name in trained else distances == (0, 0)


def test_experts_share_no_weights_and_leaves_are_labelled():
  model = _small.model(2)
  state = _small.start(METHODS["i2m2"](model, pretrained=False))
  assert set(state.params) == {"a", "b", "heads"} and set(state.params["a"]) == {"alone", "joint"}
  alone = state.params["a"]["alone"]["a"]["dense0"]["kernel"]
  assert moved(alone, state.params["a"]["joint"]["dense0"]["kernel"]) > 0
  experts = _experts.experts_of(model, model)
  start = _small.start(METHODS["inter"](model))
  jax.tree.map(np.testing.assert_array_equal, experts.take(state.params, "joint"), start.params)
  put = experts.put(state.params, "joint", experts.take(state.params, "joint"))
  assert moved(put, state.params) == 0


def test_the_product_alone_moves_the_uni_modal_heads():
  """No probe is added: plain SGD takes the gradient of the loss and nothing else."""
  method = METHODS["i2m2"](_small.model(2), tx=train.sgd(1.0, momentum=0.0), pretrained=False)
  state, batch = _small.start(method), _small.batch(2)
  after, _ = jax.jit(method.phases[0].step)(state, batch, jax.random.key(0), _small.clock())

  def loss(params):
    found = method.predict(state._replace(params=params), batch.inputs, batch.mask).logits
    return -jnp.take_along_axis(found, batch.label[:, None], 1).mean()

  grads = jax.grad(loss)(state.params)
  jax.tree.map(
    lambda p, g, new: np.testing.assert_allclose(p - g, new, atol=1e-6),
    state.params,
    grads,
    after.params,
  )


def test_a_missing_modality_drops_its_expert_and_the_joint_one():
  method = METHODS["i2m2"](_small.model(3), pretrained=False)
  state, batch = _small.start(method, 3), _small.batch(3)
  rows = _small.BATCH
  mask = {m: jnp.ones(rows, bool) for m in "abc"}
  whole = method.predict(state, batch.inputs, mask)
  raw = sum(whole.unimodal_logits.values()) + whole.aux["joint"]
  np.testing.assert_allclose(whole.logits, jax.nn.log_softmax(raw), atol=1e-5)
  mask["b"] = jnp.arange(rows) > 0
  seen = method.predict(state, batch.inputs, mask)
  rest = jax.nn.log_softmax(whole.unimodal_logits["a"] + whole.unimodal_logits["c"])
  np.testing.assert_allclose(seen.logits[0], rest[0], atol=1e-5)
  np.testing.assert_allclose(seen.logits[1:], whole.logits[1:], atol=1e-6)
  nobody = method.predict(state, batch.inputs, dict.fromkeys("abc", jnp.zeros(rows, bool)))
  np.testing.assert_allclose(np.exp(nobody.logits), np.full((rows, 3), 1 / 3), rtol=1e-6)


def test_an_absent_modality_leaves_its_expert_and_the_joint_one_as_they_are():
  method = METHODS["i2m2"](_small.model(2), 0.1)
  state, given = _small.start(method), _small.batch(2, ("b",))
  after, log = jax.jit(method.phases[-1].step)(state, given, jax.random.key(0), _small.clock())
  assert bool(log["finite"]) and moved(state.params["b"], after.params["b"]) == 0
  assert moved(state.params["a"]["joint"], after.params["a"]["joint"]) == 0
  assert moved(state.params["heads"], after.params["heads"]) == 0
  assert moved(state.params["a"]["alone"], after.params["a"]["alone"]) > 0


def test_mixture_is_a_way_to_predict_only():
  product, mixture = (METHODS["intra"](_small.model(2), test=t) for t in ("product", "mixture"))
  state, batch = _small.start(product), _small.batch(2)
  found = product.predict(state, batch.inputs, batch.mask)
  mixed = mixture.predict(state, batch.inputs, batch.mask)
  np.testing.assert_allclose(
    mixed.logits, fusion.mix_experts(found.unimodal_logits, batch.mask), atol=1e-6
  )
  with pytest.raises(ValueError, match="unknown test 'sum'"):
    METHODS["intra"](_small.model(2), test="sum")


def fit(method, num, epochs):
  return train.fit(
    method, _small.splits(num), epochs=epochs, batch_size=_small.BATCH, loop="scan", diagnose=False
  )


def test_fit_keeps_the_budget():
  log = fit(METHODS["i2m2"](_small.model(2), 0.1), 2, 8).logs[0]
  assert log.diverged_at is None and log.examples == 8 * _small.ROWS
  phases = [e["phase"] for e in log.history]
  assert phases == [p for p in ("expert_a", "expert_b", "expert_joint", "train") for _ in range(2)]
  assert log.history[-1]["validation"]["fused"]["accuracy"] > 0.5


def test_a_phase_is_validated_with_its_own_expert():
  method = METHODS["i2m2"](_small.model(2))
  state, batch = _small.start(method), _small.batch(2)
  whole = method.predict(state, batch.inputs, batch.mask)
  present = {**batch.mask, "joint": batch.mask["a"] & batch.mask["b"]}
  given = {**whole.unimodal_logits, "joint": whole.aux["joint"]}
  for phase in method.phases[:-1]:
    name = phase.name.removeprefix("expert_")
    found = phase.predict(state, batch.inputs, batch.mask).logits
    want = jnp.where(present[name][:, None], given[name], 0.0)
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("head", [fusion.Gated("a"), fusion.Sum(), fusion.Early((4,))])
def test_any_fused_head(head):
  model = fusion.LateFusion({m: encoders.MLP(3, (), "none") for m in "ab"}, 3, head)
  method = METHODS["i2m2"](model, 0.1)
  state = _small.start(method)
  after, log = jax.jit(method.phases[-1].step)(
    state, _small.batch(2), jax.random.key(0), _small.clock()
  )
  assert bool(log["finite"]) and moved(state.params, after.params) > 0


def test_refusals():
  other = _small.model(3)
  with pytest.raises(ValueError, match="must have the modalities a, b, got a, b, c"):
    METHODS["i2m2"](_small.model(2), joint=other)
  named = fusion.LateFusion({m: encoders.MLP(3) for m in ("joint", "other")}, 2)
  with pytest.raises(Unavailable, match="rename it"):
    METHODS["i2m2"](named)


@pytest.mark.slow
@pytest.mark.parametrize("trainable", [True, False])
def test_av_mnist_recipe_has_the_networks_and_the_frozen_factors_of_the_page(trainable):
  recipe = i2m2_recipes.av_mnist(
    head="lrtf", lmf_trainable=trainable, image_layers=1, audio_layers=2
  )
  rng = np.random.default_rng(0)
  image, audio = (jnp.asarray(rng.normal(size=(4, n, n, 1)), jnp.float32) for n in (4, 8))
  mask = {m: jnp.ones(4, bool) for m in ("audio", "image")}
  row = jnp.ones(4), jnp.arange(4, dtype=jnp.int32)
  given = Batch({"audio": audio, "image": image}, jnp.arange(4), mask, *row, {})
  method = recipe.i2m2()
  state = train.initial(method, jax.random.key(0), given)
  shapes = jax.tree.map(lambda x: x.shape, state.params)
  assert shapes["image"]["alone"]["image"]["stages_1"]["dense0"]["kernel"] == (6, 100)
  assert shapes["image"]["alone"]["image"]["stages_0"]["conv0"]["kernel"] == (5, 5, 1, 3)
  fused = shapes["heads"]["fused"]
  factors = lambda s: (s.params if trainable else s.stats["joint"])["heads"]["fused"]
  found = jax.tree.map(lambda x: x.shape, factors(state))
  assert found["factor_image"] == (40, 13, 120) and found["factor_audio"] == (40, 25, 120)
  assert fused["dense0"]["kernel"] == (120, 100) and fused["out"]["kernel"] == (100, 10)
  after, _ = jax.jit(method.phases[2].step)(state, given, jax.random.key(1), _small.clock())
  distance = lambda k: moved(state.params["heads"]["fused"][k], after.params["heads"]["fused"][k])
  assert distance("weights") > 0
  before, now = (factors(s)["factor_image"] for s in (state, after))
  assert (float(jnp.abs(now - before).max()) > 0) == trainable  # no weight decay either


@pytest.mark.slow
def test_mimic_recipe_trains_and_has_the_widths_of_the_page():
  recipe = i2m2_recipes.mimic()
  rng = np.random.default_rng(0)
  inputs = {"static": rng.normal(size=(6, 5)), "series": rng.normal(size=(6, 24, 12))}
  inputs = {m: jnp.asarray(x, jnp.float32) for m, x in inputs.items()}
  mask = {m: jnp.ones(6, bool) for m in inputs}
  given = Batch(inputs, jnp.arange(6), mask, jnp.ones(6), jnp.arange(6, dtype=jnp.int32), {})
  for method, kernels in (
    (recipe.i2m2(), {(360, 40), (730, 40), (40, 6), (5, 10), (10, 10), (10, 40), (30, 15)}),
    (recipe.intra(), {(360, 40), (40, 6), (5, 10), (10, 10), (10, 40), (30, 15)}),
    (recipe.inter(), {(730, 40), (40, 6), (5, 10), (10, 10)}),
  ):
    state = train.initial(method, jax.random.key(0), given)
    found = {x.shape for x in jax.tree.leaves(state.params)}
    assert kernels <= found
    after, log = jax.jit(method.phases[-1].step)(state, given, jax.random.key(1), _small.clock())
    assert bool(log["finite"]) and moved(state.params, after.params) > 0


def test_an_expert_has_its_own_optimiser_and_the_last_phase_its_share():
  still = train.sgd(1e-12)
  model = _small.model(2)
  method = METHODS["i2m2"](model, 0.1, expert_tx={"a": still}, tune_share=0.1)
  assert [round(p.share, 6) for p in method.phases] == [0.3, 0.3, 0.3, 0.1]
  state = _small.start(method)
  for phase, moves in zip(method.phases, (False, True, True, True)):
    after, _ = jax.jit(phase.step)(state, _small.batch(2), jax.random.key(1), _small.clock())
    assert (moved(state.params, after.params) > 1e-6) == moves
  for build in (METHODS["i2m2"], METHODS["intra"]):
    with pytest.raises(ValueError, match="no expert 'c' for its optimiser; expected: a, b"):
      build(model, expert_tx={"c": still})
    with pytest.raises(ValueError, match="pretrained=False"):
      build(model, tune_share=0.5, pretrained=False)
    with pytest.raises(ValueError, match=r"tune_share must lie in \(0, 1\), got 1"):
      build(model, tune_share=1)


def test_unknown_head_of_the_recipe():
  with pytest.raises(
    ValueError, match="unknown head 'tensor' of the joint expert; expected one of: lf, "
  ):
    i2m2_recipes.av_mnist(head="tensor")


def test_recurrent_pool_all_is_flat_and_blind_to_padding():
  model = encoders.GRU(4, pool="all", project=2)
  x = Sequence(draw(0, (3, 5, 2)), jnp.asarray([5, 2, 1]))
  params = model.init(jax.random.key(0), x, jnp.ones(3, bool), train=False)
  out = model.apply(params, x, jnp.ones(3, bool), train=False)
  assert out.shape == (3, 10)
  np.testing.assert_array_equal(out[1, 4:], 0)
  with pytest.raises(ValueError, match="project is for"):
    encoders.GRU(4, project=2).init(jax.random.key(0), x, jnp.ones(3, bool), train=False)


def test_clip_has_the_epsilon_of_torch():
  clip = train.clip_global_norm(1.0)
  grads = {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([0.0, 4.0])}
  found, _ = clip.update(grads, clip.init(grads))
  np.testing.assert_allclose(found["b"], [0.0, 4 / (5 + 1e-6)], rtol=1e-7)
  same, _ = clip.update(found, clip.init(grads))
  np.testing.assert_allclose(same["a"], found["a"], rtol=2e-6)
  with pytest.raises(ValueError, match="max_norm must be positive"):
    train.clip_global_norm(0.0)
