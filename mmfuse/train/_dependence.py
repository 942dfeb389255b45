"""Which inputs an output can depend on, read off the jaxpr: exact structure, nothing is run.

Used to know which objective reaches which parameter, so that gradients known to be zero are never
computed. Sound: a dependence is never missed; an opaque call depends on all it is given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def _inner(eqn: Any) -> Any | None:
  """The sub-jaxpr of a call (jit, remat, custom derivative) with the inputs of the equation."""
  for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
    sub = eqn.params.get(name)
    jaxpr = getattr(sub, "jaxpr", sub)
    if (
      jaxpr is not None
      and hasattr(jaxpr, "eqns")
      and len(jaxpr.invars) == len(eqn.invars)
      and len(jaxpr.outvars) == len(eqn.outvars)
      and eqn.primitive.name not in ("scan", "while")
    ):
      return jaxpr
  return None


def _trace(jaxpr: Any, sources: Sequence[frozenset[int]]) -> list[frozenset[int]]:
  seen: dict[Any, frozenset[int]] = dict(zip(jaxpr.invars, sources))
  nothing: frozenset[int] = frozenset()

  def read(var):
    return nothing if hasattr(var, "val") else seen.get(var, nothing)  # literals have `val`

  for eqn in jaxpr.eqns:
    inputs = [read(v) for v in eqn.invars]
    inner = _inner(eqn)
    if inner is not None:
      outputs = _trace(inner, inputs)
    else:
      outputs = [nothing.union(*inputs)] * len(eqn.outvars)
    seen.update(zip(eqn.outvars, outputs))
  return [read(v) for v in jaxpr.outvars]


def dependence(fn: Callable[[Any], Any], argument: Any) -> Any:
  """A tree as `fn(argument)`, at each leaf the indices of the leaves of `argument` it can depend on."""
  return dependence_and_shapes(fn, argument)[0]


def dependence_and_shapes(fn: Callable[[Any], Any], argument: Any) -> tuple[Any, Any]:
  """(`dependence`, `jax.eval_shape` of the same), from one trace."""
  closed, said = jax.make_jaxpr(fn, return_shape=True)(argument)
  reach = _trace(closed.jaxpr, [frozenset([i]) for i in range(len(closed.jaxpr.invars))])
  return jax.tree.unflatten(jax.tree.structure(said), reach), said


def contains_primitive(jaxpr: Any, name: str) -> bool:
  """Whether the primitive occurs anywhere in a jaxpr, sub-jaxprs included."""
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == name:
      return True
    for value in eqn.params.values():
      for sub in value if isinstance(value, (tuple, list)) else (value,):
        if hasattr(getattr(sub, "jaxpr", sub), "eqns") and contains_primitive(sub, name):
          return True
  return False
