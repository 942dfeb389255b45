"""Joint training with a fusion head of its own: the rows of `--methods heads`."""

import inspect
from collections.abc import Callable

import flax.linen as nn

from mmfuse import objectives, train
from mmfuse.core import Method
from mmfuse.schemes import _common


def head(name: str, module: type[nn.Module]) -> Callable[..., Method]:
  """The builder `build(model, learning_rate=0.03, *, tx=None, **options)` of a fusion head's row.

  L = L_fused, as in the method `joint`, of `model` with `module(**options)` as its fusion, so that
  heads are compared as methods are: one protocol, each with its own learning rate.

  Args:
    name: of the head in the table.
    module: a fusion, called `(features, mask, *, num_classes, train) -> (logits, split or None)`.

  Raises:
    Unavailable: (by the builder) a model that is no `LateFusion`; at `init` a head that is not
      defined for the features.
  """

  def build(model, learning_rate=0.03, *, tx=None, **options) -> Method:
    model = _common.with_fusion(model, module(**options), name)
    return train.supervised(model, objectives.fused, _common.optimiser(tx, learning_rate))

  # The head's own fields, so that an option it does not have is refused by name.
  fixed = list(inspect.signature(build).parameters.values())[:-1]
  fields = inspect.signature(module).parameters.values()
  own = [p.replace(kind=p.KEYWORD_ONLY) for p in fields if p.name not in ("parent", "name")]
  build.__signature__ = inspect.Signature([*fixed, *own])  # type: ignore[attr-defined]
  build.__doc__ = module.__doc__
  return build
