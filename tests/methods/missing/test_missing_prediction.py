"""What each phase moves, what stands in for an absent embedding, and which rows a prediction is judged on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, objectives, train
from mmfuse.core import Outputs, Sequence, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.missing import _missing_prediction, _prompted

from .. import _small

SIZES = {"features": 4, "layers": 1, "heads": 2, "prompts": 2, "dropout": 0.0}
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
VICREG = {"sim": 25.0, "std": 25.0, "cov": 1.0}


def built(num=2, tx=None, **options):
  tx = train.sgd(0.03, weight_decay=0.1) if tx is None else tx
  return METHODS["missing_prediction"](_small.model(num), tx=tx, **{**SIZES, **options})


METHOD = built()


@functools.cache
def step(number):
  return jax.jit(METHOD.phases[number].step, compiler_options=QUICK)


@functools.cache
def start(num=2):
  return _small.start(METHOD if num == 2 else built(num), num)


def stepped(number, given, state=None):
  return step(number)(start() if state is None else state, given, jax.random.key(1), _small.clock())


def moved(before, after):
  """{path: whether the leaf is another one}."""
  pairs = zip(jax.tree.leaves_with_path(before), jax.tree.leaves(after), strict=True)
  name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
  return {name(path): not np.array_equal(x, y) for (path, x), y in pairs}


def test_the_first_phase_trains_each_encoder_alone():
  found = moved(start().params, stepped(0, _small.batch())[0].params)
  for path, changed in found.items():
    words = path.split("/")
    alone = (words[0] in "ab" and words[-1] != "prompts") or path.startswith(("heads/a", "heads/b"))
    assert changed == alone, path


def test_the_second_phase_trains_biases_prompts_predictors_and_heads_and_decays_nothing_else():
  state, log = stepped(1, _small.batch())
  found = moved(start().params, state.params)
  for path, changed in found.items():
    words = path.split("/")
    assert changed == (words[0] not in "ab" or words[-1] in ("bias", "prompts")), path
  scales = [p for p in found if p.endswith("norm1/scale")]
  assert len(scales) == 2 and not any(found[p] for p in scales)
  assert set(log) >= {"loss/fused", "loss/prediction"} and bool(log["finite"])


def test_a_modality_that_no_row_has_is_not_moved():
  given = _small.batch(absent=("b",))
  state, log = stepped(1, given)
  assert not any(c for p, c in moved(start().params, state.params).items() if p.startswith("b/"))
  assert float(log["loss/prediction"]) == 0 and bool(log["finite"])


def said(state, mask, method=METHOD):
  """The prediction for the first training rows, all of them with `mask` {m: bool}."""
  given = _small.batch(len(mask))
  mask = {m: jnp.full(_small.BATCH, v) for m, v in mask.items()}
  return method.predict(state, given.inputs, mask)


def test_with_all_modalities_a_predictor_changes_nothing():
  state = start()
  louder = jax.tree.map(lambda x: 3 * x + 1, state.params["predictors"])
  other = state._replace(params={**state.params, "predictors": louder})
  same = [said(s, {"a": True, "b": True}).logits for s in (state, other)]
  np.testing.assert_array_equal(*same)
  apart = [said(s, {"a": True, "b": False}).logits for s in (state, other)]
  assert np.abs(apart[0] - apart[1]).max() > 0.01


def test_an_absent_embedding_is_the_mean_of_what_the_present_ones_predict():
  state, method = start(3), built(3)
  both = said(state, {"a": True, "b": True, "c": False}, method)
  predictions = both.aux["predictions"]["c"]
  assert sorted(predictions) == ["a", "b"]
  head = state.params["heads"]["fused"]
  mean = (predictions["a"] + predictions["b"]) / 2
  h = jnp.concatenate([both.features["a"], both.features["b"], mean], 1)
  want = h @ head["kernel"] + head["bias"][None]
  np.testing.assert_allclose(both.logits, want, atol=1e-5)
  one = said(state, {"a": False, "b": True, "c": False}, method)
  found = {m: one.aux["predictions"][m]["b"] for m in "ac"}
  h = jnp.concatenate([found["a"], one.features["b"], found["c"]], 1)
  np.testing.assert_allclose(one.logits, h @ head["kernel"] + head["bias"][None], atol=1e-5)


def test_substitution_by_hand_and_a_row_with_nothing():
  h = {m: jnp.full((3, 1), v) for m, v in zip("abc", (1.0, 2.0, 3.0))}
  predictions = {m: {n: 10 * h[n] + h[m] for n in h if n != m} for m in h}
  mask = {"a": [True, True, False], "b": [True, False, False], "c": [False, False, False]}
  filled = _prompted.substitute(h, predictions, {m: jnp.array(v) for m, v in mask.items()})
  assert {m: v[:, 0].tolist() for m, v in filled.items()} == {
    "a": [1, 1, 0],
    "b": [2, 12, 0],
    "c": [18, 13, 0],
  }


def judged(stop_target, mask, weight):
  """(losses, gradients by predictions and by embeddings) of random outputs of two modalities."""
  rng = np.random.default_rng(0)
  draw = lambda: jnp.asarray(rng.normal(size=(6, 3)).astype(np.float32))
  features = {m: draw() for m in "ab"}
  predictions = {"a": {"b": draw()}, "b": {"a": draw()}}
  logits = draw()
  rule = _missing_prediction.Predicted(2.0, stop_target=stop_target, **VICREG)
  given = _small.batch()._replace(
    label=jnp.arange(6) % 3,
    mask={m: jnp.array(v) for m, v in mask.items()},
    weight=weight,
    labelled=None,
  )

  def losses(predictions, features):
    return rule(Outputs(logits, {}, features, {"predictions": predictions}), given)

  total = lambda *args: losses(*args)["prediction"]
  grads = jax.jit(jax.grad(total, (0, 1)))(predictions, features)
  return losses(predictions, features), grads, (predictions, features)


MASK = {"a": [True, True, True, True, False, True], "b": [True, False, True, True, True, True]}
WEIGHT = jnp.array([1.0, 1, 1, 0.5, 1, 0])


def test_a_prediction_is_judged_in_both_directions_on_the_rows_that_have_both():
  losses, grads, (predictions, features) = judged(False, MASK, WEIGHT)
  both = np.array([0, 2, 3])
  pair = lambda x, y: objectives.vicreg_loss(x[both], y[both], WEIGHT[both])
  want = pair(predictions["b"]["a"], features["b"]) + pair(predictions["a"]["b"], features["a"])
  assert float(losses["prediction"]) == pytest.approx(2 * float(want), rel=1e-5)
  for g in jax.tree.leaves(grads):
    assert np.abs(g[both]).max(1).min() > 0 and not np.delete(g, both, 0).any()


def test_a_target_may_be_left_without_a_gradient():
  _, (of_predictions, of_features), _ = judged(True, MASK, WEIGHT)
  assert all(np.any(g) for g in jax.tree.leaves(of_predictions))
  assert not any(np.any(g) for g in jax.tree.leaves(of_features))


def test_a_single_paired_row_is_not_judged():
  losses, grads, _ = judged(False, {**MASK, "b": [True, False, False, False, True, True]}, WEIGHT)
  assert float(losses["prediction"]) == 0 and not any(np.any(g) for g in jax.tree.leaves(grads))
  assert float(losses["fused"]) > 0


@pytest.mark.slow
def test_a_modality_that_is_another_one_is_predicted():
  """b is a: after some steps most of the variance of either embedding is explained by the other's prompts."""
  method, given = built(tx=train.adam(0.01)), _small.batch()
  every = jnp.ones(_small.BATCH, bool)
  inputs, mask = dict.fromkeys("ab", given.inputs["a"]), dict.fromkeys("ab", every)
  given, state = given._replace(inputs=inputs, mask=mask), start()
  state = state._replace(opt=_small.start(method).opt)
  run = jax.jit(method.phases[1].step, compiler_options=QUICK)
  for _ in range(150):
    state, log = run(state, given, jax.random.key(1), _small.clock())
  assert bool(log["finite"])
  outputs = jax.jit(method.predict, compiler_options=QUICK)(state, inputs, mask)
  for m, n in (("a", "b"), ("b", "a")):
    h, guess = outputs.features[m], outputs.aux["predictions"][m][n]
    assert float(jnp.square(h - guess).mean()) < 0.4 * float(h.var(0).mean())


@pytest.mark.slow
def test_any_kind_of_modality_is_cut_into_tokens():
  model = fusion.LateFusion(
    {
      "image": encoders.Conv2D(3, (3,)),
      "steps": encoders.GRU(3),
      "text": encoders.Embedding(7, 3),
      "vector": encoders.MLP(3),
    },
    2,
  )
  inputs = {
    "image": jnp.ones((4, 6, 5, 3)),
    "steps": Sequence(jnp.ones((4, 5, 2)), jnp.array([5, 1, 0, 2])),
    "text": jnp.ones((4, 3), jnp.int32),
    "vector": jnp.ones((4, 2)),
  }
  given = _small.batch()._replace(
    inputs=inputs,
    label=jnp.arange(4) % 2,
    mask={m: jnp.ones(4, bool) for m in inputs},
    weight=jnp.ones(4),
    labelled=None,
  )
  method = METHODS["missing_prediction"](model, 0.03, **SIZES)

  def run():
    state = train.initial(method, jax.random.key(0), given)
    return state.params, method.predict(state, given.inputs, given.mask)

  params, outputs = jax.eval_shape(run)
  assert outputs.logits.shape == (4, 2) and len(params["predictors"]) == 4
  assert params["text"]["stages_0"]["table"].shape == (8, 64)
  assert {x.shape for x in outputs.features.values()} == {(4, 4)}
  blind = fusion.LateFusion({"text": encoders.MLP(3), "vector": encoders.MLP(3)}, 2)
  method = METHODS["missing_prediction"](blind, 0.03, **SIZES)
  with pytest.raises(Unavailable, match=r"no encoders.Embedding says how many 'text' has"):
    train.initial(method, jax.random.key(0), given)


def test_equal_builds_share_what_is_compiled_and_the_rate_is_one():
  assert built().predict == METHOD.predict
  assert built().phases[0].predict == METHOD.phases[0].predict
  state = _small.start(METHODS["missing_prediction"](_small.model(), 0.2, **SIZES))
  assert all(train.has_learning_rate(state.opt[p.name], 0.2) for p in METHOD.phases)


def test_where_it_is_undefined_and_bad_settings():
  with pytest.raises(Unavailable, match="there is only one"):
    built(1)
  named = fusion.LateFusion({m: encoders.MLP(3) for m in ("a", "predictors")}, 2)
  with pytest.raises(Unavailable, match="a modality is called 'predictors'"):
    METHODS["missing_prediction"](named, 0.1)
  for options, message in [
    ({"scaling": -1.0}, "scaling must not be negative, got -1.0"),
    ({"cov": -1.0}, "cov must not be negative"),
    ({"prompts": 0}, "prompts must be at least 1, got 0"),
    ({"activation": "tanh"}, "unknown activation 'tanh'; expected one of: gelu, relu"),
    ({"share": 1.0}, "share must lie in"),
  ]:
    with pytest.raises(ValueError, match=message):
      built(**options)
