"""What makes a method itself, in a form that another process finds again: for checkpoints.

Shapes say little: `joint` and `uniform` have the same parameters. A step's jaxpr holds its losses,
rules, optimiser, activations and every number that is built in, whatever they are called.
"""

import dataclasses
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.core import LAST, Batch, Clock, Method, State

METHOD, INITIAL = "method or its constants", "initial values"
_ADDRESS = re.compile(r" at 0x[0-9a-f]+|0x[0-9a-f]{6,}")
_PLAIN = (bool, int, float, complex, str, bytes, types.NoneType)
_DEPTH = 8  # of what hooks close over
_LEADING = 65536  # values of a leaf that a mark looks at


def method_digest(method: Method, state: State, batch: Batch) -> str:
  """Sixteen hex digits of everything that a method does: steps, predictions and hooks.

  Args:
    method: its steps and predictions are traced, once per method and shapes.
    state: of one run, as `method.init` makes it; only shapes are read.
    batch: an example, likewise.
  """
  shapes, treedef = jax.tree.flatten(
    jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype), (state, batch))
  )
  parts = []
  for phase in method.phases:
    parts += [
      phase.name,
      phase.share,
      phase.select,
      _step_digest(phase.step, tuple(shapes), treedef),
    ]
    if phase.select != LAST:
      parts.append(_predict_digest(phase.predict or method.predict, tuple(shapes), treedef))
    parts += [_hook(f) for f in (phase.begin, phase.epoch_end, phase.rows)]
  return _hash(repr(parts))


def marks(state: State) -> list[list[float]]:
  """Two numbers per leaf: its mean size, and a projection that sees order and sign.

  Equal to float32 rounding for the same `init` on another machine.
  """
  return [_mark(leaf) for leaf in jax.tree.leaves(state)]


def differing(there: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
  """The names under which two identities differ; what follows from others is not named."""
  plain = sorted(k for k in mine if k not in (METHOD, INITIAL) and there.get(k) != mine[k])
  if plain:
    return plain
  if there.get(METHOD) != mine[METHOD]:
    return [METHOD]
  a, b = (np.asarray(x.get(INITIAL, []), float) for x in (there, mine))
  same = (
    a.shape == b.shape and bool((abs(a - b) <= 1e-6 * b[:, :1] + 1e-12).all()) if b.size else True
  )
  return [] if same else [INITIAL]


def _mark(leaf: Any) -> list[float]:
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  values = np.asarray(leaf).ravel()[:_LEADING].astype(np.float64)
  values = np.nan_to_num(values, nan=-1.0, posinf=2.0, neginf=-2.0)
  if not values.size:
    return [0.0, 0.0]
  wave = np.cos(np.arange(values.size))
  return [float(abs(values).mean()), float((values * wave).mean())]


# Programs.


@functools.lru_cache(maxsize=64)
def _step_digest(step, shapes, treedef) -> str:
  state, batch = jax.tree.unflatten(treedef, shapes)
  now = Clock(*(jnp.int32(0) for _ in Clock._fields))
  return jaxpr_digest(jax.make_jaxpr(step)(state, batch, jax.random.key(0), now))


@functools.lru_cache(maxsize=64)
def _predict_digest(predict, shapes, treedef) -> str:
  state, batch = jax.tree.unflatten(treedef, shapes)
  return jaxpr_digest(jax.make_jaxpr(predict)(state, batch.inputs, batch.mask))


def jaxpr_digest(closed: Any) -> str:
  """Sixteen hex digits of a jaxpr's equations, parameters and constants; no name of a variable."""
  return _Reader().closed(closed)


def _hash(text: str | bytes) -> str:
  return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def _array(x: Any) -> str:
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    x = jax.random.key_data(x)
  x = np.asarray(x)
  return f"{x.dtype}{x.shape}{_hash(x.tobytes())}"


class _Reader:
  """Reads jaxprs; one that occurs twice is read once."""

  def __init__(self):
    self.seen: dict[int, str] = {}

  def closed(self, closed: Any) -> str:
    consts = [_array(c) if hasattr(c, "dtype") else repr(c) for c in closed.consts]
    return _hash(f"{self.jaxpr(closed.jaxpr)} {consts}")

  def jaxpr(self, jaxpr: Any) -> str:
    if id(jaxpr) not in self.seen:
      self.seen[id(jaxpr)] = _hash("\n".join(self._lines(jaxpr)))
    return self.seen[id(jaxpr)]

  def _lines(self, jaxpr: Any):
    number: dict[Any, int] = {}

    def name(var):
      if hasattr(var, "val"):  # a literal
        return f"{self.value(var.val)}:{var.aval}"
      return f"{number.setdefault(var, len(number))}:{var.aval}"

    names = lambda variables: " ".join(map(name, variables))
    yield f"{names(jaxpr.constvars)}; {names(jaxpr.invars)}"
    for eqn in jaxpr.eqns:
      params = [f"{k}={self.value(v)}" for k, v in sorted(eqn.params.items())]
      yield f"{names(eqn.outvars)} = {eqn.primitive.name}{params} {names(eqn.invars)}"
    yield names(jaxpr.outvars)

  def value(self, value: Any) -> str:
    """A parameter of an equation, without what differs between processes."""
    if isinstance(value, _PLAIN):
      return repr(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
      return _array(value)
    if hasattr(value, "jaxpr") and hasattr(value, "consts"):
      return self.closed(value)
    if hasattr(value, "eqns"):
      return self.jaxpr(value)
    if isinstance(value, Mapping):
      return repr(sorted((str(k), self.value(v)) for k, v in value.items()))
    if isinstance(value, tuple | list):
      return repr([type(value).__name__, *map(self.value, value)])
    if isinstance(value, set | frozenset):
      return repr(sorted(map(self.value, value)))
    if callable(value):  # a rule of differentiation; what it does stands in equations of its own
      return getattr(value, "__qualname__", type(value).__name__)
    return _ADDRESS.sub("", repr(value))


# Hooks run on the host and are not traced.


def _hook(value: Any, depth: int = _DEPTH) -> Any:
  """A hook by its names, the numbers in its body and the plain values that it closes over."""
  if isinstance(value, _PLAIN):
    return repr(value)
  if isinstance(value, np.ndarray):
    return _array(value)
  if depth == 0:
    return type(value).__qualname__
  inner = functools.partial(_hook, depth=depth - 1)
  if isinstance(value, tuple):
    return [inner(v) for v in value]
  if isinstance(value, functools.partial):
    return [inner(value.func), inner(value.args), inner(tuple(sorted(value.keywords.items())))]
  if inspect.ismethod(value):
    return [inner(value.__func__), inner(value.__self__)]
  value = inspect.unwrap(value) if callable(value) and not isinstance(value, type) else value
  if inspect.isfunction(value):
    defaults = (value.__defaults__, tuple(sorted((value.__kwdefaults__ or {}).items())))
    return [
      value.__qualname__,
      _floats(value.__code__),
      inner(defaults),
      [inner(_content(c)) for c in value.__closure__ or ()],
    ]
  # A dataclass without equality, such as the step of a method that a hook builds on, is no plain data:
  # steps are read as programs, and the optimiser in it holds the rate, which is the run's.
  plain = dataclasses.is_dataclass(value) and not isinstance(value, type)
  if plain and type(value).__eq__ is not object.__eq__:
    fields = [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
    return [
      type(value).__qualname__,
      [(k, inner(_items(v))) for k, v in fields if k not in ("parent", "name")],
    ]
  return getattr(value, "__qualname__", type(value).__qualname__)


def _content(cell: Any) -> Any:
  try:
    return cell.cell_contents
  except ValueError:  # not filled yet
    return None


def _items(value: Any) -> Any:
  """A field's value; a mapping as its items, in order."""
  if not isinstance(value, Mapping):
    return value
  return tuple((k, value[k]) for k in sorted(value, key=str))


def _floats(code: types.CodeType) -> list:
  """The floats in a function's body; other constants depend on the version of Python."""
  inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
  return [c for c in code.co_consts if isinstance(c, float)] + [_floats(c) for c in inner]
