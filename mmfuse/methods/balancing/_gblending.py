"""G-Blending: probes measure how each objective overfits and generalises; their ratio weighs it.

Wang, Tran and Feiszli, What Makes Training Multi-Modal Classification Networks Hard?, CVPR 2020.
The weights are in `_gblending_weights.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import balancing, objectives, train
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Method, State, label_weight
from mmfuse.methods.balancing import _hooks
from mmfuse.methods.balancing._gblending_weights import VARIANTS, gblending_weights

PROBES = ("probe", "probe_unimodal")  # the two copies' entries in `State.opt`
MEASURED = 2048  # rows of a split that a loss is measured on
PROBE_SHARE = 0.3  # of the epochs; the two copies take turns, so a probe step is one pass


@dataclasses.dataclass(frozen=True)
class _Losses:
  """(state, batch) -> (losses [B, K], weights [B, K]) of the copies in `state.memory`."""

  model: Any

  def __call__(self, state, batch):
    fused, alone = (
      train.outputs_of(self.model, state.memory[copy], batch.inputs, batch.mask)
      for copy in ("joint", "alone")
    )
    names = sorted(self.model.modalities)
    logits = [fused.logits, *(alone.unimodal_logits[m] for m in names)]
    known = label_weight(batch)
    weights = [known, *(jnp.where(batch.mask[m], known, 0.0) for m in names)]
    rows = [objectives.row_losses(z, batch.label) for z in logits]
    return jnp.stack(rows, 1), jnp.stack(weights, 1)


@dataclasses.dataclass(frozen=True)
class _PredictJoint:
  """(state, inputs, mask) -> Outputs of the copy that the fused loss trains."""

  model: Any

  def __call__(self, state, inputs, mask):
    return train.outputs_of(self.model, state.memory["joint"], inputs, mask)


def measure(model, state: State, split) -> np.ndarray:
  """Mean loss of each objective [K] on up to 2048 evenly spaced rows, over rows that have it."""
  rows = _hooks.spread_rows(split, MEASURED)
  small = state._replace(params={}, stats={})
  losses, weights = train.over_split(_Losses(model), small, split, rows)
  read = np.where(weights > 0, losses, 0.0)  # of a row that does not count the loss may be NaN
  return (read * weights).sum(0) / np.maximum(weights.sum(0), 1e-12)


def total_only(log):
  """The log of a step with the sum of its losses alone: the same entries whatever the losses."""
  losses = [v for k, v in log.items() if k.startswith("loss/")]
  return {"loss/total": sum(losses), **{k: log[k] for k in ("gradient_norm", "finite")}}


class _Builder:
  """The pieces of both forms: three supervised methods on one state."""

  def __init__(self, model, tx, variant, rescale):
    self.model, self.variant = model, variant
    rule = balancing.aggregate_by_gblending(1 + len(model.modalities), rescale=rescale)
    self.main = train.supervised(model, objectives.fused_and_unimodal, tx, aggregator=rule)
    joint = train.supervised(model, objectives.fused, tx, name=PROBES[0])
    # One copy serves all modalities: encoder and head m see the loss of m alone.
    alone = train.supervised(model, objectives.unimodal, tx, name=PROBES[1])
    self.method = train.then(train.then(joint, alone), self.main)
    self.steps = {"joint": train.only_phase(joint).step, "alone": train.only_phase(alone).step}

  def probe_step(self, state, batch, key, clock):
    """One step of one copy, the other one's next; the model itself stays."""

    def move(copy):
      def one(state, batch, key, clock):
        moved, log = self.steps[copy](train.restore(state, state.memory[copy]), batch, key, clock)
        kept = {copy: train.weights_of(moved)}
        return train.remember(state._replace(opt=moved.opt), **kept), total_only(log)

      return one

    turn = clock.step % 2 == 0
    return jax.lax.cond(turn, move("joint"), move("alone"), state, batch, key, clock)

  def start(self, state, splits):
    """Copies and their optimisers from the current ones; losses at the first checkpoint."""
    kept = train.weights_of(state)
    current = {k: v for k, v in state.opt["train"].items() if k != "aggregator"}
    opt = {**state.opt, **dict.fromkeys(PROBES, current)}
    state = train.remember(state._replace(opt=opt), joint=kept, alone=kept)
    ends = [measure(self.model, state, s) for s in self.both(splits)]
    return train.remember(state, losses=jnp.asarray(np.stack(ends), jnp.float32))

  def finish(self, state, splits):
    """Losses at the second checkpoint, and the weights they give."""
    train0, val0 = state.memory["losses"]
    train1, val1 = (measure(self.model, state, s) for s in self.both(splits))
    blend = gblending_weights(train0, val0, train1, val1, variant=self.variant)
    rule = state.opt["train"]["aggregator"]._replace(weights=blend.weights.astype(jnp.float32))
    return state._replace(opt={**state.opt, "train": {**state.opt["train"], "aggregator": rule}})

  def both(self, splits):
    return splits["train"], train.validation_of(splits, "gblending")

  def memory(self, state, num_rows):
    del num_rows
    kept = train.weights_of(state)
    losses = jnp.zeros((2, 1 + len(self.model.modalities)), jnp.float32)
    return {"joint": kept, "alone": kept, "losses": losses}


def _offline(build: _Builder) -> Method:
  def begin_probe(state, splits, key, clock):
    del key, clock
    return build.start(state, splits)

  def end_of_probe_epoch(state, splits, key, clock):
    del key, clock
    return build.finish(state, splits)  # the last epoch's stays

  *_, phase = build.method.phases
  probe = phase._replace(
    name="probe",
    step=build.probe_step,
    begin=begin_probe,
    epoch_end=end_of_probe_epoch,
    predict=_PredictJoint(build.model),
    share=PROBE_SHARE,
  )
  # The probe moved copies only: the model is where it was initialised.
  method = build.method._replace(phases=(probe, phase._replace(share=1 - PROBE_SHARE)))
  return train.with_memory(method, build.memory)


def _online(build: _Builder, super_epoch: int) -> Method:
  *_, phase = build.method.phases
  train_step = phase.step

  def main_step(state, batch, key, clock):
    state, log = train_step(state, batch, key, clock)
    return state, total_only(log)

  def step(state, batch, key, clock):
    probing = clock.epoch % super_epoch == 0
    return jax.lax.cond(probing, build.probe_step, main_step, state, batch, key, clock)

  def begin(state, splits, key, clock):
    del key, clock
    return build.start(state, splits)

  def epoch_end(state, splits, key, clock):
    del key
    if (clock.epoch - 1) % super_epoch == 0:
      state = build.finish(state, splits)
    return build.start(state, splits) if clock.epoch % super_epoch == 0 else state

  phase = phase._replace(step=step, begin=begin, epoch_end=epoch_end)
  return train.with_memory(build.method._replace(phases=(phase,)), build.memory)


def gblending(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  online: bool = False,
  super_epoch: int = 5,
  variant: str = "paper",
  rescale: str = "none",
) -> Method:
  r"""\sum_k w_k L_k over the fused and the uni-modal heads, w from `gblending_weights`.

  The probes are two copies of the model: one is trained on the fused loss; the other on all
  uni-modal losses, which amounts to one copy per modality, since they share no parameter in a
  late-fusion model. The two take turns batch by batch: a probe step is one gradient evaluation, and
  examples seen equal those of any other method.

  Offline (default): phase "probe" (share .3 of the epochs) from the initial parameters, then phase
  "train" (.7) from the same initial parameters, as in the paper. Online: epochs 0, super_epoch,
  2 super_epoch... are probe epochs, from the current parameters and optimiser; the others train.
  Losses are measured on up to 2048 rows of either split. Any task, any number of modalities.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    online: whether to weigh anew in every super-epoch.
    super_epoch: epochs between two probes when online, default 5 (BalanceBenchmark: 10, of probe).
    variant: of `gblending_weights`.
    rescale: of `aggregate_by_gblending`.

  Raises:
    ValueError: super_epoch < 2, an unknown option.
    Unavailable: no validation split (when training starts).
  """
  if super_epoch < 2:
    raise ValueError(f"super_epoch must be at least 2, got {super_epoch}")
  check_choice("variant", variant, VARIANTS)
  build = _Builder(model, tx, variant, rescale)
  return _online(build, super_epoch) if online else _offline(build)
