"""Joint training with a fusion head of its own: the rows of `--methods heads`."""

from collections.abc import Callable

import flax.linen as nn

from mmfuse import fusion, objectives, train
from mmfuse.core import Method
from mmfuse.methods._made import with_options


def head(name: str, module: type[nn.Module]) -> Callable[..., Method]:
  """The builder `build(model, tx, **options)` of a fusion head's row.

  L = L_fused, as in the method `joint`, of `model` with `module(**options)` as its fusion, so that
  heads are compared as methods are: one protocol, each with its own learning rate.

  Args:
    name: of the head in the table.
    module: a fusion, called `(features, mask, *, num_classes, train) -> (logits, split or None)`.

  Raises:
    Unavailable: (by the builder) a model that is no `LateFusion`; at `init` a head that is not
      defined for the features.
  """

  def build(model, tx, **options) -> Method:
    return train.supervised(
      fusion.with_fusion(model, module(**options), name), objectives.fused, tx
    )

  return with_options(build, module, without=("parent", "name"))
