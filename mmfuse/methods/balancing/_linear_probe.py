"""Linear probe: what linear heads can still read from jointly trained, then frozen, encoders."""

from typing import Any

import optax

from mmfuse import objectives, train
from mmfuse.core import Method, Unavailable
from mmfuse.tree import HEADS


def joint_then_probe(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  share: float = 0.7,
) -> Method:
  """Phase "train": the joint loss. Phase "probe": new heads, fused and uni-modal, on its encoders.

  The heads start again from their initial values and are trained on the sum of their losses, the
  encoders being frozen in evaluation mode. The fused head is the model's own; it is linear for
  concat and sum. Any number of modalities, labels of any task.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    share: of the epochs for the joint phase, default .7; the probe gets the rest.

  Raises:
    ValueError: a share outside (0, 1).
    Unavailable: a model that keeps no heads under params["heads"].
  """
  joint = train.supervised(model, objectives.fused, tx)
  probe = train.supervised(
    train.frozen(model), objectives.fused_and_unimodal, train.heads_only(tx), name="probe"
  )

  def begin(state, splits, key, clock):
    del splits, key, clock
    fresh = state.memory["initial_heads"]
    stats = state.stats
    if HEADS in stats:
      stats = {**stats, HEADS: fresh["stats"]}
    return state._replace(params={**state.params, HEADS: fresh["params"]}, stats=stats)

  def initial_heads(state, num_rows):
    del num_rows
    if HEADS not in state.params:
      raise Unavailable('linear_probe needs a model with heads under params["heads"]')
    return {"initial_heads": {"params": state.params[HEADS], "stats": state.stats.get(HEADS, {})}}

  late = train.only_phase(probe)._replace(begin=begin)
  method = train.then(joint, probe._replace(phases=(late,)), share)
  # Gradients are compared in the whole model; behind frozen encoders they would all be zero.
  return train.with_memory(method._replace(functions=joint.functions), initial_heads)
