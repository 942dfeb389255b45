"""Modules that are not called as `(x, mask, *, train)`, taken as encoders: Linen and NNX."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from mmfuse.core import Sequence

# What a `__call__` gets by naming it, besides x.
NAMED: Mapping[str, Callable[[Any, bool], Any]] = {
  "mask": lambda mask, train: mask,
  "train": lambda mask, train: train,
  "training": lambda mask, train: train,
  "is_training": lambda mask, train: train,
  "deterministic": lambda mask, train: not train,
  "use_running_average": lambda mask, train: not train,
}
# What the class of an NNX module, or a function that makes one, gets by naming it.
MADE_OF = ("shape", "in_features", "rngs")


def title(module: Any) -> str:
  """The name of a module's class, or of the class or function itself."""
  module = getattr(module, "module", module) if isinstance(module, Adapted) else module
  return getattr(module, "__name__", type(module).__name__)


def adapt(module: Any, modality: str) -> Any:
  """`module` as an encoder `(x, mask, *, train)`; one that is called that way comes back as it is.

  A Linen module with another `__call__(x, ...)` gets what it names of mask, train, training,
  is_training, deterministic and use_running_average. So does an NNX module, taken through
  `flax.nnx.bridge`: a class, or a function that makes one, called with what it names of `shape` (of
  a row), `in_features` (its last axis) and `rngs`; or an instance, whose weights are then where
  every run starts. Its `train()` and `eval()` are called before each use. Statistics of a module
  that names no mask see absent rows as zeros.

  Raises ValueError, naming `modality`, for whatever else there is, and for a parameter of another
  name without a default.
  """
  what = f"the encoder of {modality!r} ({title(module)})"
  made = _is_factory(module) or (isinstance(module, type) and issubclass(module, nnx.Module))
  if made:
    _check_known(_made_of(module), MADE_OF, what, "is made with", "an NNX module is made with")
  if made or isinstance(module, nnx.Module):
    if not _is_factory(module):  # the module of a factory is known once it is made
      named(module, what)
    return AdaptedNNX(module, what)
  if isinstance(module, type) or not hasattr(module, "apply"):
    raise ValueError(
      f"{what} is a {'class' if isinstance(module, type) else type(module).__name__}, "
      "expected a Linen module, or an NNX module, its class or a function of rngs"
    )
  if not isinstance(module, nn.Module) or _is_encoder(module):
    return module
  return AdaptedLinen(module, named(module, what))


def _is_factory(module: Any) -> bool:
  return inspect.isfunction(module) and "rngs" in inspect.signature(module).parameters


def _made_of(make: Any) -> list[inspect.Parameter]:
  """The parameters of a function, or of the `__init__` of a class."""
  if isinstance(make, type):
    return _behind_self(make.__init__)  # type: ignore[misc]
  return list(inspect.signature(make).parameters.values())


def _behind_self(function: Any) -> list[inspect.Parameter]:
  return list(inspect.signature(function).parameters.values())[1:]


def _is_encoder(module: nn.Module) -> bool:
  try:
    inspect.signature(type(module).__call__).bind(module, None, None, train=False)
  except TypeError:
    return False
  return True


def named(module: Any, what: str) -> tuple[str, ...]:
  """Which of `NAMED` the `__call__` of a module, or of its class, has behind x.

  Raises ValueError for no x, and for others that it needs.
  """
  parameters = _behind_self((module if isinstance(module, type) else type(module)).__call__)
  if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
    raise ValueError(f"{what} takes no input; an encoder is called as (x, mask, *, train)")
  _check_known(parameters[1:], NAMED, what, "is called with", "an encoder is called with x and")
  return tuple(p.name for p in parameters[1:] if p.name in NAMED)


def _check_known(parameters, known, what, does, rule):
  for p in parameters:
    needed = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    if needed and (p.name not in known or p.kind is p.POSITIONAL_ONLY):
      raise ValueError(
        f"{what} {does} {p.name!r}, which has no default; {rule} what it names of "
        f"{', '.join(known)}"
      )


class Adapted(nn.Module):
  """What `adapt` makes of a module that is no encoder by itself."""

  module: Any

  def passed(self, x: Any) -> tuple[str, ...]:
    """What the module gets besides `x`, by name."""
    raise NotImplementedError

  @property
  def features(self) -> int | None:
    """Output width, where the module tells."""
    return getattr(self.module, "features", None)

  @property
  def step_features(self) -> int | None:
    """As the module says."""
    return getattr(self.module, "step_features", None)

  @property
  def reads_lengths(self) -> bool:
    """As the module says."""
    return getattr(self.module, "reads_lengths", False)


class AdaptedLinen(Adapted):
  """A Linen module that is given `names` by name. Parameters have the paths of the module's own."""

  names: tuple[str, ...] = ()

  def passed(self, x: Any) -> tuple[str, ...]:
    """`names`."""
    del x
    return self.names

  def setup(self):
    nn.share_scope(self, self.module)

  def __call__(self, x: Any, mask: jax.Array, *, train: bool) -> Any:
    return self.module(x, **{k: NAMED[k](mask, train) for k in self.names})


class AdaptedNNX(Adapted):
  """An NNX module: a class, a function that makes one, or an instance. See `adapt`."""

  what: str = "the encoder"

  @nn.compact
  def __call__(self, x: Any, mask: jax.Array, *, train: bool) -> Any:
    rngs = self._rngs(train)

    def make():
      module = self._make(x, rngs)
      module.train() if train else module.eval()
      return module

    given = {k: NAMED[k](mask, train) for k in self.passed(x)}
    # Plain arrays, not boxes with NNX's metadata: parameters are like those of any encoder.
    inner = nnx.bridge.ToLinen(make, skip_rng=True, metadata_fn=None, name="nnx")
    nn.share_scope(self, inner)
    return inner(x, **given)

  def passed(self, x: Any) -> tuple[str, ...]:
    """What the module's `__call__` names."""
    if _is_factory(self.module):
      return named(nnx.eval_shape(lambda: self._make(x, nnx.Rngs(0))), self.what)
    return named(self.module, self.what)

  def _rngs(self, train):
    key = lambda name: self.make_rng(name) if self.has_rng(name) else jax.random.key(0)
    params, dropout = key("params"), key("dropout")
    return nnx.Rngs(dropout if train else params, params=params, dropout=dropout)

  def _make(self, x, rngs):
    if isinstance(self.module, nnx.Module):
      module = nnx.clone(self.module)
      nnx.reseed(module, default=rngs(), dropout=rngs.dropout())  # else every step draws alike
      return module
    shape = (x.values if isinstance(x, Sequence) else x).shape
    known = {"shape": tuple(shape[1:]), "in_features": shape[-1], "rngs": rngs}
    names = [p.name for p in _made_of(self.module)]
    return self.module(**{k: known[k] for k in names if k in known})
