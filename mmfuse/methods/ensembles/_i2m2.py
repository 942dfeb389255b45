"""I2M2: a product of one expert per modality and one joint expert.

Madaan, Makino, Chopra and Cho, Jointly Modeling Inter- & Intra-Modality Dependencies for
Multi-modal Learning, NeurIPS 2024. The model is in `_experts.py`. `inter`, the joint expert alone, is
another name of the method `joint`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Method, State
from mmfuse.fusion import mix_experts
from mmfuse.methods.ensembles._experts import JOINT, Experts, complete, experts_of
from mmfuse.objectives._branches import check_classes

TESTS = ("product", "mixture")


def product_loss(outputs, batch, **extra):
  """-mean log p(y) of the product; each expert's own loss beside it, without a gradient.

  Named, they are in the log, and no probe is fitted to heads that the product itself trains.
  """
  del extra
  check_classes(batch.label, "i2m2")
  own = objectives.unimodal(outputs, batch)
  return {**objectives.fused(outputs, batch), **jax.lax.stop_gradient(own)}


def _joint_loss(outputs, batch, **extra):
  """The fused loss over the rows that have the joint expert.

  The uni-modal losses are named without a gradient: probes would count in a clipped norm.
  """
  weight = jnp.where(complete(batch.mask), batch.weight, 0.0)
  own = jax.lax.stop_gradient(objectives.unimodal(outputs, batch))
  return {**objectives.fused(outputs, batch._replace(weight=weight), **extra), **own}


def _joint_logits(outputs, mask):
  there = complete(mask)[:, None]
  return outputs._replace(logits=jnp.where(there, outputs.logits, 0.0))


def _own_logits(modality: str, outputs, mask):
  own = outputs.unimodal_logits[modality]
  return outputs._replace(logits=jnp.where(mask[modality][:, None], own, 0.0))


@dataclasses.dataclass(frozen=True)
class _Expert:
  """The lens of one expert, a modality or "joint", in the state of all."""

  experts: Experts
  name: str

  def take(self, state: State) -> State:
    take = functools.partial(self.experts.take, name=self.name)
    return state._replace(params=take(state.params), stats=take(state.stats, stats=True))

  def put(self, state: State, own: State) -> State:
    put = functools.partial(self.experts.put, name=self.name)
    return own._replace(
      params=put(state.params, own=own.params), stats=put(state.stats, own=own.stats, stats=True)
    )


def _expert_method(name: str, model: Any, tx) -> Method:
  """An expert alone, on the rows that have it."""
  label = f"expert_{name}"
  if name == JOINT:
    return train.supervised(model, _joint_loss, tx, predict=_joint_logits, name=label)
  own = functools.partial(_own_logits, name)
  return train.supervised(model, objectives.unimodal, tx, name=label, predict=own)


def _mixture(outputs, mask):
  return outputs._replace(logits=mix_experts(outputs.unimodal_logits, mask))


def _check(experts: Experts, expert_tx, tune_share, pretrained: bool) -> None:
  names = [name for name, _ in experts.each()]
  unknown = sorted(set(expert_tx or {}) - set(names))
  if unknown:
    raise ValueError(f"no expert {unknown[0]!r} for its optimiser; expected: {', '.join(names)}")
  if not pretrained and (expert_tx or tune_share is not None):
    raise ValueError("expert_tx and tune_share are for pretrained experts, got pretrained=False")
  if tune_share is not None and not 0 < tune_share < 1:
    raise ValueError(f"tune_share must lie in (0, 1), got {tune_share}")


def _build(experts: Experts, tx, pretrained: bool, expert_tx, tune_share, predict=None) -> Method:
  _check(experts, expert_tx, tune_share, pretrained)
  tuned = train.supervised(experts, product_loss, tx, predict=predict)
  if not pretrained:
    return tuned
  count = len(experts.each())
  last = 1.0 / (count + 1) if tune_share is None else tune_share
  txs = {name: (expert_tx or {}).get(name, tx) for name, _ in experts.each()}
  alone = {name: _expert_method(name, model, txs[name]) for name, model in experts.each()}

  def init(key, batch, num_rows):
    state = tuned.init(key, batch, num_rows)
    # Shapes of the optimiser and the objective; the weights are those of `state`.
    for name, own in alone.items():
      empty = own.init(key, batch, num_rows)
      own_tx = txs[name].init(experts.take(state.params, name))
      opt = {k: {**v, "tx": own_tx} for k, v in empty.opt.items()}
      state = state._replace(opt={**state.opt, **opt}, memory={**state.memory, **empty.memory})
    return state

  phases = []
  for name, own in alone.items():
    seen = train.lift(own, _Expert(experts, name))
    phases.append(train.only_phase(seen)._replace(predict=seen.predict, share=(1.0 - last) / count))
  end = train.only_phase(tuned)._replace(share=last)
  return tuned._replace(init=init, phases=(*phases, end))


def i2m2(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  joint: Any | None = None,
  pretrained: bool = True,
  expert_tx: Mapping[str, optax.GradientTransformation] | None = None,
  tune_share: float | None = None,
) -> Method:
  r"""Phases "expert_<m>" and "expert_joint", then "train": all of them, end to end, with

  L = -mean log p(y), p(c) \propto \prod_m softmax(z_m)_c softmax(g)_c.

  The experts are complete networks without shared weights. Each is trained alone on the rows that
  have it, and the state of its best validation epoch goes into the product. The M + 2 phases have
  equal shares of the epochs, so the examples seen equal those of any other method. A row that lacks
  a modality lacks its expert and the joint one, in the loss and in the prediction; without any
  modality it is uniform. Classification only; any number of modalities, any fusion.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    joint: the model of the joint expert, default `model` itself (its own copy of the weights).
    pretrained: False trains the product from scratch in one phase, as the MIMIC script does.
    expert_tx: {expert: optimiser of its own phase}, for "joint" or a modality; default `tx`.
    tune_share: share of the epochs of the last phase, default 1 / (M + 2); the experts' phases have
      equal parts of the rest.

  Raises:
    ValueError: a joint expert with other modalities, an unknown expert. Unavailable: a model that cannot be
    restricted to a modality, or a modality called "joint".
  """
  experts = experts_of(model, model if joint is None else joint)
  return _build(experts, tx, pretrained, expert_tx, tune_share)


def intra(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  pretrained: bool = True,
  test: str = "product",
  expert_tx: Mapping[str, optax.GradientTransformation] | None = None,
  tune_share: float | None = None,
) -> Method:
  r"""The product of the uni-modal experts alone: p(c) \propto \prod_m softmax(z_m)_c.

  Phases, shares, rows, options and errors as in `i2m2`, without its joint expert.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    test: "product" (default) predicts what was trained; "mixture" the mean of the experts'
      probabilities, as the released AV-MNIST and MIMIC scripts do.
    pretrained, expert_tx, tune_share: as there; tune_share defaults to 1 / (M + 1).

  Raises:
    ValueError: an unknown test.
  """
  if test not in TESTS:
    raise ValueError(f"unknown test {test!r}; expected one of: {', '.join(TESTS)}")
  predict = _mixture if test == "mixture" else None
  return _build(experts_of(model, None), tx, pretrained, expert_tx, tune_share, predict)
