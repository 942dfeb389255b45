"""Every row of the index keeps the contract of a method; padding is absent, an unknown label never read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _rows import encoders_of, options, shape

from mmfuse import balancing, data, encoders, fusion, methods, train
from mmfuse.core import Batch, Clock, Unavailable
from mmfuse.data import Split
from mmfuse.train._dependence import dependence

CLASSES, ROWS, TOTAL = 3, 6, 8
NAMES = "ab"
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# What a rule may read of the rows of a batch, besides losses and gradients.
ROW_ARGUMENTS = (
  "label",
  "weight",
  "mask",
  "logits",
  "unimodal_logits",
  "split_logits",
  "features",
  "scores",
)
# Rules on losses and gradients alone: the step around them is that of `uniform` and `mmpareto`.
RULES = (
  "mimo",
  "stch",
  "uw",
  "imtl_l",
  "famo",
  "dwa",
  "rlw",
  "mgda",
  "pcgrad",
  "cagrad",
  "gradnorm",
  "imtl_g",
  "nash_mtl",
  "aligned_mtl",
  "fairgrad",
  "graddrop",
  "gradvac",
  "moco",
  "excess_mtl",
  "upgrad",
  "dualproj",
  "bogc",
)
HEADS = tuple(n for n in methods.HEADS if n not in ("gated", "film"))  # a few stay
STEPPED = [n for n in methods.METHODS if n not in (*methods.HEADS, *RULES)]
# Whose every loss reads the label, so that a row without one does nothing at all.
LABELS_ALONE = ("joint", "uniform", "ogm_ge", "mmpareto", "bogc_laplace", "mbsd", "mla")


def model(name, norm="none", dropout=0.0):
  each = encoders_of(name, NAMES, encoders.MLP(3, (), norm, dropout))
  found = fusion.LateFusion(each, CLASSES, dropout=dropout)
  return dataclasses.replace(found, fusion=fusion.Mmtm()) if name == "greedy" else found


@functools.cache
def padded(of=(3,)) -> Batch:
  """Eight rows, of which the last two are padding that holds garbage; some lack a modality."""
  rng = np.random.default_rng(0)
  inputs = {m: rng.normal(size=(TOTAL, *of)).astype(np.float32) for m in NAMES}
  inputs["a"][ROWS:] = 1e30
  inputs["b"][ROWS], inputs["b"][ROWS + 1] = np.nan, inputs["b"][0]
  mask = {m: np.arange(TOTAL) != i for i, m in enumerate(NAMES)}
  weight = np.array([1, 1, 0.5, 1, 2, 1, 0, 0], np.float32)
  index = np.arange(TOTAL, dtype=np.int32)
  return Batch(inputs, index % CLASSES, mask, weight, index, {}, np.ones(TOTAL, bool))


def first_rows(batch: Batch) -> Batch:
  return jax.tree.map(lambda x: x[:ROWS], batch)


def stepper(method):
  """batch -> (state, logs) after two steps of every phase, in different epochs: one program a shape."""

  @functools.partial(jax.jit, compiler_options=QUICK)
  def each(state, batch, epoch):
    logs = []
    for i, phase in enumerate(method.phases):
      clock = Clock(2 * epoch + 1, epoch, jnp.int32(1), jnp.int32(2), jnp.int32(8))
      state, log = phase.step(state, batch, jax.random.key(i + 1), clock)
      logs.append(log)
    return state, logs

  start = train.initial(method, jax.random.key(0), first_rows(padded()))

  def run(batch):
    middle, first = each(start, batch, jnp.int32(1))
    return jax.device_get((*each(middle, batch, jnp.int32(2)), first))

  return start, run


def close(a, b, rtol=1e-5):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b)):
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    where = jax.tree_util.keystr(path)
    assert np.isfinite(x).all(), where
    np.testing.assert_allclose(
      x, y, rtol=rtol, atol=1e-6 + rtol * np.abs(y).max(initial=0), err_msg=where
    )


def differ(a, b) -> bool:
  return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@functools.cache
def splits(of=(3,)) -> data.Splits:
  """Eight training rows of two modalities and five to validate by: one shape for all rows."""
  rng = np.random.default_rng(0)
  total = TOTAL + 6
  arrays = {m: rng.normal(size=(total, *of)).astype(np.float32) for m in NAMES}
  arrays["weight"] = np.resize([1, 1, 0.5, 1, 2, 1], total).astype(np.float32)
  arrays |= {"label": np.arange(total) % CLASSES, "split": np.repeat([0, 1, 2], [TOTAL, 5, 1])}
  return data.from_arrays(arrays)


def checked(name, unpadded=False, **how):
  of = shape(name, (3,))
  try:
    method = methods.METHODS[name](model(name), 0.1, **options(name))
    train.check_method(method, splits(of), batch_size=TOTAL, unpadded=unpadded, **how)
  except Unavailable as reason:
    pytest.skip(str(reason))
  state = jax.eval_shape(
    functools.partial(train.initial, method), jax.random.key(0), first_rows(padded(of))
  )
  assert train.has_learning_rate(state.opt)


# What builds a step once for many rows: theirs, without padding too, at every change. Of the others `make
# check` looks at it, as their steps would be compiled once more.
SPINES = ("joint", "unimodal", "uniform", "mmpareto", "ogm_ge", "dropout", "mopoe")


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(n, marks=pytest.mark.slow) if n in (*HEADS, *RULES) else n for n in methods.METHODS
  ],
)
def test_every_row_keeps_the_contract_of_a_method(name):
  """Of heads and rules, whose steps are those of others, their own tests know the most."""
  checked(name, unpadded=name in SPINES)


@pytest.mark.slow
@pytest.mark.parametrize("name", methods.METHODS)
def test_runs_may_be_stopped_spread_and_stacked(name):
  train.release_programs()  # those of a row's whole runs are many, and `fit` leaves them where they are
  checked(name, unpadded=name not in (*RULES, *methods.HEADS), full=True)


@pytest.mark.parametrize("name", LABELS_ALONE)
def test_a_row_without_a_label_is_as_one_of_weight_0_where_labels_are_all(name):
  start, run = stepper(methods.METHODS[name](model(name), 0.1))
  known = np.arange(TOTAL) % 3 != 1
  unknown = run(padded()._replace(labelled=known))
  gone = np.where(known, padded().weight, 0).astype(np.float32)
  close(unknown, run(padded()._replace(weight=gone)))
  assert differ(unknown[0].params, start.params)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_sees_nothing_of_the_rows(name):
  """Read off the jaxpr: what it gives depends on no argument that has rows."""
  rule = getattr(balancing, name)(3)
  params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
  grads = jax.tree.map(lambda p: jnp.stack([p, 2 * p, 3 * p]), params)
  clock = Clock(*(jnp.int32(v) for v in (3, 1, 1, 2, 8)))
  losses = jnp.arange(1.0, 4.0)
  fixed = {
    "value": losses.sum(),
    "present": jnp.ones(3, bool),
    "key": jax.random.key(0),
    "clock": clock,
  }
  state = rule.init(params)

  def given(rows):
    extra = {**fixed, **dict.fromkeys(ROW_ARGUMENTS, rows)}
    out = rule.update(grads, state, params, losses=losses, **extra)
    weigh = getattr(rule, "weigh", None)
    return out, weigh(losses, state, params, **extra) if weigh else ()

  assert not any(jax.tree.leaves(dependence(given, jnp.ones((TOTAL, CLASSES)))))


@pytest.mark.parametrize("name", ["joint", "opm", "mla"])
def test_padding_moves_no_statistics_and_no_draw(name):
  """With batch norm, and dropout within and after the encoders: what couples rows, what draws."""
  _, run = stepper(methods.METHODS[name](model(name, "batch", 0.3), 0.1))
  close(run(padded()), run(first_rows(padded())))


def split(rows: int, of=(3,), **changes) -> Split:
  """The rows of `padded` as a split: those after the sixth have weight 0."""
  batch = jax.tree.map(lambda x: x[:rows], padded(of))
  inputs = {m: np.nan_to_num(x) for m, x in batch.inputs.items()}
  found = Split(inputs, batch.label, batch.mask, batch.index, None, batch.weight, batch.labelled)
  return found.replace(**changes)


HOUR = Clock(0, 0, 0, 1, 8)
HOOKED = [
  n
  for n in STEPPED
  if any(p.begin or p.epoch_end for p in methods.METHODS[n](model(n), 0.1, **options(n)).phases)
]


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_count_no_row_of_weight_0_and_read_no_unknown_label(name):
  method = methods.METHODS[name](model(name), 0.1, **options(name))
  of = shape(name, (3,))
  start = train.initial(method, jax.random.key(0), first_rows(padded(of)))

  def hooked(given):
    """(the state after every hook of every phase, the rows that the phases choose then)."""
    splits, state, rows = {"train": given, "validation": given}, start, []
    for i, phase in enumerate(method.phases):
      for hook in (phase.begin, phase.epoch_end):
        if hook is not None:
          state = hook(state, splits, jax.random.key(i), HOUR)
      if phase.rows is not None:
        rows.append(phase.rows(state, splits, jax.random.key(9), HOUR))
    return jax.device_get(state), rows

  def of_counted(state):
    """Tables with an entry a row, of the rows that count."""
    return jax.tree.map(lambda x: x[:ROWS] if x.shape[:1] == (TOTAL,) else x, state)

  close(*(of_counted(hooked(split(n, of))[0]) for n in (TOTAL, ROWS)))
  known = np.arange(ROWS) % 3 != 1
  labels = [np.where(known, padded().label[:ROWS], v).astype(np.int32) for v in (0, 2)]
  assert not differ(*(hooked(split(ROWS, of, label=l, labelled=known)) for l in labels))
