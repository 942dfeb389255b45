"""The compiled programs of a run. The step is a static argument: a second `fit` compiles nothing."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmfuse.core import Batch, Clock, State
from mmfuse.train._dependence import contains_primitive


class Fed(NamedTuple):
  """What a program reads: one step's, or with an axis N before it an epoch's."""

  arrays: Batch  # all training rows
  rows: Any  # int32 [B], or [S, B] where runs are stacked; -1 = padding
  keep: Any  # {m: as rows}: `Batch.keep`, or None
  key: jax.Array  # [] or [S], of the phase's steps; folded with the step
  clock: Clock  # of the first step

  def at(self, i: int) -> "Fed":
    """What step `i` of the epoch reads."""
    return self._replace(
      rows=self.rows[i],
      keep=jax.tree.map(lambda x: x[i], self.keep),
      clock=self.clock._replace(step=self.clock.step + i, batch=jnp.int32(i)),
    )


def _take(arrays: Batch, rows, keep) -> Batch:
  """The rows of a batch and what a step keeps of them; -1 is padding: weight 0, nothing present."""
  real = rows >= 0
  batch = jax.tree.map(lambda x: x[jnp.maximum(rows, 0)], arrays)
  return batch._replace(
    weight=jnp.where(real, batch.weight, 0.0),
    mask={m: v & real for m, v in batch.mask.items()},
    keep=keep,
  )


def _step(step, mesh: Mesh | None, stacked: bool, state, arrays, rows, keep, key, clock):
  """One optimisation step on given rows; `stacked`: rows [S, B], keys [S], states [S, ...]."""

  def one(state, rows, keep, key):
    batch = _take(arrays, rows, keep)
    if mesh is not None:
      batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))
    state, metrics = step(state, batch, jax.random.fold_in(key, clock.step), clock)
    return state, metrics if "finite" in metrics else {**metrics, "finite": _finite(metrics)}

  return (jax.vmap(one) if stacked else one)(state, rows, keep, key)


def _finite(metrics: dict) -> jax.Array:
  """What the guard watches where a step does not say it itself."""
  finite = [jnp.isfinite(v).all() for v in jax.tree.leaves(metrics)]
  return jnp.stack([jnp.array(True), *finite]).all()


@functools.partial(jax.jit, static_argnames=("step", "mesh", "stacked"), donate_argnames=("state",))
def _step_jit(step, mesh, stacked, state, arrays, rows, keep, key, clock):
  return _step(step, mesh, stacked, state, arrays, rows, keep, key, clock)


@functools.partial(jax.jit, static_argnames=("step", "mesh", "stacked"), donate_argnames=("state",))
def _epoch_jit(step, mesh, stacked, state, arrays, rows, keep, key, clock):
  """A whole epoch in one call: rows [N, B] or [N, S, B] -> metrics [N, ...]."""

  def body(carry, now):
    state, done = carry
    time_ = clock._replace(step=clock.step + done, batch=done)
    index, kept = now
    state, metrics = _step(step, mesh, stacked, state, arrays, index, kept, key, time_)
    return (state, done + 1), metrics

  (state, _), metrics = jax.lax.scan(body, (state, jnp.zeros((), jnp.int32)), (rows, keep))
  return state, metrics


@functools.partial(jax.jit, static_argnames=("diagnose", "stacked"))
def _diagnose_jit(diagnose, stacked, state, arrays, rows, keep, key, clock):
  one = lambda s, r, k, q: diagnose(s, _take(arrays, r, k), q, clock)
  return (jax.vmap(one) if stacked else one)(state, rows, keep, key)


@jax.jit
def pick(better, new, old):
  """Where a run got better, its new parameters; better is [] or [S]."""

  def one(n, o):
    return jnp.where(better.reshape(better.shape + (1,) * (n.ndim - better.ndim)), n, o)

  return jax.tree.map(one, new, old)


def run_epoch(loop: str, fixed: tuple, state: State, fed: Fed) -> tuple[State, dict[str, Any]]:
  """(state, metrics [N, ...]) after an epoch of `fixed` = (step, mesh, stacked); donates `state`.

  `loop`: "scan" is one call, "python" one a step.
  """
  if loop == "scan":
    return _epoch_jit(*fixed, state, *fed)
  collected = []
  for i in range(fed.rows.shape[0]):
    state, metrics = _step_jit(*fixed, state, *fed.at(i))
    collected.append(metrics)
  return state, jax.tree.map(lambda *x: jnp.stack(x), *collected)


def run_diagnosis(diagnose, stacked: bool, state: State, fed: Fed) -> dict[str, Any]:
  """{name: value [] or [S]} of `Method.functions["diagnose"]` on one step's rows."""
  return _diagnose_jit(diagnose, stacked, state, *fed)


def choose_loop(loop: str, fixed: tuple, state: State, fed: Fed) -> str:
  """What "auto" means: "scan", unless XLA:CPU would run convolutions in it, several times slower."""
  if loop != "auto":
    return loop
  if jax.default_backend() == "cpu" and _has_conv(fixed, jax.tree.map(jax.typeof, (state, *fed))):
    return "python"
  return "scan"


def _has_conv(fixed: tuple, abstract: tuple) -> bool:
  shapes, treedef = jax.tree.flatten(abstract)
  return _conv_cache(fixed, tuple(shapes), treedef)


@functools.lru_cache(maxsize=256)
def _conv_cache(fixed, shapes, treedef):
  traced = _epoch_jit.trace(*fixed, *jax.tree.unflatten(treedef, shapes))
  return contains_primitive(traced.jaxpr, "conv_general_dilated")
