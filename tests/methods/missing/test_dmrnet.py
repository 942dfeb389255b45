"""DMRNet: a step by hand, what is mined and when, its switches, what it costs nothing to say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, fusion, masks, objectives, train
from mmfuse.core import Functions, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.missing import _dmrnet_mining as mining
from mmfuse.methods.missing._combinations import among, combination_index
from mmfuse.methods.missing._dropout import Drop

from .. import _small

KEY = jax.random.key(5)
BUILD = METHODS["dmrnet"]


@functools.cache
def built(num=2, **options):
  """The same method for the same options, so that its step is compiled once."""
  return BUILD(_small.model(num), 0.1, **options)


@functools.cache
def compiled(step):
  return jax.jit(step)


def stepped(method, epoch, state=None, num=2, epochs=4):
  state = _small.start(method, num) if state is None else state
  step = compiled(method.phases[0].step)
  return step(state, _small.batch(num), KEY, _small.clock(epoch, epochs=epochs))


def seen_by_hand(method, num=2):
  """(the batch less what the step drops, the outputs of its heads): its own draws, step by step."""
  state, batch = _small.start(method, num), _small.batch(num)
  model = fusion.with_fusion(_small.model(num), fusion.GaussianHead(), "")
  dropout, noise, _ = jax.random.split(jax.random.split(KEY, 3)[1], 3)
  rngs = {"dropout": dropout}
  variables = {"params": state.params, "batch_stats": state.stats}
  inputs = masks.fill(batch.inputs, batch.mask)
  features, stats = model.encode(variables, inputs, batch.mask, train=True, rngs=rngs)
  kept = masks.sample_subset(noise, batch.mask)
  outputs, _ = model.heads(
    {**variables, "batch_stats": stats}, masks.fill(features, kept), kept, train=True, rngs=rngs
  )
  return batch._replace(mask=kept), outputs


HARD = (("a",), ("b", "c"))


@pytest.mark.parametrize("hcr", ["intended", "released"])
def test_a_step_by_hand_on_what_it_has_dropped(hcr):
  method = built(3, alpha=0.02, beta=0.3, hard=HARD, hcr=hcr)
  batch, outputs = seen_by_hand(method, 3)
  has = np.stack([batch.mask[m] for m in "abc"], -1)
  before = np.stack([_small.batch(3).mask[m] for m in "abc"], -1)
  hard = (has == [True, False, False]).all(-1) | (has == [False, True, True]).all(-1)
  # No row of the data has a alone: what is counted is what the step has left.
  assert hard.any() and not (before == [True, False, False]).all(-1).any()
  each = np.asarray(objectives.row_losses(outputs.logits, batch.label))
  mu, logvar = (np.asarray(outputs.aux[k], np.float64) for k in ("mu", "logvar"))
  kl = 0.5 * (np.exp(logvar) + mu**2 - logvar - 1).sum(-1)
  extra = each[hard].sum() / len(each) if hcr == "intended" else hard.sum() * each.mean()
  _, log = stepped(method, epoch=2, num=3)
  np.testing.assert_allclose(log["loss/fused"], each.mean(), rtol=1e-5)
  np.testing.assert_allclose(log["loss/kl"], 0.02 * kl.mean(), rtol=1e-4)
  np.testing.assert_allclose(log["loss/hcr"], 0.3 * extra, rtol=1e-5)
  assert float(stepped(method, epoch=1, num=3)[1]["loss/hcr"]) == 0.0  # the warm-up


def test_statistics_are_those_of_what_is_left_and_freeze_after_the_warm_up():
  method = built(3)
  batch, outputs = seen_by_hand(method, 3)
  index = np.asarray(combination_index(batch.mask))
  each = np.asarray(objectives.row_losses(outputs.logits, batch.label))
  variance = np.exp(np.asarray(outputs.aux["logvar"])).mean(-1)
  state, log = stepped(method, epoch=0, num=3)
  memory = state.memory["objective"]
  for name, values in (("variance", variance), ("loss", each)):
    want = [values[index == c].mean() if (index == c).any() else 0.0 for c in range(7)]
    np.testing.assert_allclose(memory[name].mean(), want, rtol=1e-5)
    np.testing.assert_allclose(log[f"mined/{name}"], want, rtol=1e-5)
    np.testing.assert_array_equal(memory[name].weight, np.bincount(index, minlength=7)[:7])
  np.testing.assert_array_equal(log["mined/hard"], memory["hard"].astype(float))
  later, log = stepped(method, epoch=2, state=state, num=3)
  jax.tree.map(np.testing.assert_array_equal, later.memory, state.memory)
  assert int(memory["hard"].sum()) == 3 and not bool(memory["hard"][-1])


def test_the_warm_up_is_six_epochs_and_at_most_half_of_a_run():
  on = lambda epoch, epochs: float(
    stepped(built(hard=(("a",),)), epoch, epochs=epochs)[1]["loss/hcr"]
  )
  assert on(5, 100) == 0.0 < on(6, 100)
  assert on(2, 6) == 0.0 < on(3, 6)
  assert on(0, 1) > 0.0


def test_sums_over_batches_and_the_released_mean_of_one():
  index, values = jnp.asarray([0, 2, 0, 3]), jnp.asarray([1.0, 5.0, 2.0, jnp.nan])
  weight = jnp.asarray([1.0, 1.0, 3.0, 0.0])
  sums = mining.sums_of(index, values, weight, 3)
  np.testing.assert_allclose(sums.total, [7.0, 0.0, 5.0])
  np.testing.assert_allclose(sums.weight, [4.0, 0.0, 1.0])
  both = jax.tree.map(jnp.add, sums, mining.sums_of(index, values, weight, 3))
  np.testing.assert_allclose(both.mean(), [1.75, 0.0, 5.0])
  np.testing.assert_allclose(mining.batch_means(index[:3], values[:3], 3), [1.5, np.nan, 5.0])


def test_hard_are_the_largest_means_of_incomplete_combinations_that_occurred():
  sums = mining.Sums(jnp.asarray([3.0, 8.0, 0.0, 9.0]), jnp.asarray([1.0, 4.0, 0.0, 1.0]))
  np.testing.assert_array_equal(mining.hardest(sums, 1), [True, False, False, False])
  np.testing.assert_array_equal(mining.hardest(sums, 2), [True, True, False, False])
  np.testing.assert_array_equal(mining.hardest(sums, 3), [True, True, False, False])
  assert not mining.hardest(sums, 0).any()
  tie = mining.Sums(jnp.ones(3), jnp.ones(3))
  np.testing.assert_array_equal(mining.hardest(tie, 1), [True, False, False])


def test_the_released_choice_is_the_second_where_nothing_can_be_told():
  first, second = jnp.asarray([1.0, 2.0]), jnp.asarray([0.5, 2.0])
  assert bool(mining.first_is_weak(first, second))
  assert not bool(mining.first_is_weak(second, first))
  assert not bool(mining.first_is_weak(first, first))
  assert not bool(mining.first_is_weak(first.at[0].set(jnp.nan), second))


@functools.cache
def noise_beside_signal() -> data.Splits:
  """a tells the class, b is noise: whoever has b alone has the larger loss."""
  rng, label = np.random.default_rng(0), np.arange(60) % 3
  return data.from_arrays(
    {
      "a": (3 * np.eye(3)[label] + 0.1 * rng.normal(size=(60, 3))).astype(np.float32),
      "b": rng.normal(size=(60, 3)).astype(np.float32),
      "label": label,
      "split": np.repeat([0, 1, 2], [48, 9, 3]),
    }
  )


@pytest.mark.slow
@pytest.mark.parametrize("mine", ["loss", "variance"])
def test_both_statistics_are_kept_and_the_one_asked_for_chooses(mine):
  method = built(mine=mine)
  result = train.fit(
    method, noise_beside_signal(), epochs=6, batch_size=16, loop="scan", diagnose=False
  )
  memory = result.state(0).memory["objective"]
  loss, variance = (np.asarray(memory[k].mean()) for k in ("loss", "variance"))
  assert loss[1] > loss[0] + 0.1  # of b alone, of a alone
  chosen = {"loss": loss, "variance": variance}[mine][:2].argmax()
  np.testing.assert_array_equal(memory["hard"], np.arange(3) == chosen)
  np.testing.assert_allclose(result.logs[0].history[-1]["mined/loss"], loss, rtol=1e-5)
  np.testing.assert_allclose(result.logs[0].history[-1]["mined/hard"], memory["hard"])


def apart(a, b):
  return max(float(abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b))))


def test_without_its_two_terms_it_is_modality_dropout_on_its_head():
  model = fusion.with_fusion(_small.model(), fusion.GaussianHead(), "")
  plain = train.supervised(model, objectives.fused, train.sgd(0.1), perturb=Drop(("a", "b")))
  want, _ = stepped(plain, 2)
  found, _ = stepped(built(alpha=0.0, beta=0.0, hard=(("a",),)), 2)
  assert apart(found.params, want.params) < 1e-6
  assert apart(stepped(built(alpha=0.1, beta=0.0), 2)[0].params, want.params) > 1e-5
  more = built(alpha=0.0, beta=0.5, hard=(("a",), ("b",)))
  assert apart(stepped(more, 2)[0].params, want.params) > 1e-5


def test_a_detached_divergence_is_said_and_moves_nothing():
  options = {"beta": 0.0, "hard": (("a",),)}
  without, log = stepped(built(alpha=0.0, **options), 2)
  detached, said = stepped(built(alpha=0.1, kl_detach=True, **options), 2)
  assert apart(detached.params, without.params) < 1e-7
  attached, told = stepped(built(alpha=0.1, **options), 2)
  assert float(said["loss/kl"]) == float(told["loss/kl"]) > 0 == float(log["loss/kl"])
  assert apart(attached.params, without.params) > 1e-5


def test_prediction_is_the_mean_and_says_the_gaussian():
  method, batch = built(), _small.batch()
  state, _ = stepped(method, 0)
  said = method.predict(state, batch.inputs, batch.mask)
  out = state.params["heads"]["fused"]["out"]
  np.testing.assert_allclose(
    said.logits, said.aux["mu"] @ out["kernel"] + out["bias"][None], atol=1e-5
  )
  assert said.aux["logvar"].shape == said.aux["mu"].shape == (_small.BATCH, 6)


@pytest.mark.slow
@pytest.mark.parametrize(
  "num, options",
  [
    (2, {"hard": (("a",),), "start_epoch": 0}),
    (2, {"hard": (("a",),), "start_epoch": 0, "hcr": "released", "kl_detach": True}),
    (3, {"mine": "loss", "start_epoch": 2, "width": 4}),
    (1, {"start_epoch": 2}),
  ],
)
def test_the_contract_of_a_method_with_its_terms_on(num, options):
  train.check_method(built(num, **options), _small.splits(num), batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["multilabel", "regression"])
def test_labels_of_other_tasks(label):
  batch = _small.batch()
  given = {
    "multilabel": jax.nn.one_hot(batch.label, 3, dtype=jnp.int32),
    "regression": jax.random.normal(KEY, (_small.BATCH, 3)),
  }[label]
  method, batch = built(hard=(("a",),)), batch._replace(label=given)
  state = train.initial(method, jax.random.key(0), batch, _small.ROWS)
  after, log = jax.jit(method.phases[0].step)(state, batch, KEY, _small.clock(2))
  assert bool(log["finite"]) and float(log["loss/hcr"]) > 0
  assert apart(after.params, state.params) > 0


def test_a_row_that_lacks_modalities_is_left_a_subset_of_what_it_has():
  batch = _small.batch(3)
  mask = {**batch.mask, "b": jnp.zeros(_small.BATCH, bool)}
  features = {m: jnp.ones((_small.BATCH, 2)) for m in mask}
  _, left = Drop(("a", "b", "c"))(features, batch._replace(mask=mask), key=KEY, clock=None)
  index = combination_index(left.mask)
  with_b = jnp.asarray(["b" in c for c in masks.combinations("abc")])
  assert not among(with_b, index).any()


@pytest.mark.parametrize(
  "options, message",
  [
    ({"alpha": -1}, "alpha must not be negative"),
    ({"beta": -1}, "beta must not be negative"),
    ({"mine": "x"}, "mine must be one of variance, loss; got 'x'"),
    ({"hcr": "x"}, "hcr must be one of intended, released; got 'x'"),
    ({"num_hard": 3}, r"num_hard must lie in 0\.\.2, got 3"),
    ({"hard": (("z",),)}, "no combination 'z'"),
    ({"start_epoch": 0}, "start_epoch must be at least 1"),
    ({"width": 0}, "width must be at least 1"),
  ],
)
def test_bad_settings_are_refused_at_the_door(options, message):
  with pytest.raises(ValueError, match=message):
    built(**options)


def test_where_it_is_undefined():
  with pytest.raises(Unavailable, match="dmrnet replaces the fusion of a LateFusion"):
    BUILD(Functions(*[None] * 3, ("a", "b")))
  encoders = dict.fromkeys("abcdefghijk", _small.model().encoders["a"])
  with pytest.raises(Unavailable, match="at most 10 modalities, these are 11"):
    BUILD(dataclasses.replace(_small.model(), encoders=encoders))
