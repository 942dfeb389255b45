"""Shared features in place of absent ones: the page's invariants, by hand and on networks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, masks, train
from mmfuse.core import Batch, Functions, Outputs, Unavailable
from mmfuse.fusion import LateFusion
from mmfuse.methods import METHODS
from mmfuse.methods.missing import _shaspec as shaspec
from mmfuse.methods.missing._shaspec_model import OWN, SharedSpecific, combine, stand_ins

from .. import _small

BUILD = METHODS["shaspec"]


def rows(*values):
  return jnp.asarray(values, jnp.float32)[:, None]


def features(shared, specific):
  return {m: {"shared": rows(*shared[m]), "specific": rows(*specific[m])} for m in shared}


def present(**mask):
  return {m: jnp.asarray(v, bool) for m, v in mask.items()}


def test_the_pages_case_by_hand():
  """Row 0 has both, row 1 the first: r = (1, 3), q = (2, 5), P([r; q]) = .5 r + q."""
  found = features({"a": (1, 1), "b": (3, np.nan)}, {"a": (2, 2), "b": (5, np.nan)})
  mask = present(a=(1, 1), b=(1, 0))
  project = dict.fromkeys("ab", jnp.asarray([[0.5], [1.0]]))
  u = combine(found, mask, project)
  assert u["a"][:, 0].tolist() == [3.5, 3.5] and u["b"][:, 0].tolist() == [9.5, 1.0]
  weight = {m: v.astype(jnp.float32) for m, v in mask.items()}
  shared = {m: h["shared"] for m, h in found.items()}
  assert float(shaspec.alignment_loss(shared, weight)) == 2.0
  assert float(shaspec.alignment_loss(shared, weight, "mse")) == 4.0
  assert float(shaspec.alignment_loss(shared, {**weight, "b": jnp.zeros(2)})) == 0.0
  logits = {m: jnp.zeros((2, 2)) for m in "ab"}
  assert float(shaspec.domain_loss(logits, weight)) == pytest.approx(np.log(2))


def test_what_is_absent_has_no_gradient_whatever_stands_there():
  project = dict.fromkeys("ab", jnp.asarray([[0.5], [1.0]]))
  mask = present(a=(1, 1), b=(1, 0))
  weight = {m: v.astype(jnp.float32) for m, v in mask.items()}

  def total(found):
    shared = {m: h["shared"] for m, h in found.items()}
    logits = {m: jnp.concatenate([h["specific"], -h["specific"]], -1) for m, h in found.items()}
    losses = shaspec.alignment_loss(shared, weight) + shaspec.domain_loss(logits, weight)
    return losses + sum(u.sum() for u in combine(found, mask, project).values())

  pulled = [
    jax.grad(total)(features({"a": (1, 1), "b": (3, x)}, {"a": (2, 2), "b": (5, x)}))
    for x in (0.0, np.nan)
  ]
  jax.tree.map(np.testing.assert_array_equal, *pulled)
  assert all(g[1, 0] == 0 for g in jax.tree.leaves(pulled[1]["b"]))
  assert all(g[0, 0] != 0 for g in jax.tree.leaves(pulled[1]["b"]))


def test_the_specific_residual_by_hand():
  """u_m = q_m + P_m([q_m; r_m]), and P_m([0; r]) where m is absent; each modality has its P_m."""
  found = features({"a": (1, 1), "b": (3, 7)}, {"a": (2, 2), "b": (5, 7)})
  project = {"a": jnp.asarray([[0.5], [1.0]]), "b": jnp.asarray([[10.0], [2.0]])}
  u = combine(found, present(a=(1, 1), b=(1, 0)), project, residual="specific")
  assert u["a"][:, 0].tolist() == [4.0, 4.0] and u["b"][:, 0].tolist() == [61.0, 2.0]


def test_what_stands_in():
  shared = {"a": rows(1, 1, 1, 1), "b": rows(3, 3, 3, 3), "c": rows(8, 8, 8, 8)}
  mask = present(a=(1, 1, 0, 0), b=(1, 0, 1, 0), c=(1, 1, 1, 0))
  assert stand_ins(shared, mask, "mean")[:, 0].tolist() == [4.0, 4.5, 5.5, 0.0]
  assert stand_ins(shared, mask, "first")[:, 0].tolist() == [1.0, 1.0, 3.0, 0.0]


def test_the_ring_has_each_pair_once():
  assert shaspec.ring("a") == [] and shaspec.ring("ba") == [("a", "b")]
  assert shaspec.ring("dacb") == [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]


def test_the_alignment_is_the_mean_over_pairs_that_some_row_has():
  """Pairs ab (rows 0, 1, of weights 1 and 3) and bc (row 2); nobody has c and a."""
  shared = {"a": rows(0, 0, 9), "b": rows(1, 2, 0), "c": rows(9, 9, 5)}
  weight = {
    m: jnp.asarray(w, jnp.float32) for m, w in zip("abc", ((1, 3, 0), (1, 3, 2), (0, 0, 2)))
  }
  assert float(shaspec.alignment_loss(shared, weight)) == pytest.approx(((1 + 3 * 2) / 4 + 5) / 2)
  equal = dict.fromkeys("abc", shared["b"])
  assert float(shaspec.alignment_loss(equal, weight)) == 0.0
  maps = {m: jnp.broadcast_to(r[:, None, None], (3, 2, 2, 1)) for m, r in shared.items()}
  assert float(shaspec.alignment_loss(maps, weight)) == pytest.approx(3.375)


def test_of_one_modality_nothing_is_left():
  found = {"a": rows(1, 2)}
  weight = {"a": jnp.ones(2)}
  assert float(shaspec.alignment_loss(found, weight)) == 0.0
  assert float(shaspec.domain_loss({"a": rows(3, -1)}, weight)) == 0.0


# The network.


def batch_of(names, size=6, seed=0, lack=True):
  rng = np.random.default_rng(seed)
  inputs = {m: jnp.asarray(rng.normal(size=(size, 4)), jnp.float32) for m in names}
  mask = {m: jnp.asarray(np.arange(size) % (len(names) + 1) != i + 1) for i, m in enumerate(names)}
  mask = mask if lack else masks.full(names, size)
  index = jnp.arange(size)
  return Batch(inputs, index % 3, mask, jnp.ones(size), index)


def network(names="abc", widths=(5, 5, 5), **options):
  kinds = {m: encoders.MLP(d, (6,)) for m, d in zip(names, widths)}
  return SharedSpecific(LateFusion(kinds, 3), **options)


@functools.partial(jax.jit, static_argnames="model")
def start(model, batch):
  return model.init(jax.random.key(0), batch.inputs, batch.mask)


@functools.partial(jax.jit, static_argnames=("model", "train"))
def run(model, variables, batch, train=False):
  found, stats = model.encode(variables, batch.inputs, batch.mask, train=train)
  variables = {**variables, "batch_stats": stats}
  return model.heads(variables, found, batch.mask, train=train)[0]


def moved(variables, seed=7):
  """Variables in which nothing is 0 any more, the residual not either."""
  rng = np.random.default_rng(seed)
  noise = lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32)
  return {**variables, "params": jax.tree.map(noise, variables["params"])}


def test_at_the_start_it_is_one_shared_encoder_with_mean_imputation():
  model, batch = network(), batch_of("abc")
  variables = start(model, batch)
  said = run(model, variables, batch)
  r = {m: h["shared"] for m, h in said.features.items()}
  mean = stand_ins(r, batch.mask, "mean")
  filled = {m: jnp.where(batch.mask[m][:, None], r[m], mean) for m in "abc"}
  plain = model.model.heads(model._copy(variables, "shared"), filled, batch.mask, train=False)[0]
  np.testing.assert_allclose(said.logits, plain.logits, atol=1e-6)
  joint = start(model.model, batch)["params"]
  for m in "abc":  # the same start as any other method's, and a second encoder of its own
    shared, specific = (jax.tree.leaves(variables["params"][m][c]) for c in ("shared", "specific"))
    assert all((x == y).all() for x, y in zip(shared, jax.tree.leaves(joint[m])))
    assert any((x != y).any() for x, y in zip(shared, specific))
  # A single modality stands in for all.
  only = run(model, variables, batch._replace(mask=masks.only(batch.mask, ("b",))))
  here = np.asarray(batch.mask["b"])
  kernel = variables["params"]["heads"]["fused"]["kernel"].reshape(3, 5, 3).sum(0)
  expected = only.features["b"]["shared"] @ kernel
  np.testing.assert_allclose(only.logits[here], expected[here], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("residual", ["shared", "specific"])
def test_modalities_may_be_renamed(residual):
  """With their encoders, their rows of the head and of the classifier; the ring of three has no order."""
  model, batch = network(residual=residual), batch_of("abc")
  variables = moved(start(model, batch))
  new = {"a": "c", "b": "a", "c": "b"}
  order = [1, 2, 0]  # of the old places, in the order of the new names
  rename = lambda tree: {new[m]: x for m, x in tree.items()}
  params, own = variables["params"], variables["params"][OWN]
  fused = params["heads"]["fused"]
  kernel = fused["kernel"].reshape(3, 5, 3)[jnp.asarray(order)].reshape(15, 3)
  turned = {
    **{new[m]: params[m] for m in "abc"},
    "heads": {
      "fused": {**fused, "kernel": kernel},
      **{new[m]: params["heads"][m] for m in "abc"},
    },
    OWN: {
      **own,
      "residual": own["residual"] if residual == "shared" else rename(own["residual"]),
      "domain": {k: x[..., jnp.asarray(order)] for k, x in own["domain"].items()},
    },
  }
  other = batch._replace(inputs=rename(batch.inputs), mask=rename(batch.mask))
  one = run(model, variables, batch)
  two = run(model, {**variables, "params": turned}, other)
  np.testing.assert_allclose(one.logits, two.logits, atol=1e-5)
  loss = shaspec.ShaSpecLoss(1.0, 1.0, "l1", "present")
  first, second = loss(one, batch, complete=batch), loss(two, other, complete=other)
  for name in first:
    assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-5) and first[name] > 0


def test_what_is_absent_moves_only_its_own_encoders_by_nothing():
  model = network(residual="specific")
  batch = batch_of("abc", lack=False)
  batch = batch._replace(mask=masks.only(batch.mask, ("a", "c")))
  variables = moved(start(model, batch))
  loss = shaspec.ShaSpecLoss(0.1, 0.02, "l1", "present")

  def total(params, x):
    inputs = {**batch.inputs, "b": x}
    said = run(model, {**variables, "params": params}, batch._replace(inputs=inputs))
    return sum(loss(said, batch, complete=batch).values())

  norm = lambda tree: float(sum(jnp.abs(g).sum() for g in jax.tree.leaves(tree)))
  pull = jax.jit(jax.value_and_grad(total))
  value, gradient = pull(variables["params"], batch.inputs["b"])
  again = pull(variables["params"], jnp.full((6, 4), jnp.nan))
  assert value == again[0] and np.isfinite(value)
  jax.tree.map(np.testing.assert_array_equal, gradient, again[1])
  assert norm(gradient["b"]) == 0
  for c in ("shared", "specific"):
    assert norm(gradient["a"][c]) > 0 and norm(gradient["c"][c]) > 0
  assert all(norm(gradient[OWN]["residual"][m]) > 0 for m in "abc")  # P_b carries the stand-in


@pytest.mark.slow
def test_encoders_of_several_widths_meet_in_the_widest():
  model, batch = network(widths=(5, 3, 4)), batch_of("abc")
  variables = start(model, batch)
  assert "widen" not in variables["params"]["a"]
  assert variables["params"]["b"]["widen"]["specific"]["kernel"].shape == (3, 5)
  said = run(model, moved(variables), batch, train=True)
  assert {h.shape for m in "abc" for h in said.features[m].values()} == {(6, 5)}
  assert np.isfinite(said.logits).all() and sorted(said.unimodal_logits) == ["a", "b", "c"]
  for m in "abc":
    assert not np.asarray(said.features[m]["shared"])[~np.asarray(batch.mask[m])].any()


def test_the_statistics_of_both_copies_of_an_encoder_move():
  kinds = {m: encoders.MLP(4, (), "batch") for m in "ab"}
  method = BUILD(LateFusion(kinds, 3), 0.1)
  batch = _small.batch()
  before = train.initial(method, jax.random.key(0), batch, 48)
  after, log = jax.jit(method.phases[0].step)(before, batch, jax.random.key(1), _small.clock())
  mean = lambda state, c: state.stats[c]["a"]["norm0"]["mean"]
  for c in ("shared", "specific"):
    assert np.abs(mean(after, c) - mean(before, c)).max() > 0
  assert bool(log["finite"])


# The method.


def drawn(warmup=0.0, mask=None, clock=None, size=3000):
  mask = masks.full("ab", size) if mask is None else mask
  batch = Batch({}, None, mask, jnp.ones(size), jnp.arange(size))
  given = {m: jnp.ones((size, 2)) for m in "ab"}
  perturb = shaspec.Combinations(("a", "b"), warmup)
  kept, batch = perturb(given, batch, key=jax.random.key(0), clock=clock or _small.clock())
  assert all(kept[m] is given[m] for m in "ab")
  return np.asarray(batch.mask["a"]), np.asarray(batch.mask["b"])


def test_complete_rows_get_a_subset_and_others_keep_their_own():
  a, b = drawn()
  shares = [np.mean(a & b), np.mean(a & ~b), np.mean(b & ~a)]
  assert shares == pytest.approx([1 / 3] * 3, abs=0.03)
  lacking = np.arange(3000) % 2 == 0
  a, b = drawn(mask={"a": jnp.ones(3000, bool), "b": jnp.asarray(~lacking)})
  assert a[lacking].all() and not b[lacking].any() and not (a & b)[~lacking].all()


def test_the_warm_up_drops_nothing():
  assert all(drawn(warmup=0.5, clock=_small.clock(epoch=1))[0])  # a quarter is done
  assert not all(drawn(warmup=0.5, clock=_small.clock(epoch=2))[0])
  assert all(drawn(warmup=1.0, clock=_small.clock(epoch=3, batch=2))[0])


def test_the_losses_see_what_is_present_or_what_is_kept():
  said = Outputs(
    jnp.zeros((2, 3)),
    {},
    features({"a": (1, 1), "b": (3, 3)}, {"a": (0, 0), "b": (0, 0)}),
    {OWN: {"a": jnp.asarray([[9.0, 0], [9, 0]]), "b": jnp.asarray([[9.0, 0], [0, 9]])}},
  )
  complete = batch_of("ab", 2, lack=False)
  kept = complete._replace(mask=present(a=(1, 1), b=(0, 0)))
  value = lambda which, **o: shaspec.ShaSpecLoss(1.0, 1.0, "l1", which)(said, kept, **o)
  both, less = (value(which, complete=complete) for which in ("present", "kept"))
  assert both["alignment"] == 2.0 and less["alignment"] == 0.0
  assert both["domain"] > 2 and less["domain"] < 0.01
  # What a step's own `keep` takes away has gone before the heads, and counts as absent.
  gone = complete._replace(keep=kept.mask)
  assert value("present", complete=gone)["alignment"] == 0.0
  assert both["fused"] == less["fused"] == pytest.approx(np.log(3))


def test_a_step_logs_the_losses_and_whether_the_shared_features_collapse():
  method = BUILD(_small.model(3), 0.1)
  state = _small.start(method, 3)
  step = jax.jit(method.phases[0].step)
  after, log = step(state, _small.batch(3), jax.random.key(1), _small.clock())
  assert {"loss/fused", "loss/alignment", "loss/domain", "shared_std"} <= set(log)
  assert all(np.isfinite(v) and v > 0 for v in log.values())
  assert float(log["loss/domain"]) < 0.02 * 3 and _small.finite(after.params)
  flat = {
    m: jax.tree.map(jnp.ones_like, h) for m, h in features({"a": (1, 5)}, {"a": (1, 5)}).items()
  }
  batch = batch_of("a", 2, lack=False)
  said = lambda found: shaspec.shared_std(Outputs(None, {}, found), batch)["shared_std"]
  assert said(flat) == 0 and said(features({"a": (1, 5)}, {"a": (1, 5)})) == 2.0


@pytest.mark.slow
def test_without_weights_of_the_losses_only_the_structure_is_left():
  """alpha = beta = 0: the classifier is not moved, and neither loss moves an encoder."""
  one, other = (
    jax.jit(BUILD(_small.model(), 0.1, alpha=0.0, beta=0.0, **o).phases[0].step)(
      _small.start(BUILD(_small.model(), 0.1)), _small.batch(), jax.random.key(1), _small.clock()
    )[0].params
    for o in ({}, {"alignment": "mse", "auxiliary": "kept"})
  )
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), one, other)
  before = _small.start(BUILD(_small.model(), 0.1)).params
  jax.tree.map(np.testing.assert_array_equal, one[OWN]["domain"], before[OWN]["domain"])


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {"residual": "specific", "warmup": 0.5},
    {"stand_in": "first", "alignment": "mse", "auxiliary": "kept"},
  ],
  ids=str,
)
def test_every_option_keeps_the_contract_of_a_method(options):
  train.check_method(BUILD(_small.model(3), 0.1, **options), _small.splits(3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_of_other_tasks(kind):
  batch = batch_of("ab", 8)
  label = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 3)))
  batch = batch._replace(label=label if kind == "multilabel" else label.astype(jnp.float32))
  method = BUILD(_small.model(), 0.1)
  state = train.initial(method, jax.random.key(0), batch, 8)
  _, log = jax.jit(method.phases[0].step)(state, batch, jax.random.key(0), _small.clock())
  assert bool(log["finite"]) and float(log["loss/fused"]) > 0


@pytest.mark.slow
def test_it_learns_and_the_shared_features_draw_together():
  splits = _small.splits(3)
  method = BUILD(_small.model(3), 0.1, alpha=1.0)
  result = train.fit(method, splits, epochs=12, batch_size=16, select="last", diagnose=False)
  history = result.logs[0].history
  assert history[-1]["loss/fused"] < history[0]["loss/fused"] - 0.2
  ratio = lambda entry: entry["loss/alignment"] / entry["shared_std"]
  assert ratio(history[-1]) < 0.7 * ratio(history[0])


def sequence_model():
  kinds = {m: encoders.Conv1D(8, pool="none") for m in "ab"}
  return LateFusion(kinds, 3, fusion.MulT())


@pytest.mark.parametrize(
  "model, options, error, message",
  [
    (_small.model(), {"alpha": -1.0}, ValueError, "alpha must not be negative, got -1.0"),
    (_small.model(), {"beta": -1.0}, ValueError, "beta must not be negative"),
    (_small.model(), {"warmup": 2.0}, ValueError, r"warmup must lie in \[0, 1\], got 2.0"),
    (_small.model(), {"residual": "x"}, ValueError, "residual is one of shared, specific, got 'x'"),
    (_small.model(), {"stand_in": "x"}, ValueError, "stand_in is one of mean, first"),
    (_small.model(), {"alignment": "x"}, ValueError, "alignment is one of l1, mse"),
    (_small.model(), {"auxiliary": "x"}, ValueError, "auxiliary is one of present, kept"),
    (Functions(*[None] * 3, ("a", OWN)), {}, Unavailable, "a modality is called 'shaspec'"),
    (sequence_model(), {}, Unavailable, "reads the steps of a sequence"),
  ],
)
def test_what_it_refuses(model, options, error, message):
  with pytest.raises(error, match=message):
    BUILD(model, 0.1, **options)


@pytest.mark.slow
def test_a_model_of_your_own_needs_vectors_of_one_width():
  inner = LateFusion({"a": encoders.MLP(5), "b": encoders.MLP(3)}, 3)
  other = Functions(inner.init, inner.encode, inner.heads, inner.modalities)
  batch = batch_of("ab")
  with pytest.raises(Unavailable, match="the model's differ: a 5, b 3"):
    SharedSpecific(other).init(jax.random.key(0), batch.inputs, batch.mask)
  same = dataclasses.replace(inner, encoders={m: encoders.MLP(5) for m in "ab"})
  own = Functions(same.init, same.encode, same.heads, same.modalities)
  given = (jax.random.key(0), batch.inputs, batch.mask)
  equal = jax.tree.map(
    np.array_equal, SharedSpecific(own).init(*given), SharedSpecific(same).init(*given)
  )
  assert all(jax.tree.leaves(equal))
  flat = Functions(
    same.init, lambda *a, **k: ({m: jnp.zeros(()) for m in "ab"}, {}), None, ("a", "b")
  )
  with pytest.raises(Unavailable, match="feature vectors"):
    SharedSpecific(flat).init(*given)
