"""The catalogue of fusion heads: one contract for all, and each of them by hand.

The contract runs every head on one, two and three modalities of different widths, one of them a
sequence, mostly in one compiled call.
"""

import re

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.encoders._attend import attend
from mmfuse.fusion._attend_sum import Attention, weighted_sum
from mmfuse.fusion._attention import masked_softmax
from mmfuse.fusion._bottleneck import Bottleneck, mean_present
from mmfuse.fusion._confidence import Confidence
from mmfuse.fusion._deep_set import DeepSet, normalized, pool_present
from mmfuse.fusion._early import Early
from mmfuse.fusion._experts import ProductOfExperts
from mmfuse.fusion._gaussian import GaussianProduct, gaussian_product
from mmfuse.fusion._late import LateFusion
from mmfuse.fusion._low_rank import LowRank, low_rank_product
from mmfuse.fusion._mixture import MixtureOfExperts, mixture_logits
from mmfuse.fusion._mult import MulT, causal, sinusoids
from mmfuse.fusion._multiplicative import Multiplicative, interact
from mmfuse.fusion._nl_gate import NLGate, nl_gate
from mmfuse.fusion._perceiver import Perceiver, fourier
from mmfuse.fusion._stack import Stack, stack_vectors
from mmfuse.fusion._tensor import Tensor, tensor_product

HEADS = {
  "early": Early((6,)),
  "stack": Stack(),
  "tensor": Tensor(products=80),
  "low_rank": LowRank(3),
  "multiplicative": Multiplicative(),
  "multiplicative_vector": Multiplicative("vector"),
  "multiplicative_scalar": Multiplicative("scalar", clip=(-2.0, 2.0)),
  "nl_gate": NLGate(channels=4),
  "mult": MulT(width=4, heads=2, layers=1, memory_layers=1),
  "bottleneck": Bottleneck(width=8, heads=2, layers=2, fusion_layer=0, tokens=2),
  "product_of_experts": ProductOfExperts(),
  "gaussian_product": GaussianProduct(5),
  "mixture_of_experts": MixtureOfExperts(),
  "confidence": Confidence(),
  "perceiver": Perceiver(latents=3, width=8, heads=2, layers=1),
  "attention": Attention(),
  "deep_set": DeepSet("mean", attention=True, normalize="modality", hidden=(4,)),
  "deep_set_max": DeepSet("max"),
}
ADDITIVE = ("product_of_experts", "confidence")
# No gradient: a modality that is nowhere the largest; one alone over its own norm, which is a sign.
SELECTIVE = (("deep_set_max", "abc"), ("deep_set", "b"))
FEATURES = {
  "a": jax.random.normal(jax.random.key(0), (4, 3)),
  "b": jax.random.normal(jax.random.key(1), (4, 3, 2)),
  "c": jax.random.normal(jax.random.key(2), (4, 5)),
}
# Row 0 has everybody, row 3 nobody; every modality is absent somewhere else, too.
MASK = {
  "a": jnp.array([True, True, False, False]),
  "b": jnp.array([True, False, True, False]),
  "c": jnp.array([True, False, False, False]),
}


def _expand(present, x):
  return np.asarray(present).reshape(-1, *[1] * (x.ndim - 1))


def _random(shapes):
  """Parameters of given shapes, none zero, drawn by NumPy: compiling a draw takes longest."""
  generator = np.random.default_rng(0)
  draw = lambda p: jnp.asarray(0.4 * generator.normal(size=p.shape), p.dtype)
  return jax.tree.map(draw, shapes)


# MulT has M^2 encoders: two modalities, to save time.
SETS = [(name, names) for name in HEADS for names in ("b", "ac" if name == "mult" else "abc")]


@pytest.mark.parametrize("name,names", SETS)
def test_contract(name, names):
  module = HEADS[name]
  features, mask = {m: FEATURES[m] for m in names}, {m: MASK[m] for m in names}

  def forward(params, features, mask):
    return module.apply({"params": params}, features, mask, num_classes=3, train=True)

  def loss(params, features, mask):
    logits, split = forward(params, features, mask)
    return jnp.sum(jnp.sin(logits)), (logits, split)

  init = lambda *args: module.init(jax.random.key(0), *args, num_classes=3, train=False)["params"]
  params = _random(jax.eval_shape(init, features, mask))
  run = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
  (_, grads), (logits, split) = clean = run(params, features, mask)
  assert logits.shape == (4, 3)
  chex.assert_tree_all_finite(clean)
  garbage = {m: np.where(_expand(mask[m], x), x, np.float32(np.nan)) for m, x in features.items()}
  chex.assert_trees_all_equal(clean, run(params, garbage, mask))
  for m in names:
    present = _expand(MASK[m], FEATURES[m])
    np.testing.assert_array_equal(np.where(present, 0.0, grads[m]), 0.0)
    if (name, names) not in SELECTIVE:
      assert np.abs(np.asarray(grads[m])[0]).max() > 0, f"{m} has no say"
  assert (split is not None) == (name in ADDITIVE)
  if split is not None:
    assert set(split) == set(names)
    np.testing.assert_allclose(sum(split.values()), logits, rtol=1e-5, atol=1e-6)

  if len(names) == 1:
    return
  # The very same program, whatever the order of the keys.
  turn = lambda d: {m: d[m] for m in reversed(d)}
  turned = lambda params, features, mask: forward(params, turn(features), turn(mask))
  one, two = (str(jax.make_jaxpr(f)(params, features, mask)) for f in (forward, turned))
  assert re.sub("0x[0-9a-f]+", "", one) == re.sub("0x[0-9a-f]+", "", two)


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_values(name):
  assert hash(HEADS[name]) == hash(HEADS[name].clone()) and HEADS[name] == HEADS[name].clone()


DEFAULTS = [
  Early,
  Stack,
  Tensor,
  LowRank,
  Multiplicative,
  NLGate,
  MulT,
  Bottleneck,
  ProductOfExperts,
  GaussianProduct,
  MixtureOfExperts,
  Confidence,
  Perceiver,
  Attention,
  DeepSet,
]


@pytest.mark.parametrize("head", DEFAULTS)
def test_defaults_fit_any_width(head):
  """Shapes alone: wide features and many modalities do not make a head explode."""
  for widths in [(1, 1), (512, 300), (256,) * 5]:
    features = {f"m{i}": jax.ShapeDtypeStruct((2, d), jnp.float32) for i, d in enumerate(widths)}
    mask = {m: jax.ShapeDtypeStruct((2,), bool) for m in features}
    if head is MulT and len(widths) > 2:
      continue  # 25 encoders: nothing but time
    init = lambda features, mask: head().init_with_output(
      jax.random.key(0), features, mask, num_classes=2, train=False
    )
    (logits, _), variables = jax.eval_shape(init, features, mask)
    assert logits.shape == (2, 2)
    assert sum(p.size for p in jax.tree.leaves(variables)) < 1e6


def test_a_head_in_a_model_and_in_a_smaller_one():
  class Same(nn.Module):
    @nn.compact
    def __call__(self, x, mask, *, train: bool):
      return x

  inputs, mask = {m: FEATURES[m] for m in "ac"}, {m: MASK[m] for m in "ac"}

  def run(model):
    variables = model.init(jax.random.key(0), inputs, mask)
    features, _ = model.encode(variables, inputs, mask, train=False)
    return model.heads(variables, features, mask, train=False)[0]

  for head in (*HEADS.values(), NLGate(by="c")):
    model = LateFusion({m: Same() for m in "ac"}, 3, head)
    for part in (model, model.restrict("a")):
      assert jax.eval_shape(lambda part=part: run(part)).logits.shape == (4, 3)


# By hand. One compilation each is faster than one for each of their operations.

_interact = jax.jit(interact, static_argnames=("kind", "clip"))
_normalized = jax.jit(normalized, static_argnames=("axis", "p"))
_pool = jax.jit(pool_present, static_argnames="pool")
_tensor_product, _low_rank, _attend, _nl_gate, _mixture, _gaussian, _weighted_sum, _mean_present = (
  jax.jit(f)
  for f in (
    tensor_product,
    low_rank_product,
    attend,
    nl_gate,
    mixture_logits,
    gaussian_product,
    weighted_sum,
    mean_present,
  )
)

ONE = {"a": jnp.array([[2.0]]), "b": jnp.array([[3.0, 5.0]])}


def test_tensor_product_by_hand():
  np.testing.assert_allclose(_tensor_product(ONE), [[1, 3, 5, 2, 6, 10]])
  silent = {**ONE, "b": jnp.zeros((1, 2))}
  np.testing.assert_allclose(_tensor_product(silent), [[1, 0, 0, 2, 0, 0]])
  np.testing.assert_allclose(_tensor_product({"b": ONE["b"]}), ONE["b"])


@pytest.mark.parametrize("products,width", [(4096, None), (9, 2), (8, 1), (1, 1)])
def test_wide_features_are_narrowed_to_the_number_of_products(products, width):
  features = {m: jnp.ones((1, 4)) for m in "ab"}
  mask = {m: jnp.ones(1, bool) for m in "ab"}
  shapes = jax.eval_shape(
    lambda: Tensor(products).init(jax.random.key(0), features, mask, num_classes=2, train=False)[
      "params"
    ]
  )
  assert shapes["out"]["kernel"].shape == (((width or 4) + 1) ** 2, 2)
  assert ("narrow_a" in shapes) == (width is not None)


def test_low_rank_by_hand():
  factors = {
    "a": jnp.array([[[1.0], [2.0]], [[0.0], [1.0]]]),
    "b": jnp.array([[[1.0], [1.0], [0.0]], [[2.0], [0.0], [1.0]]]),
  }
  y = _low_rank(ONE, factors, jnp.array([1.0, 10.0]), jnp.array([0.5]))
  np.testing.assert_allclose(y, [[5 * 4 + 10 * 2 * 7 + 0.5]])
  with pytest.raises(ValueError, match=r"factor of 'a' must have 2 rows .* got 3"):
    _low_rank(ONE, {**factors, "a": factors["b"]}, jnp.ones(2), jnp.zeros(1))


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_factors_are_no_parameters(frozen):
  features, mask = {"a": FEATURES["a"]}, {"a": jnp.ones(4, bool)}
  head = lambda key: LowRank(2, frozen).init(key, features, mask, num_classes=2, train=False)
  one, same, other = (jax.jit(head)(jax.random.key(seed)) for seed in (0, 0, 1))
  assert ("factor_a" in one["params"]) != frozen and {"weights", "bias"} <= set(one["params"])
  factor = lambda v: v["batch_stats" if frozen else "params"]["factor_a"]
  assert factor(one).shape == (2, 4, 2) and float(jnp.std(factor(one))) > 0
  assert (factor(one) == factor(same)).all() and (factor(one) != factor(other)).all()


def test_multiplicative_interactions_by_hand():
  x1, x2 = ONE["a"], ONE["b"]
  matrix = {
    "W": jnp.array([[[1.0], [2.0]]]),
    "V": jnp.array([[0.0], [1.0]]),
    "U": jnp.array([[4.0]]),
    "b": jnp.array([0.5]),
  }
  np.testing.assert_allclose(_interact([x1, x2], matrix), [[3 * 2 + 5 * 5 + 8 + 0.5]])
  np.testing.assert_allclose(
    _interact([x1, x2], matrix, clip=(-1.0, 1.0)), [[1 + 3 + 4 + 0.5]], rtol=1e-6
  )
  vector = {
    "W": jnp.array([[1.0, 0.0]]),
    "V": jnp.array([0.0, 2.0]),
    "U": jnp.array([[0.0, 1.0]]),
    "b": jnp.array([1.0, 0.0]),
  }
  np.testing.assert_allclose(_interact([x1, x2], vector, "vector"), [[2 * 3 + 1, 2 * 5 + 2]])
  scalar = {"W": jnp.array([3.0]), "V": jnp.ones(1), "U": jnp.array([0.5]), "b": jnp.zeros(1)}
  np.testing.assert_allclose(_interact([x1, x2], scalar, "scalar"), [[7 * 3 + 1, 7 * 5 + 1]])
  three = {"slope": jax.tree.map(lambda w: w[..., None], matrix), "offset": matrix}
  np.testing.assert_allclose(_interact([x1, x2, jnp.array([[2.0]])], three), [[3 * 39.5]])
  twice = _interact(
    [x1, x2, x2],
    {"inner": vector, "outer": {**vector, "W": jnp.eye(2), "U": jnp.zeros((2, 2))}},
    "vector",
  )
  np.testing.assert_allclose(twice, [[7 * 3 + 1, (12 + 2) * 5]])


def test_attention_reads_nothing_where_nobody_is_allowed():
  q = k = jnp.zeros((1, 1, 1, 1))
  v = jnp.array([2.0, 4.0]).reshape(1, 2, 1, 1)
  k = jnp.zeros((1, 2, 1, 1))
  for allowed, expected in [((1, 1), 3.0), ((0, 1), 4.0), ((0, 0), 0.0)]:
    out = _attend(q, k, v, jnp.array(allowed, bool).reshape(1, 1, 2))
    np.testing.assert_allclose(out.reshape(-1), expected)
  share = masked_softmax(jnp.log(jnp.array([[1.0, 3.0, 9.0]])), jnp.array([[True, True, False]]))
  np.testing.assert_allclose(share, [[0.25, 0.75, 0.0]], rtol=1e-6)


def test_nl_gate_by_hand():
  """Zero queries: the gate adds the mean of the allowed values."""
  values = jnp.array([[[1.0], [3.0], [8.0]]])
  for allowed, expected in [((1, 1, 1), 4.0), ((1, 1, 0), 2.0), ((0, 0, 0), 0.0)]:
    y = _nl_gate(jnp.zeros((1, 2, 1)), jnp.ones((1, 1, 3)), values, jnp.array([allowed], bool))
    np.testing.assert_allclose(y, jnp.full((1, 2, 1), expected), rtol=1e-6)
  one = _nl_gate(
    jnp.array([[[1.0]]]),
    jnp.log(jnp.array([[[1.0, 3.0]]])),
    jnp.array([[[0.0], [4.0]]]),
    jnp.ones((1, 2), bool),
  )
  np.testing.assert_allclose(one, [[[1.0 + 3.0]]], rtol=1e-6)


def test_positions_and_causal_mask_of_mult():
  table = sinusoids(3, 5)
  np.testing.assert_array_equal(table[0], 0)
  np.testing.assert_allclose(
    table[2], [np.sin(2), np.sin(2e-4), np.cos(2), np.cos(2e-4), 0], rtol=1e-6
  )
  np.testing.assert_array_equal(causal(2, 2, jnp.array([0])), [[[1, 0], [1, 1]]])
  np.testing.assert_array_equal(
    causal(2, 3, jnp.array([1, 0])), [[[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 0]]]
  )


def test_fourier_positions_by_hand():
  np.testing.assert_allclose(fourier(jnp.array([1]), 1, 2), [[[0, 0, 0, 1, 1]]])
  np.testing.assert_allclose(fourier(jnp.array([2]), 2, 1), [[[-1, 0, -1], [1, 0, -1]]], atol=1e-6)
  whole, short = fourier(jnp.array([4]), 4, 3), fourier(jnp.array([4]), 9, 3)[:, :4]
  np.testing.assert_array_equal(whole, short)  # of the row's own length


def test_bottleneck_is_the_mean_of_those_present():
  tokens = jnp.array([1.0, 5.0]).reshape(2, 1, 1, 1)
  for present, expected in [((1, 1), 3.0), ((0, 1), 5.0), ((0, 0), -7.0)]:
    found = _mean_present(tokens, jnp.array([present], bool), jnp.full((1, 1, 1), -7.0))
    assert found.item() == expected


@pytest.mark.parametrize("exchange", [False, True])
def test_streams_of_a_bottleneck_meet_in_the_exchange_alone(exchange):
  """Without it the logits are a sum over modalities: what a changes does not depend on c."""
  head = Bottleneck(width=4, heads=1, layers=2, fusion_layer=0, tokens=1, exchange=exchange)
  features, mask = {m: FEATURES[m] for m in "ac"}, {m: jnp.ones(4, bool) for m in "ac"}
  init = lambda: head.init(jax.random.key(0), features, mask, num_classes=2, train=False)
  # Large, so that attention is far from linear.
  variables = jax.tree.map(lambda p: 4 * p, _random(jax.eval_shape(init)))

  @jax.jit
  def run(a, c):
    return head.apply(variables, {"a": a, "c": c}, mask, num_classes=2, train=False)[0]

  a, c = features["a"], features["c"]
  mixed = run(a, c) - run(a[::-1], c) - run(a, c[::-1]) + run(a[::-1], c[::-1])
  assert (np.abs(mixed).max() > 1e-3) == exchange


def test_product_of_experts_multiplies_distributions():
  features, mask = {m: FEATURES[m] for m in "ac"}, {m: MASK[m] for m in "ac"}
  (logits, split), variables = ProductOfExperts().init_with_output(
    jax.random.key(0), features, mask, num_classes=3, train=False
  )
  p = variables["params"]
  prob = {m: jax.nn.softmax(features[m] @ p[f"expert_{m}"]["kernel"]) for m in "ac"}
  np.testing.assert_allclose(jnp.exp(logits[0]), prob["a"][0] * prob["c"][0], rtol=1e-5)
  np.testing.assert_allclose(jnp.exp(logits[1]), prob["a"][1], rtol=1e-5)  # c is absent
  np.testing.assert_array_equal(split["c"][1:], 0.0)
  np.testing.assert_array_equal(logits[3], 0.0)  # nobody: uniform


def test_mixture_by_hand():
  experts = jnp.log(jnp.array([[[0.5, 0.5], [0.1, 0.9]]]))
  gate = jnp.log(jnp.array([[1.0, 3.0]]))
  for present, expected in [
    ((1, 1), [0.2, 0.8]),
    ((1, 0), [0.5, 0.5]),
    ((0, 1), [0.1, 0.9]),
    ((0, 0), [0.5, 0.5]),
  ]:
    found = _mixture(gate, experts, jnp.array([present], bool))
    np.testing.assert_allclose(jnp.exp(found), [expected], rtol=1e-5)


def test_gaussian_product_by_hand():
  means = {"a": jnp.array([[2.0]]), "b": jnp.array([[-4.0]])}
  log_vars = {"a": jnp.zeros((1, 1)), "b": jnp.log(jnp.array([[0.5]]))}
  for present, mean, var in [((1, 1), -6 / 4, 1 / 4), ((1, 0), 1.0, 0.5), ((0, 0), 0.0, 1.0)]:
    mask = {m: jnp.array([bool(p)]) for m, p in zip("ab", present)}
    mu, log_var = _gaussian(means, log_vars, mask)
    np.testing.assert_allclose(mu, [[mean]], rtol=1e-5)
    np.testing.assert_allclose(jnp.exp(log_var), [[var]], rtol=1e-5)


def test_confidence_weighs_by_free_energy_without_gradient():
  features = {"a": jnp.array([[1.0], [1.0]])}
  mask = {"a": jnp.array([True, False])}
  params = {"branch_a": {"kernel": jnp.log(jnp.array([[1.0, 3.0]])), "bias": jnp.zeros(2)}}
  head = Confidence(0.5)
  run = jax.jit(lambda p: head.apply({"params": p}, features, mask, num_classes=2, train=True))
  weight = 0.5 * np.log(4)
  np.testing.assert_allclose(run(params)[0][0], weight * np.log([1.0, 3.0]), rtol=1e-6)
  np.testing.assert_array_equal(run(params)[0][1], 0.0)
  grads = jax.grad(lambda p: run(p)[0].sum())(params)
  np.testing.assert_allclose(grads["branch_a"]["bias"], [weight, weight], rtol=1e-6)


def test_attention_over_modalities_by_hand():
  scores = jnp.log(jnp.array([[1.0, 3.0]]))
  projected = jnp.array([[[4.0], [8.0]]])
  for present, expected in [((1, 1), 7.0), ((1, 0), 4.0), ((0, 0), 0.0)]:
    found = _weighted_sum(scores, projected, jnp.array([present], bool))
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


@pytest.mark.parametrize(
  "pool,expected",
  [
    ("mean", [4.0, 2.0, 6.0, 0.0]),
    ("max", [9.0, 3.0, 9.0, 0.0]),
    ("median", [2.0, 1.0, 3.0, 0.0]),
  ],
)
def test_pools_by_hand(pool, expected):
  """Rows of [1, 2, 9]-like sets with members missing; the median of two is the lower one."""
  x = jnp.array([[1.0, 2.0, 9.0], [1.0, 3.0, 8.0], [3.0, -5.0, 9.0], [1.0, 2.0, 3.0]])[..., None]
  present = jnp.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 0, 0]], bool)
  np.testing.assert_allclose(_pool(x, present, pool)[:, 0], expected)


def test_norms_of_a_deep_set_by_hand():
  x, everybody = jnp.array([[[3.0, 4.0], [0.0, 0.0]]]), jnp.ones((1, 2), bool)
  np.testing.assert_allclose(_normalized(x, everybody), [[[0.6, 0.8], [0, 0]]], rtol=1e-6)
  np.testing.assert_allclose(_normalized(x, everybody, "modality"), [[[1, 1], [0, 0]]], rtol=1e-6)
  first = _normalized(x, everybody, "feature", 1.0)[0, 0]
  np.testing.assert_allclose(first, [3 / 7, 4 / 7], rtol=1e-6)
  grads = jax.jit(jax.grad(lambda x: normalized(x, everybody).sum()))(x)
  assert np.isfinite(grads).all() and np.all(grads[0, 1] == 0)


def test_stack_by_hand():
  features = {"b": jnp.array([[3.0, 4.0]]), "a": jnp.array([[1.0, 2.0]])}
  np.testing.assert_array_equal(stack_vectors(features), [[[1, 3], [2, 4]]])
  with pytest.raises(ValueError, match=r"all have one width, got \[1, 2\]"):
    stack_vectors(ONE)


@pytest.mark.parametrize(
  "build,sentence",
  [
    (lambda: Early((0,)), r"hidden widths must be at least 1, got \(0,\)"),
    (lambda: Tensor(0), "products must be at least 1, got 0"),
    (lambda: LowRank(0), "rank must be at least 1, got 0"),
    (lambda: Multiplicative("tensor"), "kind must be one of matrix, vector, scalar, got 'tensor'"),
    (lambda: Multiplicative(clip=(1.0, 1.0)), "low < high, got"),
    (lambda: Multiplicative(products=0), "products must be at least 1, got 0"),
    (lambda: NLGate(tokens=0), "tokens must be at least 1, got 0"),
    (lambda: MulT(width=10), "multiple of heads and at least 4, got width 10 and heads 3"),
    (lambda: MulT(width=3), "at least 4, got width 3"),
    (lambda: MulT(dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
    (lambda: Bottleneck(fusion_layer=2), "in 0..layers-2 .* got fusion_layer 2 and layers 3"),
    (lambda: Bottleneck(layers=1, fusion_layer=0), "got fusion_layer 0 and layers 1"),
    (lambda: Bottleneck(tokens=0), "tokens must be at least 1, got 0"),
    (lambda: Perceiver(width=6), "got width 6 and heads 4"),
    (lambda: Perceiver(latents=0), "latents must be at least 1, got 0"),
    (lambda: GaussianProduct(0), "width must be at least 1, got 0"),
    (lambda: Confidence(0.0), "scale must be above 0, got 0.0"),
    (lambda: DeepSet("sum"), "pool must be one of mean, max, median, got 'sum'"),
    (lambda: DeepSet(normalize="row"), "normalize must be one of feature, modality, got 'row'"),
  ],
)
def test_wrong_settings_are_refused(build, sentence):
  with pytest.raises(ValueError, match=sentence):
    build()


@pytest.mark.parametrize(
  "features,mask,sentence",
  [
    ({}, {}, "at least one modality, got none"),
    ({"a": FEATURES["a"]}, {"b": MASK["b"]}, "modality 'a' not in mask; available: b"),
    (
      {"a": jnp.ones((4, 2, 2, 2))},
      {"a": MASK["a"]},
      r"must be \[B, D\] or \[B, T, D\], got shape",
    ),
  ],
)
def test_wrong_features_are_refused(features, mask, sentence):
  with pytest.raises(ValueError, match=sentence):
    Perceiver().init(jax.random.key(0), features, mask, num_classes=2, train=False)
