"""One wrapper for all models that are another model but for a function or two."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from mmfuse.core import Outputs, Unavailable
from mmfuse.train._owned import moving_only
from mmfuse.tree import HEADS


@dataclasses.dataclass(frozen=True)
class Wrapped:
  """`model` with some of its functions replaced: a `core.Model`.

  A replacement gets the model first and then the arguments of the function. Functions compare by
  value: those of a module or frozen dataclasses, no closures, so that equal models share programs.

  Args:
    model: what is wrapped.
    init_fn: `(model, key, inputs, mask) -> variables`; default None, the model's own, as below.
    encode_fn: `(model, variables, inputs, mask, *, train, rngs) -> (features, stats)`.
    heads_fn: `(model, variables, features, mask, *, train, rngs) -> (Outputs, stats)`.
    own: an entry of the parameters that is the wrapper's and that `init_fn` adds; the model that
      replacements get leaves it out of what it hands on. Default None.
  """

  model: Any
  init_fn: Callable[..., dict[str, Any]] | None = None
  encode_fn: Callable[..., tuple[dict[str, Any], Any]] | None = None
  heads_fn: Callable[..., tuple[Outputs, Any]] | None = None
  own: str | None = None

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return self.model.modalities

  def restrict(self, modalities) -> "Wrapped":
    """The same on fewer modalities. Raises Unavailable where the model cannot be restricted."""
    if self.model.restrict is None:
      raise Unavailable("the model cannot be restricted to some of its modalities")
    return dataclasses.replace(self, model=self.model.restrict(modalities))

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """Variables from one example batch, as `core.Model.init`."""
    if self.init_fn is None:
      return self.model.init(key, inputs, mask)
    return self.init_fn(self._inner(), key, inputs, mask)

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """(features, statistics), as `core.Model.encode`."""
    if self.encode_fn is not None:
      return self.encode_fn(self._inner(), variables, inputs, mask, train=train, rngs=rngs)
    return self.model.encode(self._without(variables), inputs, mask, train=train, rngs=rngs)

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, statistics), as `core.Model.heads`."""
    if self.heads_fn is not None:
      return self.heads_fn(self._inner(), variables, features, mask, train=train, rngs=rngs)
    return self.model.heads(self._without(variables), features, mask, train=train, rngs=rngs)

  def _inner(self) -> Any:
    """The model as replacements see it: it knows to leave out what is the wrapper's own."""
    return self.model if self.own is None else Wrapped(self.model, own=self.own)

  def _without(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    if self.own is None:
      return variables
    return {**variables, "params": {k: v for k, v in variables["params"].items() if k != self.own}}


def frozen(model: Any) -> Wrapped:
  """`model` with encoders that stay as they are: in evaluation mode, without a gradient.

  Weight decay and momentum would still move them: train it with `heads_only(tx)`.
  """
  return Wrapped(model, encode_fn=_encode_frozen)


def _encode_frozen(model, variables, inputs, mask, *, train, rngs=None):
  del train, rngs
  return jax.lax.stop_gradient(model.encode(variables, inputs, mask, train=False, rngs=None))


def heads_only(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  """`tx` that moves `params["heads"]` alone (weight decay would move a frozen encoder)."""
  return moving_only(tx, _is_head)


def _is_head(path: str) -> bool:
  return path.startswith(f"{HEADS}/")
