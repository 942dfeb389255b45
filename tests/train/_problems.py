"""Small problems of the training tests: models, batches, data, and methods with known scores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import balancing, data, train, tree
from mmfuse.core import Batch, Clock, Method, Outputs, Phase, State
from mmfuse.encoders import MLP
from mmfuse.fusion import Concat, LateFusion

NAMES = "abcd"
WIDTHS = {"a": 3, "b": 2, "c": 4, "d": 3}
CLASSES = 3


def clock(step=0, epoch=0, batch=0, batches=1, epochs=1):
  return Clock(*(jnp.int32(v) for v in (step, epoch, batch, batches, epochs)))


def late_fusion(num=2, norm="batch", dropout=0.3, fusion=None, classes=CLASSES, inside=0.0):
  """Dropout before the heads, and at rate `inside` within the encoders."""
  encoders = {m: MLP(4, (5,), norm, inside) for m in NAMES[:num]}
  return LateFusion(encoders, classes, fusion or Concat(), dropout)


def batch(num=2, rows=8, seed=0, absent=(), label=None, nan=True):
  """A batch in which some rows lack a modality, with NaN there; `absent`: lacking in every row."""
  rng = np.random.default_rng(seed)
  inputs, mask = {}, {}
  for i, m in enumerate(NAMES[:num]):
    mask[m] = np.arange(rows) % (num + 1) != i
    mask[m] &= m not in absent
    x = rng.normal(size=(rows, WIDTHS[m])).astype(np.float32)
    inputs[m] = np.where(mask[m][:, None], x, np.nan if nan else 0.0).astype(np.float32)
  weight = np.ones(rows, np.float32)
  weight[-1] = 0.5
  label = rng.integers(0, CLASSES, rows).astype(np.int32) if label is None else label
  return jax.tree.map(
    jnp.asarray, Batch(inputs, label, mask, weight, np.arange(rows, dtype=np.int32))
  )


# Optimising machine code is most of a small test's time.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def compiled(step):
  """`jit` without the optimisation of machine code."""
  return jax.jit(step, compiler_options=QUICK)


def one_step(method, given, state=None, key=1, now=None):
  """(state before, state after, log) of one compiled step."""
  before = train.initial(method, jax.random.key(0), given) if state is None else state
  after, log = compiled(method.phases[0].step)(
    before, given, jax.random.key(key), clock() if now is None else now
  )
  return before, after, log


def plain():
  """Its step is minus the gradient."""
  return train.sgd(1.0, momentum=0.0)


def gradient(method, given, state=None, key=1):
  before, after, _ = one_step(method, given, state, key)
  return jax.tree.map(lambda a, b: a - b, before.params, after.params)


def summing(record=None):
  """The uniform sum as an aggregator that is no weighting, and trusts `owners.rows`."""

  def update(updates, state, params=None, *, owners, losses, present, **extra):
    if record is not None:
      record.update(owners=owners, names=sorted(extra))
    return tree.combine(jnp.ones(losses.shape), updates, owners), {
      "present": present,
      "losses": losses,
    }

  def init(params):
    num = 1 + sum(m in params for m in NAMES)
    return {"present": jnp.ones(num, bool), "losses": jnp.zeros(num)}

  return balancing.Aggregator(init, update)


def close(a, b, tolerance):
  """Whole-tree agreement: every leaf to `tolerance`."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(
    jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True
  ):
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))


def same(a, b):
  """Bitwise equality."""
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(
    jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True
  ):
    np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def tiny(rows=24, validation=10, never=(), task="classification"):
  """Splits of two modalities in which the classes can be learnt; `never`: present in no row."""
  rng = np.random.default_rng(3)
  total = rows + validation + 4
  label = np.arange(total) % CLASSES
  a = np.eye(3)[label] * 2 + rng.normal(size=(total, 3))
  b = np.eye(3)[label][:, :2] + rng.normal(size=(total, 2))
  arrays = {
    "a": a.astype(np.float32),
    "b": b.astype(np.float32),
    "label": label,
    "split": np.repeat([0, 1, 2], [rows, validation, 4]),
    "mask_b": (np.arange(total) % 5 != 0) & ("b" not in never),
  }
  if task == "regression":
    arrays["label"] = label.astype(np.float32)
  return data.from_arrays(arrays)


def known_step(state, batch, key, clock):
  """Counts, and hashes the rows it sees in their order."""
  del key
  place = jnp.arange(1, batch.index.shape[0] + 1)
  memory = {**state.memory, "seen": state.memory["seen"] * 31 + jnp.sum(place * batch.index)}
  loss = jnp.where(clock.step == memory["broken"], jnp.nan, 1.0)
  return State({"w": state.params["w"] + 1}, state.stats, state.opt, memory), {"loss": loss}


def known_predict(state, inputs, mask):
  """Right where the rank of a row lies below the score of the epoch."""
  del mask
  epoch = jnp.maximum(state.params["w"].astype(jnp.int32) // 2 - 1, 0)
  right = inputs["rank"] < state.memory["scores"][epoch]
  return Outputs(jnp.where(right, inputs["truth"], 1 - inputs["truth"]))


class Known:
  """A method whose validation accuracy after epoch e is `scores[e]`, at `per_epoch` steps an epoch.

  Two steps make an epoch. `params["w"]` counts steps; `predict` is right on the share of rows that
  `scores` asks for. `broken`: the step (from 0) that reports a non-finite loss. Both travel in the
  state, so that all such methods share their programs.
  """

  ROWS = 10

  def __init__(self, scores, broken=-1, phases=(Phase("train", known_step),)):
    self.scores = jnp.zeros(8).at[: len(scores)].set(jnp.asarray(scores, jnp.float32))
    self.broken, self.phases = jnp.int32(broken), phases

  def method(self):
    return Method(self.init, known_predict, self.phases)

  def init(self, key, batch, num_rows):
    del key, batch
    return State(
      {"w": jnp.zeros(())},
      {},
      {p.name: {} for p in self.phases},
      {
        "seen": jnp.int32(0),
        "teacher": jnp.zeros(()),
        "scores": self.scores,
        "broken": self.broken,
      },
    )

  def splits(self, rows=8):
    """Training and validation rows that carry their class and their rank."""
    total = rows + self.ROWS
    label = np.arange(total) % 2
    split = data.from_arrays(
      {
        "truth": np.eye(2, dtype=np.float32)[label],
        "rank": np.zeros((total, 1), np.float32),
        "label": label,
        "split": np.repeat(["train", "validation", "test"], [rows, self.ROWS - 1, 1]),
      }
    )
    # As they are, not standardised.
    count = self.ROWS - 1
    own = np.arange(count) % 2
    inputs = {
      "truth": np.eye(2, dtype=np.float32)[own],
      "rank": ((np.arange(count) + 0.5) / count).astype(np.float32)[:, None],
    }
    return split.with_parts(
      validation=split.validation.replace(inputs=inputs, label=own.astype(np.int32))
    )


def history(log):
  """A run's log without wall time."""
  plain = log.to_json()
  for entry in plain["history"]:
    entry.pop("seconds_per_step")
  return plain


def spy():
  """An identity link of `tx` that keeps the scores it was given."""

  def init(params):
    return {m: jnp.zeros(()) for m in NAMES if m in params}

  def update(updates, state, params=None, *, scores, **extra):
    del state, params, extra
    return updates, dict(scores)

  return optax.GradientTransformationExtraArgs(init, update)
