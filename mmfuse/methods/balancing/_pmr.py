"""PMR: the modality behind the others is pulled towards the prototypes of its classes.

Fan, Xu, Wang, Wang, Guo: "PMR: Prototypical Modal Rebalance for Multimodal Learning", CVPR 2023.
As released: neither the entropy regulariser nor the graded coefficient of the paper.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import choose, objectives, train
from mmfuse.core import Batch, Method, Objective, Outputs, State, label_weight
from mmfuse.methods.balancing import _hooks, _prototypes
from mmfuse.names import CLASSIFICATION
from mmfuse.tree import FUSED


def pmr(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  alpha: float = 1.0,
  momentum: float = 0.2,
  batch_size: int = 64,
  start_epoch: int = 0,
  end_epoch: int | None = None,
) -> Method:
  """The joint loss plus a prototype loss: `pmr_objective`, its prototypes renewed between epochs.

  Estimates are made before the first epoch and after each, in evaluation mode, from max(1,
  floor(n / 10)) random training batches of `batch_size` labelled rows, n batches being an epoch.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    alpha: weight of the prototype loss, >= 0 (authors: 1).
    momentum: of the old prototypes, from the second estimate on, in [0, 1) (authors: .2).
    batch_size: rows of an estimating batch (authors: 64).
    start_epoch, end_epoch: first and last epoch with the prototype loss, inclusive; None = to the
      end (authors: 0 to 100 of 150).

  Raises:
    ValueError: an impossible number; labels that are not one class per row.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size must be at least 1, got {batch_size}")
  objective = pmr_objective(alpha=alpha, start_epoch=start_epoch, end_epoch=end_epoch)
  method = train.supervised(model, objective, tx)
  sums = _Sums(method.predict)

  def estimate(state: State, splits, key, clock) -> State:
    del clock
    rows = _hooks.judged_rows(splits["train"])
    size = min(batch_size, len(rows))
    count = max(1, len(rows) // size // 10) * size
    chosen = _hooks.generator(key).permutation(rows)[:count]
    memory, total = state.memory["objective"], None
    for batch in splits["train"].batches(size, chosen):
      now = train.on_batch(sums, state, batch)
      total = now if total is None else jax.tree.map(jnp.add, total, now)
    return train.remember(state, objective=_renewed(memory, total, momentum))

  _prototypes.prototypes(jnp.zeros((1, 1)), jnp.ones(1), momentum=momentum)  # checks the number
  phase = train.only_phase(method)
  return method._replace(phases=(phase._replace(begin=estimate, epoch_end=estimate),))


def pmr_objective(
  *, alpha: float = 1.0, start_epoch: int = 0, end_epoch: int | None = None
) -> Objective:
  r"""{"fused": CE, "prototype/<m>": k_m CE(-|h_m - c_{m,.}|)}, k from `pmr_coefficients`.

  The score of m is the mean over its rows of softmax(-|h_m - c_m|)[label]. Memory: {"prototypes":
  {m: [C, D]}, "seen": {m: bool [C]}}, which hooks fill; a class without a prototype yet is left out
  of the softmax, and its rows out of score and loss.
  """
  _prototypes.pmr_coefficients({"m": jnp.zeros(())}, alpha)  # checks the number

  def init(batch: Batch, outputs):
    _check(batch.label, outputs)
    num = outputs.logits.shape[-1]
    shapes = {m: outputs.features[m].shape[-1] for m in sorted(outputs.features)}
    return {
      "prototypes": {m: jnp.zeros((num, d), jnp.float32) for m, d in shapes.items()},
      "seen": {m: jnp.zeros(num, bool) for m in shapes},
    }

  def apply(outputs, batch, memory, *, clock, **extra):
    del extra
    fused = objectives.fused(outputs, batch)
    losses, scores, present = {}, {}, {}
    for m in sorted(memory["prototypes"]):
      seen = memory["seen"][m]
      logits = _prototypes.prototype_logits(outputs.features[m], memory["prototypes"][m], seen)
      weight = jnp.where(batch.mask[m] & seen[batch.label], label_weight(batch), 0.0)
      losses[m] = objectives.weighted_mean(objectives.row_losses(logits, batch.label), weight)
      chance = choose.along(jax.nn.softmax(logits), batch.label, -1)
      scores[m] = objectives.weighted_mean(chance, weight)
      present[m] = jnp.any(weight > 0)
    ks = _prototypes.pmr_coefficients(jax.lax.stop_gradient(scores), alpha, present)
    on = clock.epoch >= start_epoch
    if end_epoch is not None:
      on = on & (clock.epoch <= end_epoch)
    own = {f"prototype/{m}": jnp.where(on, ks[m], 0.0) * losses[m] for m in losses}
    return {FUSED: fused[FUSED], **own}, memory

  return Objective(init, apply)


def _check(label, outputs) -> None:
  if objectives.task_of(label) != CLASSIFICATION:
    raise ValueError("PMR needs one class per row (integer labels [B]): a prototype is of a class")
  if outputs.logits is None:
    raise ValueError("PMR needs a fused head; this model has none")
  for m, h in outputs.features.items():
    if not hasattr(h, "ndim") or h.ndim != 2:
      raise ValueError(f"PMR needs features [B, D] of every modality; those of {m!r} are not")


@dataclasses.dataclass(frozen=True)
class _Sums:
  """{modality: (sums [C, D], counts [C])} of a batch, over the rows that have the modality."""

  predict: Callable[..., Outputs]

  def __call__(self, state: State, batch: Batch):
    real = batch.weight > 0
    outputs = self.predict(state, batch.inputs, {m: v & real for m, v in batch.mask.items()})
    names = sorted(state.memory["objective"]["prototypes"])
    return {
      m: _prototypes.class_sums(
        outputs.features[m],
        batch.label,
        jnp.where(batch.mask[m], label_weight(batch), 0.0),
        outputs.logits.shape[-1],
      )
      for m in names
    }


def _renewed(memory, total, momentum):
  """The memory after an estimate."""
  new, seen = {}, {}
  for m, (sums, counts) in total.items():
    known = memory["seen"][m]
    new[m] = _prototypes.prototypes(
      sums, counts, memory["prototypes"][m], seen=known, momentum=momentum
    )
    seen[m] = known | (counts > 0)
  return {"prototypes": new, "seen": seen}
