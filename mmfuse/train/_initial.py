"""A state to begin from, and what is said of a method with the signatures of before."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from mmfuse.core import Batch, Method, State

INIT = ("key", "batch", "num_rows")
HOOK = ("state", "splits", "key", "clock")


# A program of random draws that runs once. On CPU, LLVM's passes are two thirds of the time to compile it,
# of a LeNet nine tenths.
UNOPTIMISED = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def _init(module: Any, *args: Any) -> Any:
  return module.init(*args)


_init_jit = jax.jit(_init, static_argnames=("module",))
_init_cpu = jax.jit(_init, static_argnames=("module",), compiler_options=UNOPTIMISED)


def init_module(module: Any, *args: Any) -> Any:
  """`module.init(*args)`, compiled on its own: every method that begins alike starts from one program.

  Args:
    module: a Linen module or a `core.Model`, hashable.
    args: the key, then arrays.
  """
  traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
  plain = traced or jax.default_backend() != "cpu"  # options are of a whole program alone
  return (_init_jit if plain else _init_cpu)(module, *args)


def initial(method: Method, key: jax.Array, batch: Batch, num_rows: int | None = None) -> State:
  """`method.init` on an example batch.

  Args:
    method: any `core.Method`.
    key: of everything that is drawn.
    batch: what shapes are read off.
    num_rows: of the training split; default those of the batch.
  """
  rows = batch.weight.shape[0] if num_rows is None else num_rows
  return method.init(key, batch, rows)


def check_signatures(method: Method) -> None:
  """Raises TypeError for an `init` or a hook that does not take what it is called with."""
  _check("Method.init", method.init, INIT)
  for phase in method.phases:
    for name in ("begin", "epoch_end", "rows"):
      hook = getattr(phase, name)
      if hook is not None:
        _check(f"{name} of phase {phase.name!r}", hook, HOOK)


def _check(what: str, function: Callable[..., Any], names: tuple[str, ...]) -> None:
  signature = inspect.signature(function)
  try:
    signature.bind(*names)
  except TypeError:
    raise TypeError(
      f"{what} is called as ({', '.join(names)}), but it is defined as {signature}"
    ) from None
