"""A model whose passes compute in another precision: parameters and losses stay float32."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def cast(tree: Any, dtype: Any) -> Any:
  """The floating-point leaves in `dtype`, the others as they are."""
  return jax.tree.map(
    lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
  )


@dataclasses.dataclass(frozen=True)
class Cast:
  """The model contract around a model: encoders and heads see parameters and inputs in `dtype`.

  Running averages of batch norm stay float32, as do the logits that losses read; gradients come
  back in the parameters' float32 through the cast.
  """

  model: Any
  dtype: Any = jnp.bfloat16

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those of the model."""
    return self.model.modalities

  def init(self, key: jax.Array, inputs: Mapping[str, Any], mask: Mapping[str, jax.Array]) -> Any:
    """Float32 variables."""
    return self.model.init(key, inputs, mask)

  def _low(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    return {**variables, "params": cast(variables["params"], self.dtype)}

  def encode(self, variables, inputs, mask, *, train: bool, rngs=None):
    """As the model's, features in `dtype`."""
    inputs = cast(dict(inputs), self.dtype)
    return self.model.encode(self._low(variables), inputs, mask, train=train, rngs=rngs)

  def heads(self, variables, features, mask, *, train: bool, rngs=None):
    """As the model's, outputs in float32."""
    out, stats = self.model.heads(self._low(variables), features, mask, train=train, rngs=rngs)
    return cast(out, jnp.float32), stats
