"""LFM: the weight of the alignment is learned between epochs, on a few validation rows.

Yang, Wan, Jiang and Xu, Facilitating Multimodal Classification via Dynamically Learning Modality
Gap, NeurIPS 2024. The loss is in `_lfm_loss.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import train
from mmfuse.core import Batch, Method, State
from mmfuse.methods.balancing import _hooks
from mmfuse.methods.balancing._lfm_loss import lfm_losses, lfm_objective

_LOW, _HIGH = 0.05, 0.95  # of a1
_HALVE_EVERY = 20  # epochs


@dataclasses.dataclass(frozen=True)
class AlignmentGradient:
  r"""`(state, batch)` -> mean of the first encoder weight's entries of H v; scalar.

  H: the Hessian of a0 CE + a1 alignment; v: the gradient of CE; both on `batch`, in evaluation
  mode, by forward over reverse: one jvp of one gradient, never a matrix. The first weight is the
  first leaf with two or more axes of the first modality's encoder.
  """

  model: Any

  def __call__(self, state: State, batch: Batch) -> jax.Array:
    kept = train.weights_of(state)
    weights = state.memory["objective"]["weights"]

    def losses(params):
      outputs = train.outputs_of(self.model, {**kept, "params": params}, batch.inputs, batch.mask)
      return lfm_losses(outputs, batch)

    total = lambda p: jnp.vdot(weights, jnp.stack(losses(p)))
    direction = jax.grad(lambda p: losses(p)[0])(state.params)
    _, product = jax.jvp(jax.grad(total), (state.params,), (direction,))
    encoder = jax.tree.leaves(product.get(sorted(self.model.modalities)[0], {}))
    leaves = encoder or jax.tree.leaves(product)
    return jnp.mean(next((x for x in leaves if x.ndim > 1), leaves[0])).astype(jnp.float32)


def lfm(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  a1: float = 0.05,
  a1_rate: float = 1e-4,
  validation_rows: int = 16,
) -> Method:
  r"""L = 2 (a0 CE + a1 alignment); before each epoch a1 <- clip(a1 - rate g), a0 = 1 - a1.

  g is `AlignmentGradient` on `validation_rows` validation rows, always the same; the rate halves
  every 20 epochs; a1 stays in [.05, .95]. At the default rate it moves by about 1e-5 in 30 epochs: in
  effect a constant. Any number of modalities (one alone has no alignment);
  classification only. The method sees labels of validation rows, as published.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    a1: start, default .05 (the released code; a0 = .95).
    a1_rate: default 1e-4 (BalanceBenchmark).
    validation_rows: default 16, a quarter of a batch of 64.

  Raises:
    Unavailable: no validation split (when training starts).
    ValueError: a1 outside [.05, .95].
  """
  method = train.supervised(model, lfm_objective(a1, learning_rate=a1_rate), tx)
  gradient_of = AlignmentGradient(model)

  def update(state, splits, key, clock):
    del key
    split = train.validation_of(splits, "lfm")
    rows = _hooks.spread_rows(split, validation_rows)
    batch = next(split.batches(len(rows), rows))
    memory = state.memory["objective"]
    halved = clock.epoch > 0 and clock.epoch % _HALVE_EVERY == 0
    rate = (0.5 if halved else 1.0) * memory["rate"]
    gradient = train.on_batch(gradient_of, state, batch)
    weight = jnp.clip(memory["weights"][1] - rate * gradient, _LOW, _HIGH)
    return train.remember(
      state,
      objective={"weights": jnp.stack([1.0 - weight, weight]), "rate": rate},
    )

  phase = train.only_phase(method)._replace(begin=update, epoch_end=update)
  return method._replace(phases=(phase,))
