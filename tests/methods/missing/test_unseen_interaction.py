"""Two phases, what each of them moves, the table between them, and combinations that training lacks."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, tasks, train
from mmfuse.core import Functions, Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.missing._pseudo_labels import Begin, Collect
from mmfuse.methods.missing._unseen_retrieval import max_margin

from .. import _small

SMALL = {"width": 8, "layers": 1, "heads": 2, "slots": 4}
BUILD = functools.partial(METHODS["unseen_interaction"], **SMALL)
TX = train.sgd(0.1, weight_decay=0.1)
METHOD = BUILD(_small.model(), tx=TX)
STEPS = {p.name: jax.jit(p.step) for p in METHOD.phases}


def disjoint(batch):
  """Rows that have a or b, none both."""
  first = jnp.arange(batch.weight.shape[0]) % 2 == 0
  return batch._replace(mask={"a": first, "b": ~first})


@pytest.fixture(scope="module")
def start():
  return _small.start(METHOD)


def stepped(start, phase, batch):
  return STEPS[phase](start, batch, jax.random.key(1), _small.clock())


def same(a, b):
  return all((x == y).all() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_the_first_phase_moves_all_but_the_fused_head_and_the_second_that_alone(start):
  batch = disjoint(_small.batch())
  first, log = stepped(start, "alone", batch)
  assert bool(log["finite"]) and same(
    first.params["heads"]["fused"], start.params["heads"]["fused"]
  )
  for m in "ab":
    assert not same(first.params[m], start.params[m])
    assert not same(first.params["heads"][m], start.params["heads"][m])
  last, log = stepped(first, "train", batch)
  assert bool(log["finite"]) and not same(
    last.params["heads"]["fused"], first.params["heads"]["fused"]
  )
  for m in "ab":  # not by decay either
    assert same(last.params[m], first.params[m])
    assert same(last.params["heads"][m], first.params["heads"][m])


def test_the_table_is_the_mean_of_the_last_epochs_of_rows_that_have_it(start):
  (first, last), splits = METHOD.phases, _small.hooks()
  collect, begin = first.epoch_end, last.begin
  assert isinstance(collect, Collect) and isinstance(begin, Begin)
  hook = lambda state, epoch: collect(state, splits, jax.random.key(0), _small.hour(epoch, 6))
  assert hook(start, 3) is start  # of six epochs, the last three
  moved, _ = stepped(start, "alone", _small.batch())
  states = (start, moved, stepped(moved, "alone", _small.batch())[0])
  kept = start
  for number, state in enumerate(states):
    kept = hook(state._replace(memory=kept.memory), 4 + number)
  found = kept.memory["pseudo"]
  assert int(found["epochs"]) == 3
  for m in "ab":
    each = [train.over_split(collect.predictions, s, splits["train"])[m] for s in states]
    np.testing.assert_allclose(found["of"][m], np.mean(each, 0), atol=1e-6)
    here = splits["train"].mask[m]
    np.testing.assert_allclose(found["of"][m].sum(1), here.astype(np.float32), atol=1e-5)
  enter = lambda state: begin(state, splits, jax.random.key(0), _small.hour(0, 6))
  assert enter(kept) is kept
  filled = enter(start).memory["pseudo"]  # the first phase stopped before it was begun
  assert int(filled["epochs"]) == 1 and filled["of"]["a"].any()


def with_table(state, table):
  return train.remember(state, pseudo={"of": table, "epochs": jnp.int32(1)})


def test_a_row_learns_from_its_own_pseudo_label(start):
  batch = disjoint(_small.batch())
  table = {m: jnp.full((_small.ROWS, _small.CLASSES), 1 / 3) for m in "ab"}
  other = lambda row: {**table, "a": table["a"].at[row].set(jnp.asarray([1.0, 0, 0]))}
  rows = {row: with_table(start, other(row)) for row in (0, 1, _small.BATCH)}
  plain, log = stepped(with_table(start, table), "train", batch)
  after = {row: stepped(state, "train", batch) for row, state in rows.items()}
  assert not same(
    after[0][0].params, plain.params
  )  # row 0 has a, row 1 has not, the last is not there
  assert same(after[1][0].params, plain.params) and same(
    after[_small.BATCH][0].params, plain.params
  )
  assert float(after[0][1]["part/label"]) == float(log["part/label"])
  assert float(after[0][1]["part/pseudo"]) > float(log["part/pseudo"])


@pytest.mark.slow
def test_the_best_pseudo_label_counts_or_all_of_them(start):
  batch = _small.batch()._replace(mask=dict.fromkeys("ab", jnp.ones(_small.BATCH, bool)))
  right = jax.nn.one_hot(batch.label, _small.CLASSES)
  table = lambda m: jnp.zeros((_small.ROWS, _small.CLASSES)).at[batch.index].set(m)
  state = with_table(start, {"a": table(right), "b": table(jnp.roll(right, 1, 1))})
  (*_, last) = BUILD(_small.model(), tx=TX, pseudo="all").phases
  all_step = lambda *at: jax.jit(last.step)(*at, jax.random.key(1), _small.clock())
  best, every = stepped(state, "train", batch)[1], all_step(state, batch)[1]
  one = with_table(start, {"a": table(right), "b": table(right)})
  alone = stepped(one, "train", batch)[1]
  assert float(best["part/pseudo"]) == pytest.approx(float(alone["part/pseudo"]), rel=1e-6)
  assert float(every["part/pseudo"]) > 1.5 * float(best["part/pseudo"])


def test_branches_are_averaged_and_an_absent_modality_adds_nothing(start):
  batch = _small.batch()
  said = METHOD.predict(start, batch.inputs, batch.mask)
  z = said.aux["members"]
  assert z.shape == (_small.BATCH, 2, _small.CLASSES)
  np.testing.assert_allclose(jax.nn.softmax(said.logits), jax.nn.softmax(z).mean(1), atol=1e-6)
  nothing = METHOD.predict(
    start, batch.inputs, {m: jnp.zeros_like(v) for m, v in batch.mask.items()}
  )
  assert np.ptp(nothing.logits, axis=0).max() < 1e-6  # what is left are positions
  without = METHOD.predict(start, batch.inputs, {**batch.mask, "b": jnp.zeros(_small.BATCH, bool)})
  garbage = {**batch.inputs, "b": jnp.full_like(batch.inputs["b"], jnp.nan)}
  again = METHOD.predict(start, garbage, {**batch.mask, "b": jnp.zeros(_small.BATCH, bool)})
  np.testing.assert_array_equal(without.logits, again.logits)
  assert not without.aux["latent"]["b"].any() and without.aux["latent"]["a"].any()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_tasks(task):
  batch = _small.batch()
  targets = jax.nn.one_hot(batch.label, _small.CLASSES)
  label = targets if task == "regression" else targets.astype(jnp.int32)
  batch = batch._replace(label=label)
  method = BUILD(_small.model(), 0.1, task=task, tokens=5)
  state = train.initial(method, jax.random.key(0), batch, _small.ROWS)
  assert state.params["heads"]["fused"]["tokens"].shape == (5, 8)
  losses = []
  step = jax.jit(method.phases[-1].step)
  for i in range(4):
    state, log = step(state, batch, jax.random.key(i), _small.clock())
    losses.append(float(log["part/label"]))
    assert bool(log["finite"])
  assert losses[-1] < losses[0]
  said = method.predict(state, batch.inputs, batch.mask)
  z, mean = said.aux["members"], lambda z: z if task == "regression" else jax.nn.sigmoid(z)
  np.testing.assert_allclose(mean(said.logits), mean(z).mean(1), atol=1e-5)


@pytest.mark.slow
def test_an_unseen_combination_is_learned_from_disjoint_rows():
  splits = _small.splits()
  first = np.arange(_small.ROWS) % 2 == 0
  part = splits.train.replace(mask={"a": first, "b": ~first})
  given = dataclasses.replace(splits, parts={**splits.parts, "train": part})
  method = BUILD(_small.model(), tx=train.adam(0.01))
  result = train.fit(
    method, given, epochs=150, batch_size=_small.BATCH, loop="scan", diagnose=False
  )
  table = result.states.memory["pseudo"]["of"]
  np.testing.assert_allclose(np.asarray(table["a"])[..., :].sum(-1).reshape(-1), first, atol=1e-5)
  both = splits.train.replace(mask=dict.fromkeys("ab", np.ones(_small.ROWS, bool)))
  scored = train.evaluate(method, result.state(), both, metric=tasks.metric_of(splits))
  assert scored["fused"]["accuracy"] > 0.6  # chance is a third


def test_an_encoder_that_keeps_its_steps_stays():
  own = encoders.Transformer(4, 1, 2, pool="none")
  model = fusion.LateFusion({"a": own, "b": encoders.MLP()}, 2)
  made = BUILD(model).predict.function.model
  assert made.encoders["a"] is own and made.encoders["b"].step_features == 32


def test_equal_builds_share_what_is_compiled_and_the_rate_is_one(start):
  assert BUILD(_small.model(), 0.2).predict == METHOD.predict
  assert train.has_learning_rate(_small.start(BUILD(_small.model(), 0.1)).opt, 0.1)


def test_where_it_is_undefined():
  with pytest.raises(Unavailable, match="at least two"):
    BUILD(_small.model(1))
  with pytest.raises(Unavailable, match="LateFusion model, got a Functions"):
    BUILD(Functions(*[None] * 3, ("a", "b")))
  batch = _small.batch()
  words = batch._replace(inputs={**batch.inputs, "b": jnp.ones((_small.BATCH, 3), jnp.int32)})
  with pytest.raises(Unavailable, match="says how many 'b' has"):
    train.initial(METHOD, jax.random.key(0), words)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"alpha": -1.0}, "alpha must not be negative, got -1.0"),
    ({"lam": -1.0}, "lam must not be negative"),
    ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\), got 1.0"),
    ({"pseudo": "mean"}, "pseudo must be one of best, all; got 'mean'"),
    ({"slots": 3}, "slots must be a positive multiple of 2, got 3"),
    ({"width": 9}, "width must be a multiple of heads"),
    ({"window": 0}, "window must be at least 1, got 0"),
  ],
)
def test_bad_settings_are_refused_at_the_door(options, message):
  with pytest.raises(ValueError, match=message):
    BUILD(_small.model(), **options)


@pytest.mark.slow
def test_max_margin_by_hand_and_rows_that_do_not_count():
  scores = jnp.asarray([[0.5, 0.45, 9.0], [0.2, 0.5, 9.0], [9.0, 9.0, 0.0]])
  # rows 0 and 1: .094 + .45 - .5 of row 0, and of row 1 from the other side
  found = max_margin(scores, jnp.asarray([1.0, 1.0, 0.0]))
  assert found == pytest.approx((0.044 + 0.044) / 2)
  assert max_margin(scores, jnp.asarray([1.0, 0.0, 0.0])) == 0


@pytest.mark.slow
def test_of_a_retrieval_each_modality_alone_gives_an_embedding():
  method = BUILD(_small.model(), tx=TX, task="retrieval")
  batch = _small.batch()
  state = _small.start(method)
  step = jax.jit(method.phases[0].step)
  new, log = step(state, batch, jax.random.key(1), _small.clock())
  assert bool(log["finite"]) and not same(new.params["a"], state.params["a"])
  relabelled, _ = step(
    state, batch._replace(label=batch.label * 0), jax.random.key(1), _small.clock()
  )
  assert same(new.params, relabelled.params)  # no label is read
  predict = jax.jit(method.predict)
  outputs = predict(state, batch.inputs, batch.mask)
  assert outputs.logits is None and outputs.features["a"].shape[1] == SMALL["width"]
  size = jnp.linalg.norm(outputs.features["a"], axis=1)
  np.testing.assert_allclose(size, batch.mask["a"] * 1.0, rtol=1e-5)
  alone = predict(state, batch.inputs, {**batch.mask, "b": jnp.zeros_like(batch.mask["b"])})
  np.testing.assert_allclose(alone.features["a"], outputs.features["a"], rtol=1e-5, atol=1e-6)
