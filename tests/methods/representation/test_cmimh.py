"""CMIMH: what its page promises of bounds, divergences and codes, and that its rows learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, metrics, train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.representation import _codes

from .. import _small

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
ONES = jnp.ones(6)


def drawn(seed=0, logits=LOGITS):
  return _codes.draw_codes(jax.random.key(seed), logits)


def test_codes_are_bits_whose_gradient_is_that_of_their_probability():
  codes = drawn()
  assert set(np.unique(codes.round(6))) <= {0.0, 1.0}
  grad = jax.grad(lambda a: _codes.draw_codes(jax.random.key(0), a).sum())(LOGITS)
  np.testing.assert_allclose(grad, jax.nn.sigmoid(LOGITS) * jax.nn.sigmoid(-LOGITS), rtol=1e-5)


def test_a_bound_is_at_most_the_logarithm_of_the_rows_and_near_it_for_codes_that_differ():
  sure = 60.0 * (2.0 * ((np.arange(6)[:, None] >> np.arange(4)) & 1) - 1)
  logits = jnp.asarray(sure, jnp.float32)
  found = _codes.information_bound(drawn(logits=logits), logits, ONES)
  assert found == pytest.approx(np.log(6), abs=1e-5)
  for seed in range(20):
    assert _codes.information_bound(drawn(seed), LOGITS, ONES) <= np.log(6) + 1e-5
  half = jnp.zeros((6, 4))
  assert _codes.information_bound(drawn(logits=half), half, ONES) == pytest.approx(0, abs=1e-6)
  assert _codes.exact_information(half) == pytest.approx(0, abs=1e-6)
  assert _codes.exact_information(logits) == pytest.approx(np.log(6), abs=1e-4)
  with pytest.raises(ValueError, match="at most 16 bits"):
    _codes.exact_information(jnp.zeros((2, 17)))


def test_the_bound_of_a_modality_is_an_unbiased_estimate_of_the_exact_information():
  keys = jax.random.split(jax.random.key(3), 4000)
  one = lambda key: _codes.information_bound(_codes.draw_codes(key, LOGITS), LOGITS, ONES)
  found = jax.vmap(one)(keys)
  error = float(found.std()) / len(keys) ** 0.5
  assert float(found.mean()) == pytest.approx(
    float(_codes.exact_information(LOGITS)), abs=4 * error
  )


def test_complementing_or_permuting_bits_changes_nothing():
  codes, turn = drawn(), np.asarray([2, 0, 3, 1])
  whole = _codes.code_log_prob(codes, LOGITS)
  flip = jnp.asarray([[1.0, 0, 0, 1]])
  flipped = codes * (1 - flip) + (1 - codes) * flip
  np.testing.assert_allclose(
    _codes.code_log_prob(flipped, LOGITS * (1 - 2 * flip)), whole, rtol=1e-5
  )
  np.testing.assert_allclose(
    _codes.code_log_prob(codes[:, turn], LOGITS[:, turn]), whole, rtol=1e-5
  )


def test_terms_of_two_equal_modalities():
  mask = {m: jnp.ones(6, bool) for m in "ab"}
  found = _codes.information_terms({"a": LOGITS, "b": LOGITS}, mask, ONES, jax.random.key(0))
  assert found["gap"] == pytest.approx(0, abs=1e-6)
  assert found["inter"] == pytest.approx(float(found["intra"]), rel=1e-5)  # codes differ, p do not
  assert _codes.code_divergence(LOGITS, LOGITS[::-1]).min() > 0


def test_logits_far_from_zero_stay_finite():
  far = jnp.asarray([[200.0, -200.0], [-200.0, 200.0], [200.0, 200.0]])
  mask = {m: jnp.ones(3, bool) for m in "ab"}

  def loss(a):
    found = _codes.information_terms({"a": a, "b": -a}, mask, jnp.ones(3), jax.random.key(0))
    return sum(found.values())

  value, grad = jax.value_and_grad(loss)(far)
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_row_that_lacks_what_a_term_reads_is_as_if_it_were_not_there():
  other = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
  there = jnp.arange(6) < 4
  key = jax.random.key(0)
  found = _codes.information_terms(
    {"a": LOGITS, "b": jnp.where(there[:, None], other, 1e6)},
    {"a": there, "b": there},
    ONES,
    key,
  )
  mask = {m: jnp.ones(4, bool) for m in "ab"}
  few = _codes.information_terms({"a": LOGITS[:4], "b": other[:4]}, mask, jnp.ones(4), key)
  for name, value in few.items():
    assert found[name] == pytest.approx(float(value), rel=1e-5), name
  nobody = _codes.information_terms({"a": LOGITS, "b": other}, {"a": there, "b": ~there}, ONES, key)
  assert nobody["inter"] == nobody["gap"] == 0


@pytest.fixture(scope="module")
def splits():
  """Two views of four classes, one turned and noisy, as a retrieval."""
  label = np.arange(160) % 4
  x = 2 * np.eye(4)[label]
  turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
  arrays = {m: v + 0.3 * RNG.normal(size=x.shape) for m, v in (("a", x), ("b", x @ turn))}
  return data.from_arrays({**arrays, "label": label}, task="retrieval")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cmimh", "contrastive", "cca"])
def test_a_row_finds_the_class_across_modalities_without_a_label(name, splits):
  tx = {} if name == "cca" else {"tx": train.adam(0.01)}
  method = METHODS[name](_small.model(), task="retrieval", **tx)
  result = train.fit(method, splits, epochs=20, batch_size=32)
  (log,) = result.logs
  chance = metrics.map_at_k().chance({"query": splits.validation, "database": splits.train})
  assert result.metric == "map_at_50" and log.best == result.validation[0]["fused"]
  assert log.best > chance["map_at_50"] + 0.3
  assert set(log.selected["validation"]) == {"fused", "a->b", "b->a"}
  assert all(e["validation"] is None for e in log.history[:-1])
  relabelled = {n: p.replace(label=p.label * 0) for n, p in splits.parts.items()}
  again = train.fit(method, splits.with_parts(**relabelled), epochs=20, batch_size=32)
  same = jax.tree.map(
    lambda a, b: bool((a == b).all()), *(r.states.params for r in (result, again))
  )
  assert all(jax.tree.leaves(same))  # no label is read


@pytest.mark.parametrize("name", ["cmimh", "contrastive", "cca"])
def test_a_retrieval_keeps_the_contract_of_a_method(name):
  method = METHODS[name](_small.model(), task="retrieval")
  train.check_method(method, _small.splits())


def test_what_is_selected_by_must_be_there(splits):
  method = METHODS["cca"](_small.model(), task="retrieval")
  by_all = train.fit(method, splits, epochs=1, batch_size=32, select="map_at_all")
  assert by_all.metric == "map_at_all" and by_all.logs[0].best is not None
  with pytest.raises(ValueError, match="'accuracy'; this task has: map_at_50, map_at_all"):
    train.fit(method, splits, epochs=1, batch_size=32, select="accuracy")


def test_predictions_of_rows_that_lack_a_modality_are_zero():
  method = METHODS["cmimh"](_small.model(), task="retrieval", bits=8)
  batch = _small.batch()
  state = train.initial(method, jax.random.key(0), batch, num_rows=_small.ROWS)
  mask = {**batch.mask, "a": jnp.arange(batch.weight.shape[0]) > 2}
  outputs = method.predict(state, {**batch.inputs, "a": batch.inputs["a"] * jnp.nan}, mask)
  assert outputs.logits is None and outputs.aux["codes"]["a"].dtype == jnp.int8
  assert not outputs.features["a"][:3].any() and np.isfinite(outputs.features["b"]).all()


def test_numbers_that_make_no_sense_are_refused():
  model = _small.model()
  for name, options, said in (
    ("cmimh", {"bits": 0}, "bits must be at least 1"),
    ("cmimh", {"gap": -1.0}, "gap must not be negative"),
    ("cmimh", {"share": 1.0}, r"share must lie in \(0, 1\)"),
    ("contrastive", {"temperature": 0.0}, "temperature must be positive"),
    ("contrastive", {"width": 0}, "width must be at least 1"),
    ("cca", {"ridge": -1.0}, "ridge must not be negative"),
    ("cca", {"components": 0}, "components must be at least 1"),
  ):
    with pytest.raises(ValueError, match=said):
      METHODS[name](model, **options)
  for name in ("cmimh", "contrastive", "cca"):
    with pytest.raises(Unavailable, match="needs two modalities or more"):
      METHODS[name](_small.model(1))
