"""What a model says with weights that a method keeps beside its own: a teacher's, a probe's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mmfuse import masks
from mmfuse.core import Outputs, Unavailable


def outputs_of(model: Any, kept: Mapping[str, Any], inputs: Mapping, mask: Mapping) -> Outputs:
  """What a model says in evaluation mode with weights as `weights_of` keeps them.

  Args:
    model: of `core.Model`.
    kept: {"params": ..., "stats": ...}.
    inputs: {m: [B, ...]}, more modalities than the model's allowed; not read where absent.
    mask: {m: bool [B]}, True = present.
  """
  names = sorted(model.modalities)
  mask = {m: mask[m] for m in names}
  inputs = masks.fill({m: inputs[m] for m in names}, mask)
  variables = {"params": kept["params"], "batch_stats": kept["stats"]}
  features, stats = model.encode(variables, inputs, mask, train=False, rngs=None)
  return model.heads({**variables, "batch_stats": stats}, features, mask, train=False, rngs=None)[0]


@dataclasses.dataclass(frozen=True)
class Width:
  """(inputs, mask) -> the width C of a model's logits, from shapes alone, for `train.with_head`.

  Raises Unavailable for a model without heads.
  """

  model: Any

  def __call__(self, inputs: Mapping, mask: Mapping) -> int:
    def run(key):
      variables = self.model.init(key, inputs, mask)
      kept = {"params": variables["params"], "stats": variables.get("batch_stats", {})}
      return outputs_of(self.model, kept, inputs, mask)

    outputs = jax.eval_shape(run, jax.random.key(0))
    found = [z for z in (outputs.logits, *outputs.unimodal_logits.values()) if z is not None]
    if not found:
      raise Unavailable("the number of outputs is read off the model's heads, and it has none")
    width: int = found[0].shape[-1]
    return width
