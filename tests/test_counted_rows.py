"""Every row of the index: padding is absent, and an unknown label is never read.

Steps run op by op: the programs of single operations are shared by all rows of the index, where a
compiled step is its own.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion, methods
from mmfuse.core import Batch, Clock
from mmfuse.data import Split

CLASSES, ROWS, TOTAL = 3, 6, 8
NAMES = "ab"
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# A step that is a branch (`lax.cond`) is compiled anyway.
COMPILED = ("gblending",)


def model(name, norm="none", dropout=0.0):
  encoder = encoders.MLP(3, (), norm, dropout)
  found = fusion.LateFusion(dict.fromkeys(NAMES, encoder), CLASSES, dropout=dropout)
  return dataclasses.replace(found, fusion=fusion.Mmtm()) if name == "greedy" else found


@functools.cache
def padded() -> Batch:
  """Eight rows, of which the last two are padding that holds garbage; some lack a modality."""
  rng = np.random.default_rng(0)
  inputs = {m: rng.normal(size=(TOTAL, 3)).astype(np.float32) for m in NAMES}
  inputs["a"][ROWS:] = 1e30
  inputs["b"][ROWS], inputs["b"][ROWS + 1] = np.nan, inputs["b"][0]
  mask = {m: np.arange(TOTAL) != i for i, m in enumerate(NAMES)}
  weight = np.array([1, 1, 0.5, 1, 2, 1, 0, 0], np.float32)
  index = np.arange(TOTAL, dtype=np.int32)
  return Batch(inputs, index % CLASSES, mask, weight, index, {}, np.ones(TOTAL, bool))


def first_rows(batch: Batch) -> Batch:
  return jax.tree.map(lambda x: x[:ROWS], batch)


@functools.cache
def built(name):
  return methods.METHODS[name](model(name), 0.1)


@functools.cache
def start(name):
  return built(name).init(jax.random.key(0), first_rows(padded()))


def steps(name, batch, epochs=(1, 2), method=None):
  """(state, logs) after a step of every phase in each epoch."""
  state, logs = start(name) if method is None else method.init(jax.random.key(0), batch), []
  for i, phase in enumerate((method or built(name)).phases):
    step = jax.jit(phase.step, compiler_options=QUICK) if name in COMPILED else phase.step
    for epoch in epochs:
      clock = Clock(*(jnp.int32(v) for v in (2 * epoch + 1, epoch, 1, 2, 8)))
      state, log = step(state, batch, jax.random.key(i + 1), clock)
      logs.append(log)
  return jax.device_get((state, logs))


def close(a, b, rtol=1e-5):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b)):
    x, y = (np.asarray(v, np.float64) for v in (x, y))
    where = jax.tree_util.keystr(path)
    assert np.isfinite(x).all(), where
    np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6 + rtol * np.abs(y).max(initial=0),
                               err_msg=where)  # fmt: skip


def differ(a, b) -> bool:
  return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_padded_batch_gives_the_update_of_the_batch_without_padding(name):
  plain = steps(name, first_rows(padded()))
  close(steps(name, padded()), plain)
  assert differ(plain[0].params, start(name).params)


@pytest.mark.parametrize("name", [n for n in methods.METHODS if n not in methods.HEADS])
def test_what_stands_in_place_of_an_unknown_label_is_never_read(name):
  known = np.arange(TOTAL) % 3 != 1
  batch = padded()._replace(labelled=known)
  blank = batch._replace(label=np.where(known, batch.label, 0).astype(np.int32))
  other = batch._replace(label=np.where(known, batch.label, 2).astype(np.int32))
  one, two = (steps(name, b, epochs=(1,))[0] for b in (blank, other))
  assert not differ(one, two)
  assert not any(np.isnan(x).any() for x in jax.tree.leaves(one.params))


@pytest.mark.parametrize("name", ["joint", "uniform", "mmpareto", "ogm_ge", "mbsd"])
def test_a_row_without_a_label_is_to_a_loss_of_labels_as_one_of_weight_0(name):
  known = np.arange(ROWS) % 3 != 1
  batch = first_rows(padded())
  unknown = batch._replace(labelled=known)
  gone = batch._replace(weight=np.where(known, batch.weight, 0).astype(np.float32))
  close(steps(name, unknown), steps(name, gone))


@pytest.mark.parametrize("name", ["joint", "uniform", "modo", "opm", "mla"])
def test_padding_moves_no_statistics_and_no_draw(name):
  """With batch norm, and dropout within and after the encoders: what couples rows, what draws."""
  method = methods.METHODS[name](model(name, "batch", 0.3), 0.1)
  batch = padded()._replace(mask={m: np.ones(TOTAL, bool) for m in NAMES})
  plain = steps(name, first_rows(batch), method=method)
  close(steps(name, batch, method=method), plain)


def split(rows: int, **changes) -> Split:
  """The rows of `padded` as a split: those after the sixth have weight 0."""
  batch = jax.tree.map(lambda x: x[:rows], padded())
  inputs = {m: np.nan_to_num(x) for m, x in batch.inputs.items()}
  found = Split(inputs, batch.label, batch.mask, batch.index, None, batch.weight, batch.labelled)
  return found._replace(**changes)


def hooked(name, given):
  """The state after every hook of every phase, and the rows that the phases choose."""
  splits, state, rows = {"train": given, "validation": given}, start(name), []
  for i, phase in enumerate(built(name).phases):
    for hook in (phase.begin, phase.epoch_end):
      if hook is not None:
        state = hook(state, splits, jax.random.key(i))
    if phase.rows is not None:
      rows.append(phase.rows(state, jax.random.key(9)))
  return jax.device_get(state), rows


HOOKED = [n for n in methods.METHODS
          if any(p.begin or p.epoch_end for p in methods.METHODS[n](model(n), 0.1).phases)]  # fmt: skip


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_count_no_row_of_weight_0(name):
  plain, padded_ = (hooked(name, split(n))[0] for n in (ROWS, TOTAL))
  for memory in (plain.memory, padded_.memory):
    memory.get("valuation", {}).pop("rows", None)  # how many there are, counted or not
  close(padded_, plain)


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_read_no_unknown_label(name):
  known = np.arange(ROWS) % 3 != 1
  labels = [np.where(known, padded().label[:ROWS], v).astype(np.int32) for v in (0, 2)]
  one, two = (hooked(name, split(ROWS, label=l, labelled=known)) for l in labels)
  assert not differ(one[0], two[0]) and not differ(one[1], two[1])
