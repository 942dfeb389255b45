"""MMANet: what its student minimises, what its teacher sees, what is mined between epochs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, encoders, fusion, masks, objectives, train
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS
from mmfuse.methods.missing import _mining
from mmfuse.methods.missing._branch import BRANCH, own_part
from mmfuse.methods.missing._combinations import chosen
from mmfuse.methods.missing._dropout import Drop

from .. import _small

BUILD = METHODS["mmanet"]
NUM = 3
NAMES = _small.NAMES[:NUM]
SUBSETS = _mining.candidates(NAMES)
LATE, EARLY = _small.clock(epoch=2), _small.clock(epoch=0)
KEY = jax.random.key(1)
WEAK = jnp.asarray(chosen(_mining.with_singles(("a", "c")), NAMES))


@functools.cache
def method(**options):
  return BUILD(_small.model(NUM), 0.1, **options)


@functools.cache
def compiled(place, **options):
  return jax.jit(method(**options).phases[place].step)


def start(weak=WEAK, **options):
  """A state whose teacher is not the student, and whose weak subsets are known."""
  state = _small.start(method(**options), NUM)
  teacher = jax.tree.map(lambda x: 1.5 * x + 0.1, state.memory["objective"]["teacher"])
  return train.remember(
    state, objective={**state.memory["objective"], "teacher": teacher, "weak": weak}
  )


def step(batch=None, now=LATE, state=None, place=1, **options):
  state = start(**options) if state is None else state
  given = _small.batch(NUM) if batch is None else batch
  return compiled(place, **options)(state, given, KEY, now)


def apart(a, b):
  return max(float(abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b))))


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@jax.jit
def heard(state, batch):
  """(outputs in training, logits of the branch, batch) after the draw of a step, as `supervised` draws."""
  model, own = _small.model(NUM), own_part(state.params)
  noise = jax.random.split(jax.random.split(KEY, 3)[1], 3)[1]
  branch = {**own, "heads": {**own["heads"], "fused": state.params[BRANCH]["heads"]["fused"]}}
  variables, other = ({"params": p, "batch_stats": {}} for p in (own, branch))
  features, _ = model.encode(variables, batch.inputs, batch.mask, train=True)
  features, batch = Drop(tuple(NAMES))(features, batch, key=noise, clock=None)
  outputs, second = (
    model.heads(v, features, batch.mask, train=True)[0] for v in (variables, other)
  )
  return outputs, second.logits, batch


@jax.jit
def distance(outputs, batch, state, complete):
  """L_MAD towards the teacher, which sees `complete`."""
  own = state.memory["objective"]
  told = train.outputs_of(_small.model(NUM), own["teacher"], complete.inputs, complete.mask)
  rows = lambda said: jnp.concatenate([said.features[m] for m in NAMES], axis=1)
  return objectives.margin_distillation(rows(outputs), rows(told), told.logits)


def test_without_its_losses_it_is_dropout():
  """From the same key: the same start, the same draws, the same step."""
  plain = METHODS["dropout"](_small.model(NUM), 0.1)
  begun = _small.start(plain, NUM)
  state, log = step(mad=0.0, mar=0.0)
  same(own_part(_small.start(method(), NUM).params), begun.params)
  want, _ = jax.jit(plain.phases[0].step)(begun, _small.batch(NUM), KEY, LATE)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), own_part(state.params), want.params
  )
  assert float(log["loss/distillation"]) == 0 == float(log["loss/weak"])


def test_the_losses_by_hand():
  complete = _small.batch(NUM)
  own, branch, batch = heard(start(), complete)
  mad = float(distance(own, batch, start(), complete))
  rows = np.stack([batch.mask[m] for m in NAMES], axis=1)
  assert (rows != np.stack([complete.mask[m] for m in NAMES], axis=1)).any()  # some are dropped
  losses = np.asarray(objectives.row_losses(branch, batch.label))
  hard = np.asarray([tuple(map(int, r)) in ((1, 0, 1), (1, 0, 0), (0, 0, 1)) for r in rows])
  assert 0 < hard.sum() < _small.BATCH
  fused = float(objectives.row_losses(own.logits, batch.label).mean())
  for options, mar in (
    ({}, (losses * hard).mean()),
    ({"variant": "released"}, hard.sum() * losses.mean()),
  ):
    _, log = step(**options)
    found = [float(log[f"loss/{name}"]) for name in ("fused", "distillation", "weak")]
    np.testing.assert_allclose(found, [fused, 30 * mad, 0.5 * mar], rtol=1e-5)
  column = step(weight_axis="column")[1]["loss/distillation"]
  assert abs(float(column) - 30 * mad) > 1e-3


def test_before_the_end_of_the_warm_up_there_is_the_task_alone():
  _, log = step(now=EARLY)
  assert float(log["loss/distillation"]) == 0 == float(log["loss/weak"])
  plain, _ = step(now=EARLY, mad=0.0, mar=0.0)
  same(step(now=EARLY)[0].params, plain.params)
  _, late = step(now=_small.clock(epoch=5, epochs=100))  # the authors' warm-up: 0 to 4
  assert float(late["loss/weak"]) > 0
  assert float(step(now=_small.clock(epoch=4, epochs=100))[1]["loss/weak"]) == 0


def test_the_teacher_sees_what_a_step_drops_and_stays():
  """`mask`, not `mask & keep`: in its own phase, and where the student learns from it."""
  batch = _small.batch(NUM)
  keep = {m: jnp.arange(_small.BATCH) % 2 == (m == "a") for m in NAMES}
  dropped = batch._replace(keep=keep)
  same(*(step(b, place=0)[0].params for b in (batch, dropped)))
  less = {m: batch.mask[m] & keep[m] for m in NAMES}
  own, _, kept = heard(start(), batch._replace(mask=less))
  state, log = step(dropped)
  want = 30 * float(distance(own, kept, start(), batch))
  assert float(log["loss/distillation"]) == pytest.approx(want, rel=1e-4)
  assert abs(want - 30 * float(distance(own, kept, start(), batch._replace(mask=less)))) > 1e-3
  same(state.memory, start().memory)


def test_what_is_absent_or_padding_changes_nothing():
  """With weak rows and a teacher: NaN there, whichever side reads it."""
  clean = _small.batch(NUM)
  padding = jnp.arange(_small.BATCH) >= _small.BATCH - 3
  clean = clean._replace(weight=jnp.where(padding, 0.0, clean.weight))
  absent = {m: ~clean.mask[m] | padding for m in NAMES}
  dirty = clean._replace(
    inputs={m: jnp.where(absent[m][:, None], jnp.nan, clean.inputs[m]) for m in NAMES}
  )
  same(step(clean), step(dirty))
  fewer = jax.tree.map(lambda x: x[:-3], clean)
  (state, log), (want, said) = step(dirty), step(fewer)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), log, said)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state.params, want.params
  )


def test_the_branch_is_trained_by_weak_rows_alone_and_moves_the_encoders():
  before = start().params
  moved = step()[0].params
  assert apart(moved[BRANCH], before[BRANCH]) > 0
  nothing = step(state=start(weak=jnp.zeros_like(WEAK)))[0].params
  assert apart(nothing[BRANCH], before[BRANCH]) == 0
  without = step(mar=0.0)[0].params
  assert apart(moved["a"], without["a"]) > 0 and apart(nothing["a"], without["a"]) == 0


def test_a_certain_teacher_is_nan_as_released_and_finite_by_default():
  def certain(**options):
    state = start(**options)
    own = state.memory["objective"]
    teacher = jax.tree.map(lambda x: 1e4 * x, own["teacher"])
    return step(state=train.remember(state, objective={**own, "teacher": teacher}), **options)

  state, log = certain()
  assert _small.finite(state.params) and bool(log["finite"])
  _, log = certain(variant="released")
  assert np.isnan(log["loss/distillation"]) and not bool(log["finite"])


def test_it_begins_again_with_the_teacher_that_was_trained():
  taught, _ = step(place=0, state=_small.start(method(), NUM))
  begun = method().phases[1].begin(taught, _small.hooks(NUM), KEY, _small.hour())
  fresh = _small.start(method(), NUM)
  same(begun.params, fresh.params)
  teacher = begun.memory["objective"]["teacher"]["params"]
  same(teacher, own_part(taught.params))
  assert apart(teacher, own_part(fresh.params)) > 0
  assert jax.tree.structure(begun) == jax.tree.structure(fresh)


def mined(histogram="softmax", epoch=1, epochs=8, state=None):
  own = method(histogram=histogram)
  hook = own.phases[1].epoch_end
  hour = _small.hour(epoch, epochs)
  return hook(start() if state is None else state, _small.hooks(NUM), KEY, hour)


@pytest.mark.parametrize("histogram", ["softmax", "plain"])
def test_mining_by_hand(histogram):
  """Labels predicted on the validation rows that have some of a subset."""
  own, split = method(histogram=histogram), _small.hooks(NUM)["validation"]
  batch = train.to_batch(split)
  counts = []
  for subset in (*SUBSETS, tuple(NAMES)):
    mask = {m: batch.mask[m] & (m in subset) for m in NAMES}
    some = np.any([mask[m] for m in NAMES], axis=0)
    said = np.argmax(own.predict(start(), batch.inputs, mask).logits, -1)
    counts.append(np.bincount(said[some], minlength=_small.CLASSES))
  distance = _mining.histogram_distance(np.stack(counts[:-1]), counts[-1], histogram)
  assert distance.max() > 0
  memory = mined(histogram).memory["objective"]
  np.testing.assert_allclose(memory["distance"], distance, rtol=1e-5, atol=1e-7)
  found = np.flatnonzero(memory["weak"])
  every = masks.combinations(NAMES)
  weak = SUBSETS[int(np.argmax(distance))]
  assert {every[i] for i in found} == {weak, *((m,) for m in weak)}


def test_distances_add_up_and_later_epochs_mine_no_more():
  once = mined(epoch=2, epochs=100)
  twice = mined(epoch=3, epochs=100, state=once)
  distance = lambda s: np.asarray(s.memory["objective"]["distance"])
  np.testing.assert_allclose(distance(twice), 2 * distance(once), rtol=1e-6)
  for epoch in (1, 5, 6):
    same(mined(epoch=epoch, epochs=100).memory, start().memory)


@pytest.mark.slow
def test_several_labels_a_row():
  rng = np.random.default_rng(0)
  arrays = {m: rng.normal(size=(30, 3)).astype(np.float32) for m in "ab"}
  arrays |= {"label": rng.integers(0, 2, (30, 4)), "split": np.repeat([0, 1, 2], [16, 8, 6])}
  splits = data.from_arrays(arrays)
  model = fusion.LateFusion({m: encoders.MLP(3, (), "none") for m in "ab"}, 4)
  built = BUILD(model, 0.1, task="multilabel")
  assert built.phases[0].select == "macro_f1"
  result = train.fit(built, splits, epochs=6, batch_size=12, diagnose=False)
  last = result.logs[0].history[-1]
  assert last["loss/distillation"] > 0 and np.isfinite(last["loss/weak"])
  assert np.asarray(result.states.memory["objective"]["weak"]).sum() == 1  # of two, one is weak


@pytest.mark.slow
def test_the_student_comes_to_resemble_its_teacher():
  result = train.fit(
    BUILD(_small.model(NUM), 0.1), _small.splits(NUM), epochs=40, batch_size=16, diagnose=False
  )
  taught = [e for e in result.logs[0].history if e["phase"] == "train"]
  assert len(taught) == 20
  assert taught[0]["loss/distillation"] == 0  # the warm-up
  distilled = [float(e["loss/distillation"]) for e in taught[1:]]
  assert np.mean(distilled[-3:]) < 0.8 * np.mean(distilled[:3])
  own = result.states.memory["objective"]
  assert np.asarray(own["weak"]).any() and np.asarray(own["distance"]).max() > 0


def test_what_is_validated_of_the_teacher_is_complete_rows():
  first, second = method().phases
  assert (first.name, second.name) == ("teacher", "train")
  assert first.select == "accuracy" and second.select is None
  assert first.share == second.share == 0.5
  assert BUILD(_small.model(NUM), 0.1).predict == method().predict


def test_where_it_is_undefined():
  with pytest.raises(Unavailable, match="subsets of two to 10 modalities; number of them: 1"):
    BUILD(_small.model(1))
  with pytest.raises(Unavailable, match="mmanet needs a validation split"):
    method().phases[0].begin(start(), {"train": 1, "validation": None}, KEY, _small.hour())
  real = _small.batch(NUM)._replace(label=jnp.ones(_small.BATCH))
  with pytest.raises(ValueError, match="entropy of classes or labels, got float labels"):
    train.initial(method(), jax.random.key(0), real)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"mad": -1.0}, "mad must not be negative, got -1.0"),
    ({"mar": float("nan")}, "mar must not be negative, got nan"),
    ({"warm_up": 1.0}, r"warm_up must lie in \(0, 1\), got 1.0"),
    ({"share": 0.0}, r"share must lie in \(0, 1\), got 0.0"),
    ({"weight_axis": "x"}, "unknown weight_axis 'x'"),
    ({"histogram": "x"}, "unknown histogram 'x'"),
    ({"variant": "x"}, "unknown variant 'x'"),
  ],
)
def test_bad_settings_are_refused_at_the_door(options, message):
  with pytest.raises(ValueError, match=message):
    BUILD(_small.model(NUM), **options)
