"""check_method: what it lets through, and a method that breaks each promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, train
from mmfuse.core import LAST, Method, Outputs, Phase, State

ROWS = 8


def splits():
  """Eight training rows of two modalities with labels 0 and 1."""
  rng = np.random.default_rng(0)
  total = ROWS + 4
  arrays = {m: rng.normal(size=(total, 2)).astype(np.float32) for m in "ab"}
  arrays |= {"label": np.arange(total) % 2, "split": np.repeat([0, 1, 2], [ROWS, 3, 1])}
  return data.from_arrays(arrays)


def init(key, batch, num_rows):
  del key, batch, num_rows
  return State({"w": jnp.ones((2, 2))}, {}, {}, {"calls": jnp.int32(0)})


def present(inputs, mask):
  """The sum of the present modalities [B, 2]."""
  return sum(jnp.where(mask[m][:, None], inputs[m], 0.0) for m in sorted(mask))


def step(state, batch, key, clock):
  """A step that keeps every promise: the mean over the rows that count of their distance to a class."""
  del key, clock
  batch = train.counted(("a", "b"), batch)
  known = jnp.where(batch.labelled, batch.weight, 0.0)
  x, want = present(batch.inputs, batch.mask), jax.nn.one_hot(batch.label, 2)
  rows = lambda w: jnp.square(x @ w - want).sum(1)
  loss = lambda w: jnp.sum(rows(w) * known) / jnp.maximum(known.sum(), 1)
  value, grad = jax.value_and_grad(loss)(state.params["w"])
  memory = {"calls": state.memory["calls"] + 1}
  return state._replace(params={"w": state.params["w"] - 0.1 * grad}, memory=memory), {
    "loss": value
  }


def predict(state, inputs, mask):
  return Outputs(present(inputs, mask) @ state.params["w"])


def method(step=step, predict=predict, **phase):
  return Method(init, predict, (Phase("train", step, select=LAST, **phase),))


def changed(change):
  """The step whose batch or result is changed by `change(state, batch, result)`."""

  def run(state, batch, key, clock):
    return change(state, batch, lambda b: step(state, b, key, clock))

  return run


def reads_absent(state, batch, run):
  after, log = run(batch)
  return after, {**log, "loss": log["loss"] + batch.inputs["a"].sum()}


def counts_padding(state, batch, run):
  after, log = run(batch)
  return after, {"loss": log["loss"] / batch.weight.shape[0]}


def reads_unknown(state, batch, run):
  after, log = run(batch)
  real = batch.weight > 0
  return after, {"loss": log["loss"] + jnp.sum(jnp.where(real, batch.label, 0))}


def single_is_nan(state, batch, run):
  after, log = run(batch)
  both = jnp.sum(batch.mask["a"] & batch.mask["b"] & (batch.weight > 0))
  return after, {"loss": log["loss"] / both}


def new_memory(state, batch, run):
  after, log = run(batch)
  return train.remember(after, more=jnp.ones(2)), log


def other_dtype(state, batch, run):
  after, log = run(batch)
  return train.remember(after, calls=after.memory["calls"].astype(jnp.float32)), log


BROKEN = {
  "depends on absent inputs or padding: log/0/loss": reads_absent,
  "counts rows of weight 0: log/0/loss": counts_padding,
  "depends on the label of a row that has none: log/0/loss": reads_unknown,
  "with one modality a row, after two steps of phase 'train', log/0/loss is not": single_is_nan,
  "changes the structure of the state: memory/more": new_memory,
  r"makes memory/calls float32\[\], it was int32": other_dtype,
  "after two steps of phase 'train', log/0/loss is not": lambda s, b, run: (
    run(b)[0],
    {"loss": jnp.nan * run(b)[1]["loss"]},
  ),
  "two steps of phase 'train' change nothing": lambda s, b, run: (s, run(b)[1]),
}


def test_a_method_that_keeps_every_promise_passes():
  train.check_method(method(begin=lambda s, *_: s, rows=lambda *_: (np.arange(4), None)), splits())


@pytest.mark.parametrize("words", BROKEN)
def test_a_step_that_breaks_one_is_told(words):
  with pytest.raises(train.MethodError, match=words):
    train.check_method(method(changed(BROKEN[words])), splits())


def test_without_the_unpadded_steps_their_promise_is_not_looked_at():
  train.check_method(method(changed(counts_padding)), splits(), unpadded=False)


def absent_speaks(state, inputs, mask):
  return Outputs(sum(inputs[m] for m in sorted(mask)) @ state.params["w"])


def company_speaks(state, inputs, mask):
  return Outputs(present(inputs, mask) @ state.params["w"] + present(inputs, mask).mean())


def lonely_is_nan(state, inputs, mask):
  ok = (mask["a"] | ~mask["a"].any())[:, None]
  return Outputs(jnp.where(ok | mask["b"][:, None], predict(state, inputs, mask).logits, jnp.nan))


@pytest.mark.parametrize(
  "said, words",
  [
    (absent_speaks, "the prediction from a depends on absent inputs: logits"),
    (company_speaks, "what is said of a row depends on other rows: logits"),
    (lonely_is_nan, "the prediction from a, logits is not finite"),
  ],
)
def test_a_prediction_that_breaks_one_is_told(said, words):
  with pytest.raises(train.MethodError, match=words):
    train.check_method(method(predict=said), splits())


def test_hooks_are_looked_at_too():
  grown = lambda state, *_: train.remember(state, more=jnp.ones(2))
  with pytest.raises(train.MethodError, match="epoch_end of phase 'train' changes the structure"):
    train.check_method(method(epoch_end=grown), splits())
  with pytest.raises(train.MethodError, match=r"chose rows outside 0\.\.7, or none"):
    train.check_method(method(rows=lambda *_: (np.arange(9), None)), splits())
  with pytest.raises(TypeError, match="begin of phase 'train' is called as"):
    train.check_method(method(begin=lambda state: state), splits())


def test_few_rows_are_refused():
  with pytest.raises(ValueError, match="at least 4 rows, got 3"):
    train.check_method(method(), splits(), batch_size=3)


CALLS = []


def forgetful(state, splits, key, clock):
  """Counts on the host, which a continued run cannot know."""
  del splits, key, clock
  CALLS.append(1)
  return train.remember(state, calls=jnp.int32(len(CALLS)))


@pytest.mark.slow
def test_whole_runs_are_compared():
  train.check_method(method(), splits(), full=True)
  with pytest.raises(train.MethodError, match="a continued run differs from a whole one: memory"):
    train.check_method(method(begin=forgetful), splits(), full=True)
