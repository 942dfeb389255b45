"""fusion.LateFusion: the model contract, with one, two and three modalities."""

import itertools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import core, encoders, fusion, masks, tree

ENCODERS = {
  "audio": encoders.MLP(3, (), norm="batch"),
  "image": encoders.MLP(4, (), norm="none"),
  "text": encoders.MLP(2, (6,), norm="layer", dropout=0.5),
}
INPUTS = {
  m: jax.random.normal(jax.random.key(i), (5, 2 + i)) for i, m in enumerate(sorted(ENCODERS))
}
MASK = {
  "audio": jnp.array([True, True, False, True, True]),
  "image": jnp.array([True, False, True, False, True]),
  "text": jnp.array([True, True, True, True, False]),
}
RNGS = {"dropout": jax.random.key(9)}
FUSIONS = ("concat", "sum", "gated", "film")


def _model(names, spec="concat", **options):
  return fusion.LateFusion({m: ENCODERS[m] for m in names}, 3, fusion.head_named(spec), **options)


def _init(model, seed=0):
  return jax.jit(model.init)(jax.random.key(seed), INPUTS, MASK)


def _both(model, variables, inputs, mask, train=True, rngs=RNGS):
  features, stats = model.encode(variables, inputs, mask, train=train, rngs=rngs)
  return model.heads({**variables, "batch_stats": stats}, features, mask, train=train, rngs=rngs)


def _forward(model, variables, train=True, rngs=RNGS):
  return jax.jit(lambda v, x, mask: _both(model, v, x, mask, train, rngs))(variables, INPUTS, MASK)


@pytest.mark.parametrize("names", [("image",), ("audio", "image"), ("audio", "image", "text")])
@pytest.mark.parametrize("spec", FUSIONS)
def test_contract(names, spec):
  model = _model(names, spec)
  assert model.modalities == names
  variables = jax.eval_shape(model.init, jax.random.key(0), INPUTS, MASK)
  assert set(variables) == {"params", "batch_stats"}
  assert set(variables["params"]) == {*names, tree.HEADS}
  assert set(variables["params"][tree.HEADS]) == {*names, tree.FUSED}
  assert set(variables["batch_stats"]) == set(names) & {"audio"}  # the only one with batch norm
  outputs, stats = jax.eval_shape(lambda v: _both(model, v, INPUTS, MASK), variables)
  assert isinstance(outputs, core.Outputs)
  assert outputs.logits.shape == (5, 3)
  for m in names:
    assert outputs.unimodal_logits[m].shape == (5, 3)
    assert outputs.features[m].shape == (5, ENCODERS[m].features)
  chex.assert_trees_all_equal_shapes_and_dtypes(stats, variables["batch_stats"])
  assert ("split_logits" in outputs.aux) == (spec in ("concat", "sum"))


@pytest.mark.parametrize("spec", FUSIONS)
def test_absent_content_is_never_read(spec):
  model = _model(sorted(ENCODERS), spec, dropout=0.3)
  variables = _init(model)
  garbage = masks.fill(INPUTS, MASK, jnp.nan)

  @jax.jit
  def run(inputs, mask):
    def loss(params):
      state = {**variables, "params": params}
      out, stats = _both(model, state, inputs, mask)
      return jnp.sum(jnp.sin(out.logits)) + sum(
        jnp.sum(jnp.sin(z)) for z in out.unimodal_logits.values()
      ), (out, stats)

    return jax.grad(loss, has_aux=True)(variables["params"])

  clean, dirty = run(INPUTS, MASK), run(garbage, MASK)
  chex.assert_tree_all_finite(dirty)
  chex.assert_trees_all_equal(clean, dirty)
  outputs = clean[1][0]
  for m in MASK:
    np.testing.assert_array_equal(outputs.features[m][~MASK[m]], 0)
  if spec in ("concat", "sum"):
    np.testing.assert_allclose(sum(outputs.aux["split_logits"].values()), outputs.logits, atol=1e-6)
  nobody = {m: jnp.zeros(5, bool) for m in MASK}
  grad, (_, stats) = empty = run(garbage, nobody)
  chex.assert_tree_all_finite(empty)
  chex.assert_trees_all_equal(stats, variables["batch_stats"])
  chex.assert_trees_all_equal(
    {m: grad[m] for m in MASK}, jax.tree.map(jnp.zeros_like, {m: grad[m] for m in MASK})
  )


def test_initialisation_does_not_depend_on_the_company():
  whole = _init(_model(sorted(ENCODERS)))
  for names in itertools.chain(itertools.combinations(sorted(ENCODERS), 1), [("audio", "text")]):
    part = _init(_model(sorted(ENCODERS)).restrict(names))
    for m in names:
      chex.assert_trees_all_equal(part["params"][m], whole["params"][m])
      chex.assert_trees_all_equal(part["params"]["heads"][m], whole["params"]["heads"][m])
  other = _init(_model(("audio", "text")), seed=1)
  assert not np.allclose(
    other["params"]["audio"]["dense0"]["kernel"], whole["params"]["audio"]["dense0"]["kernel"]
  )


def test_restricted_models_see_the_same_dropout():
  whole, part = _model(sorted(ENCODERS), dropout=0.5), _model(("text",), dropout=0.5)
  variables, alone = _init(whole), _init(part)
  ours, _ = _forward(whole, variables)
  theirs, _ = _forward(part, alone)
  np.testing.assert_array_equal(ours.features["text"], theirs.features["text"])
  np.testing.assert_allclose(
    ours.unimodal_logits["text"], theirs.unimodal_logits["text"], atol=1e-6
  )
  assert np.any(
    np.asarray(ours.features["text"])
    != np.asarray(_forward(whole, variables, train=False)[0].features["text"])
  )


def test_evaluation_returns_the_statistics_it_got():
  model = _model(("audio", "image"), dropout=0.5)
  variables = _init(model)
  features, stats = model.encode(variables, INPUTS, MASK, train=False, rngs=None)
  assert stats["audio"] is variables["batch_stats"]["audio"]
  _, stats = model.heads(variables, features, MASK, train=False, rngs=None)
  assert stats is variables["batch_stats"]
  _, trained = _forward(model, variables)
  mean = trained["audio"]["norm0"]["mean"]
  raw = INPUTS["audio"] @ variables["params"]["audio"]["dense0"]["kernel"]
  np.testing.assert_allclose(mean, 0.1 * np.asarray(raw)[MASK["audio"]].mean(0), atol=1e-6)


class NormedConcat(nn.Module):
  """A fused head with statistics of its own."""

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    joined = jnp.concatenate([features[m] for m in sorted(features)], -1)
    anybody = jnp.any(jnp.stack([mask[m] for m in sorted(mask)]), 0)
    joined = encoders.Norm("batch", name="norm")(joined, anybody, train=train)
    return nn.Dense(num_classes)(joined), None


def test_statistics_of_the_heads_have_their_place():
  model = fusion.LateFusion({"audio": ENCODERS["audio"]}, 2, NormedConcat())
  variables = _init(model)
  outputs, stats = _forward(model, variables)
  chex.assert_trees_all_equal_shapes_and_dtypes(stats, variables["batch_stats"])
  moved = stats["heads"]["fused"]["norm"]["mean"]
  expected = 0.1 * np.asarray(outputs.features["audio"])[MASK["audio"]].mean(0)
  np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_leaves_are_labelled_by_the_rule_of_tree():
  owners = tree.owners_of(_init(_model(("audio", "image")))["params"], ("audio", "image"))
  assert jax.tree.leaves(owners["audio"])[0] == tree.Owner("audio", "encoder")
  assert owners["heads"]["image"]["kernel"] == tree.Owner("image", "head")
  assert owners["heads"]["fused"]["kernel"].modality is None


def test_restrict_keeps_everything_else_and_models_are_hashable():
  model = _model(sorted(ENCODERS), "gated", dropout=0.25)
  led = fusion.LateFusion(model.encoders, 3, fusion.Gated(by="text", width=8), 0.25)
  assert led.restrict(("text", "audio")).fusion == led.fusion
  assert led.restrict(("audio",)).fusion == fusion.Gated(width=8)
  assert led.restrict(("audio",)).dropout == 0.25
  assert hash(model.restrict(model.modalities)) == hash(model)
  assert model.restrict(model.modalities) == model


@pytest.mark.parametrize(
  "build,sentence",
  [
    (lambda: fusion.LateFusion({}, 2), "at least one modality, got none"),
    (lambda: fusion.LateFusion({"heads": ENCODERS["text"]}, 2), "'heads' is a reserved name"),
    (lambda: fusion.LateFusion({"fused": ENCODERS["text"]}, 2), "'fused' is a reserved name"),
    (lambda: _model(("audio",)).restrict(("adio",)), "'adio' not in the model; available: audio"),
    (lambda: fusion.LateFusion({"a": ENCODERS["text"]}, 0), "num_classes must be at least 1"),
    (lambda: fusion.LateFusion({"a": ENCODERS["text"]}, 2, dropout=1.0), r"\[0, 1\), got 1.0"),
    (lambda: fusion.LateFusion({"a": ENCODERS["text"]}, 2, fusion.FiLM(by="b")), "led by 'b'"),
    (
      lambda: _init(fusion.LateFusion({"depth": ENCODERS["text"]}, 2)),
      "'depth' not in inputs; available: audio, image, text",
    ),
    (lambda: fusion.head_named("concatenate"), "unknown fusion 'concatenate'; closest: concat"),
  ],
)
def test_bad_input_is_refused_with_a_sentence(build, sentence):
  with pytest.raises(ValueError, match=sentence):
    build()


def test_dropout_without_a_key_is_refused():
  model = _model(("audio",), dropout=0.5)
  with pytest.raises(ValueError, match="dropout in training needs rngs"):
    _forward(model, _init(model), rngs=None)


class Steps(nn.Module):
  """x [B, T, C] as it is."""

  step_features = 2

  @nn.compact
  def __call__(self, x, mask, *, train: bool):
    del mask, train
    return x


@pytest.mark.parametrize(
  "spec",
  [pytest.param("mult", marks=pytest.mark.slow), "bottleneck", "perceiver", "concat", "gated"],
)
def test_a_fusion_that_reads_steps_gets_those_of_its_encoders(spec):
  """The batch is as long as a sequence: a mask of rows must not be taken for one of steps."""
  small = {
    "mult": {"width": 4, "heads": 2, "layers": 1, "memory_layers": 1},
    "gated": {"width": 3},
    "bottleneck": {"width": 4, "heads": 2, "layers": 2, "fusion_layer": 0, "tokens": 1},
    "perceiver": {"width": 4, "heads": 2, "layers": 1, "latents": 2},
  }
  head = fusion.head_named(spec).clone(**small.get(spec, {}))
  x = {
    m: jnp.asarray(np.random.default_rng(i).normal(size=(3, 3 + i, 2)), jnp.float32)
    for i, m in enumerate("ab")
  }
  mask = {"a": jnp.array([True, False, True]), "b": jnp.array([True, True, True])}
  model = fusion.LateFusion({"a": Steps(), "b": Steps()}, 2, head)
  variables = jax.jit(model.init)(jax.random.key(0), x, mask)

  @jax.jit
  def run(x):
    features, _ = model.encode(variables, x, mask, train=False)
    return features, model.heads(variables, features, mask, train=False)[0]

  features, outputs = run(x)
  assert features["a"].shape == (3, 6) and features["b"].shape == (3, 8)
  assert (features["a"][1] == 0).all() and (features["a"][0] != 0).all()
  reads = getattr(head, "reads_steps", False)
  seen = {m: h.reshape(3, -1, 2) if reads else h for m, h in features.items()}
  stored = {"params": variables["params"]["heads"]["fused"]}
  direct, _ = jax.jit(lambda: head.apply(stored, seen, mask, num_classes=2, train=False))()
  np.testing.assert_allclose(outputs.logits, direct, atol=1e-6)
  moved = run({**x, "b": x["b"][:, ::-1]})[1].logits  # the order of the steps tells
  assert (np.abs(moved - outputs.logits).max(-1) > 1e-5).all()


class _Latent(nn.Module):
  """A fused head that says more than its logits, under names that are its own to choose."""

  names: tuple[str, ...]

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    h = jnp.concatenate([features[m] for m in sorted(features)], 1)
    return nn.Dense(num_classes)(h), {n: nn.Dense(2, name=n)(h) for n in self.names}


def test_what_a_fusion_returns_beside_its_logits_is_in_aux():
  model = fusion.LateFusion({"audio": ENCODERS["audio"]}, 3, _Latent(("mu", "logvar")))
  variables = _init(model)
  outputs, _ = _both(model, variables, INPUTS, MASK, train=False, rngs=None)
  assert set(outputs.aux) == {"mu", "logvar"} <= set(core.AUX)
  layer = variables["params"]["heads"]["fused"]["mu"]
  want = outputs.features["audio"] @ layer["kernel"] + layer["bias"][None]
  np.testing.assert_allclose(outputs.aux["mu"], want, rtol=1e-6)
  odd = fusion.LateFusion({"audio": ENCODERS["audio"]}, 3, _Latent(("mu", "sigma")))
  with pytest.raises(ValueError, match=r"'sigma' beside its logits; expected .*\(audio\).* mu"):
    _both(odd, _init(odd), INPUTS, MASK, train=False, rngs=None)
