"""Linear probe: what linear heads can still read from jointly trained, then frozen, encoders."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Method
from mmfuse.schemes import _common
from mmfuse.tree import HEADS


@dataclasses.dataclass(frozen=True)
class Frozen:
  """A `core.Model` whose encoders stay as they are: evaluation mode, no gradient."""

  model: Any

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return self.model.modalities

  def restrict(self, modalities) -> "Frozen":
    """The same on fewer modalities."""
    return Frozen(self.model.restrict(modalities))

  def init(self, key, inputs, mask):
    """The model's."""
    return self.model.init(key, inputs, mask)

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """The model's features in evaluation mode; statistics do not move."""
    del train, rngs
    found = self.model.encode(variables, inputs, mask, train=False, rngs=None)
    return jax.lax.stop_gradient(found)

  def heads(self, variables, features, mask, *, train, rngs=None):
    """The model's."""
    return self.model.heads(variables, features, mask, train=train, rngs=rngs)


def heads_only(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  """`tx` that moves `params["heads"]` alone (weight decay would move a frozen encoder)."""
  tx = optax.with_extra_args_support(tx)

  def update(grads, state, params=None, **extra_args):
    updates, state = tx.update(grads, state, params, **extra_args)
    still = {k: jax.tree.map(jnp.zeros_like, u) for k, u in updates.items() if k != HEADS}
    return {**updates, **still}, state

  return optax.GradientTransformationExtraArgs(tx.init, update)


def linear_probe(
  model: Any,
  learning_rate: float = 0.03,
  *,
  tx: optax.GradientTransformation | None = None,
  share: float = 0.7,
) -> Method:
  """Phase "train": the joint loss. Phase "probe": new heads, fused and uni-modal, on its encoders.

  The heads start again from their initial values and are trained on the sum of their losses, the
  encoders being frozen in evaluation mode. The fused head is the model's own; it is linear for
  concat and sum. Any number of modalities, labels of any task.

  Args:
    share: of the epochs for the joint phase, default .7; the probe gets the rest.

  Raises:
    ValueError: a share outside (0, 1).
    Unavailable: a model that keeps no heads under params["heads"].
  """
  if not 0 < share < 1:
    raise ValueError(f"share must lie in (0, 1), got {share}")
  tx = _common.optimiser(tx, learning_rate)
  joint = train.supervised(model, objectives.fused, tx)
  probe = train.supervised(
    Frozen(model), objectives.fused_and_unimodal, heads_only(tx), name="probe"
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
      raise _common.Unavailable('linear_probe needs a model with heads under params["heads"]')
    return {"initial_heads": {"params": state.params[HEADS], "stats": state.stats.get(HEADS, {})}}

  method = _common.then(
    joint._replace(phases=(_common.only_phase(joint)._replace(share=share),)),
    probe._replace(phases=(_common.only_phase(probe)._replace(share=1 - share, begin=begin),)),
  )
  # Gradients are compared in the whole model; behind frozen encoders they would all be zero.
  return _common.with_memory(method._replace(functions=joint.functions), initial_heads)
