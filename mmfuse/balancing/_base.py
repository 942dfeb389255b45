"""Kinds of balancing rules, and the one place that imports `optax.experimental.aggregating`.

modulator   an `optax.GradientTransformationExtraArgs`: a link of the user's `tx`;
weighting   a `Weighting`: an aggregator whose weights depend on the losses alone (one backward);
aggregator  an `Aggregator`: gradients [K, *param] -> [*param].
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import optax
from optax.experimental import aggregating

from mmfuse import tree

if TYPE_CHECKING:  # the module names no type that a checker could follow

  class Aggregator(optax.GradientTransformation):
    """Optax's: gradients [K, *param] -> [*param]."""

else:
  Aggregator = aggregating.Aggregator


class Weighting(Aggregator):
  """An aggregator that needs only the losses.

  One backward pass, with the weights as the cotangent of the losses, then replaces K.

  Args:
    init: params -> state.
    weigh: (losses [K], state, params, **extra) -> (weights [K], state).
    after: (losses, state) -> state, sees the losses of the same batch after the update; None = no
      second look.
  """

  weigh: Callable[..., tuple[jax.Array, Any]]
  after: Callable[..., Any] | None

  def __new__(cls, init, weigh, after=None):
    def update(updates, state, params=None, *, losses, owners=None, **extra_args):
      weights, state = weigh(losses, state, params, **extra_args)
      return tree.combine(weights, updates, owners), state

    self = super().__new__(cls, init, update)
    self.weigh, self.after = weigh, after
    return self


def chain(aggregator: Aggregator, *transforms: optax.GradientTransformation) -> Aggregator:
  """`optax.chain` with the order fixed: the aggregator first, shape-preserving transforms after it.

  Weight decay, clipping or momentum before an aggregator would run silently with another meaning.
  """
  if not isinstance(aggregator, Aggregator):
    raise TypeError(f"chain starts with an aggregator, got {type(aggregator).__name__}")
  late = [i for i, t in enumerate(transforms) if isinstance(t, Aggregator)]
  if late:
    raise TypeError(f"only the first link may be an aggregator; link {late[0] + 1} is one too")
  parts = optax.chain(aggregator, *(optax.with_extra_args_support(t) for t in transforms))
  return Aggregator(parts.init, parts.update)
