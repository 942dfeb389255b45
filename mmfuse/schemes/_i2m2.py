"""I2M2: a product of one expert per modality and one joint expert.

Madaan, Makino, Chopra and Cho, Jointly Modeling Inter- & Intra-Modality Dependencies for
Multi-modal Learning, NeurIPS 2024. The product is in `fusion/_experts.py`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Method, Outputs, Phase, Unavailable
from mmfuse.fusion import LateFusion, combine_experts, mix_experts
from mmfuse.objectives._branches import check_classes
from mmfuse.schemes import _common

ALONE, JOINT = "alone", "joint"
TESTS = ("product", "mixture")


class _NoFusion(nn.Module):
  """The fused head of an expert that has one modality and a head for it: none."""

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    rows = next(iter(features.values())).shape[0]
    return jnp.zeros((rows, num_classes)), None


def _alone(model: Any, modality: str) -> Any:
  """The model on one modality, of which the uni-modal logits are used."""
  if isinstance(model, LateFusion):  # whose fused head need not exist on one modality
    encoders = {modality: model.encoders[modality]}
    return dataclasses.replace(model, encoders=encoders, fusion=_NoFusion())
  if model.restrict is None:
    raise Unavailable("its uni-modal experts need a model that can be restricted to one modality")
  return model.restrict((modality,))


def complete(mask) -> jax.Array:
  """bool [B]: the rows that have all modalities, hence the joint expert."""
  return functools.reduce(jnp.logical_and, mask.values())


@dataclasses.dataclass(frozen=True)
class Experts:
  r"""log p(c | x) = log softmax(\sum_m log softmax(z_m) + log softmax(g)): a `core.Model`.

  Complete networks that share nothing: `alone` ((m, model of that modality), ...), whose head gives
  z_m [B, C], and `joint`, a model of all modalities whose fused head gives g [B, C], or None. A row
  without modality m lacks expert m and the joint one, which needs all of them.

  params: {m: {"alone": all of expert m, "joint": encoder m of the joint expert}, ...} and the rest
  of the joint expert (its "heads") as it is, so that every leaf of one modality is under its name;
  batch_stats: {"alone": {m: ...}, "joint": ...}. Outputs: the product as logits [B, C], z_m as
  uni-modal logits, g as aux["joint"] [B, C], features {m: {"alone": ..., "joint": ...}}.
  The uni-modal heads that the joint model also has are in no expert.
  """

  alone: tuple[tuple[str, Any], ...]
  joint: Any | None

  @property
  def modalities(self) -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(m for m, _ in self.alone)

  def restrict(self, modalities) -> "Experts":
    """The experts of fewer modalities, and the joint model restricted to them."""
    joint = None if self.joint is None else self.joint.restrict(modalities)
    return Experts(tuple((m, e) for m, e in self.alone if m in modalities), joint)

  def take(self, tree, name: str, *, stats: bool = False):
    """The parameters (or statistics) of an expert, a modality or "joint", as its model has them."""
    if stats:
      return tree[JOINT] if name == JOINT else tree[ALONE][name]
    if name != JOINT:
      return tree[name][ALONE]
    names = self.modalities
    return {k: v[JOINT] if k in names else v for k, v in tree.items()}

  def put(self, tree, name: str, own, *, stats: bool = False):
    """`tree` with what `take` took replaced by `own`."""
    if stats:
      return {**tree, JOINT: own} if name == JOINT else {**tree, ALONE: {**tree[ALONE], name: own}}
    if name != JOINT:
      return {**tree, name: {**tree[name], ALONE: own}}
    names = self.modalities
    return {**tree, **{k: {**tree[k], JOINT: v} if k in names else v for k, v in own.items()}}

  def init(self, key, inputs, mask):
    """The joint expert starts as that model would from `key`, the others apart from it."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {ALONE: {}}
    if self.joint is not None:
      variables = self.joint.init(key, inputs, mask)
      stats[JOINT] = variables.get("batch_stats", {})
      names = self.modalities
      params = {k: {JOINT: v} if k in names else v for k, v in variables["params"].items()}
    apart = jax.random.fold_in(key, 1)
    for m, expert in self.alone:
      variables = expert.init(apart, {m: inputs[m]}, {m: mask[m]})
      params[m] = {**params.get(m, {}), ALONE: variables["params"]}
      stats[ALONE][m] = variables.get("batch_stats", {})
    return {"params": params, "batch_stats": stats}

  def each(self) -> tuple:
    """((name, model), ...), the joint one last."""
    joint = () if self.joint is None else ((JOINT, self.joint),)
    return (*self.alone, *joint)

  def _variables(self, variables, name):
    return {"params": self.take(variables["params"], name),
            "batch_stats": self.take(variables["batch_stats"], name, stats=True)}

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: {"alone": features, "joint": features}}, batch_stats)."""
    stats = variables["batch_stats"]
    features: dict[str, Any] = {m: {} for m in self.modalities}
    for name, expert in self.each():
      seen = expert.modalities
      found, new = expert.encode(
          self._variables(variables, name), {m: inputs[m] for m in seen},
          {m: mask[m] for m in seen}, train=train, rngs=rngs)
      stats = self.put(stats, name, new, stats=True)
      for m in seen:
        features[m][JOINT if name == JOINT else ALONE] = found[m]
    return features, stats

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, batch_stats)."""
    stats = variables["batch_stats"]
    logits, present = {}, {m: mask[m] for m in self.modalities}
    for name, expert in self.each():
      seen = expert.modalities
      part = JOINT if name == JOINT else ALONE
      outputs, new = expert.heads(
          self._variables(variables, name), {m: features[m][part] for m in seen},
          {m: mask[m] for m in seen}, train=train, rngs=rngs)
      stats = self.put(stats, name, new, stats=True)
      logits[name] = outputs.logits if name == JOINT else outputs.unimodal_logits[name]
    unimodal = {m: logits[m] for m in self.modalities}
    aux = {}
    if self.joint is not None:
      present[JOINT] = complete(present)
      aux[JOINT] = logits[JOINT]
    return Outputs(combine_experts(logits, present), unimodal, features, aux), stats


def experts_of(model: Any, joint: Any | None) -> Experts:
  """One expert per modality of `model` and, unless None, the joint one."""
  names = tuple(sorted(model.modalities))
  if JOINT in names:
    raise Unavailable(f"a modality named {JOINT!r} cannot be told from the joint expert; rename it")
  if joint is not None and tuple(sorted(joint.modalities)) != names:
    raise ValueError(f"the joint expert must have the modalities {', '.join(names)}, "
                     f"got {', '.join(sorted(joint.modalities))}")
  return Experts(tuple((m, _alone(model, m)) for m in names), joint)


def product_loss(outputs, batch, **extra):
  """-mean log p(y) of the product; each expert's own loss beside it, without a gradient.

  Named, they are in the log, and no probe is fitted to heads that the product itself trains.
  """
  del extra
  check_classes(batch.label, "i2m2")
  own = objectives.unimodal(outputs, batch)
  return {**objectives.fused(outputs, batch), **jax.lax.stop_gradient(own)}


def _joint_loss(outputs, batch, **extra):
  """The fused loss over the rows that have the joint expert."""
  weight = jnp.where(complete(batch.mask), batch.weight, 0.0)
  return objectives.fused(outputs, batch._replace(weight=weight), **extra)


def _joint_logits(outputs, mask):
  there = complete(mask)[:, None]
  return outputs._replace(logits=jnp.where(there, outputs.logits, 0.0))


def _own_logits(modality: str, outputs, mask):
  own = outputs.unimodal_logits[modality]
  return outputs._replace(logits=jnp.where(mask[modality][:, None], own, 0.0))


def _part(state, experts: Experts, name: str):
  return state._replace(params=experts.take(state.params, name),
                        stats=experts.take(state.stats, name, stats=True))


def _expert_phase(experts: Experts, name: str, model: Any, tx, share: float) -> tuple[Phase, Method]:
  """(phase that trains one expert and leaves the others as they are, that expert's own method)."""
  label = f"expert_{name}"
  if name == JOINT:
    own = train.supervised(model, _joint_loss, tx, predict=_joint_logits, name=label)
  else:
    own = train.supervised(model, objectives.unimodal, tx, name=label,
                           predict=functools.partial(_own_logits, name))
  inner = _common.only_phase(own)

  def step(state, batch, key, clock):
    after, log = inner.step(_part(state, experts, name), batch, key, clock)
    return after._replace(
        params=experts.put(state.params, name, after.params),
        stats=experts.put(state.stats, name, after.stats, stats=True)), log

  def predict(state, inputs, mask):
    return own.predict(_part(state, experts, name), inputs, mask)

  return Phase(label, step, predict=predict, share=share), own


def _mixture(outputs, mask):
  return outputs._replace(logits=mix_experts(outputs.unimodal_logits, mask))


def _build(experts: Experts, tx, pretrained: bool, predict=None) -> Method:
  tuned = train.supervised(experts, product_loss, tx, predict=predict)
  if not pretrained:
    return tuned
  share = 1.0 / (len(experts.each()) + 1)
  parts = {name: _expert_phase(experts, name, model, tx, share)
           for name, model in experts.each()}

  def init(key, batch):
    state = tuned.init(key, batch)
    # Shapes of the optimiser and the objective; the weights are those of `state`.
    for name, (_, own) in parts.items():
      empty = own.init(key, batch)
      opt = {k: {"tx": tx.init(experts.take(state.params, name))} for k in empty.opt}
      state = state._replace(opt={**state.opt, **opt}, memory={**state.memory, **empty.memory})
    return state

  last = _common.only_phase(tuned)._replace(share=share)
  return tuned._replace(init=init, phases=(*(phase for phase, _ in parts.values()), last))


def i2m2(
    model: Any,
    learning_rate: float = 0.03,
    *,
    tx: optax.GradientTransformation | None = None,
    joint: Any | None = None,
    pretrained: bool = True,
) -> Method:
  r"""Phases "expert_<m>" and "expert_joint", then "train": all of them, end to end, with

  L = -mean log p(y), p(c) \propto \prod_m softmax(z_m)_c softmax(g)_c.

  The experts are complete networks without shared weights. Each is trained alone on the rows that
  have it, and the state of its best validation epoch goes into the product. The M + 2 phases have
  equal shares of the epochs, so the examples seen equal those of any other method. A row that lacks
  a modality lacks its expert and the joint one, in the loss and in the prediction; without any
  modality it is uniform. Classification only; any number of modalities, any fusion.

  Args:
    joint: the model of the joint expert, default `model` itself (its own copy of the weights).
    pretrained: False trains the product from scratch in one phase, as the MIMIC script does.

  Raises:
    ValueError: a joint expert with other modalities. Unavailable: a model that cannot be
    restricted to a modality, or a modality called "joint".
  """
  tx = _common.optimiser(tx, learning_rate)
  return _build(experts_of(model, model if joint is None else joint), tx, pretrained)


def intra(
    model: Any,
    learning_rate: float = 0.03,
    *,
    tx: optax.GradientTransformation | None = None,
    pretrained: bool = True,
    test: str = "product",
) -> Method:
  r"""The product of the uni-modal experts alone: p(c) \propto \prod_m softmax(z_m)_c.

  Phases, shares, rows and errors as in `i2m2`, without its joint expert.

  Args:
    test: "product" (default) predicts what was trained; "mixture" the mean of the experts'
      probabilities, as the released AV-MNIST and MIMIC scripts do.

  Raises:
    ValueError: an unknown test.
  """
  if test not in TESTS:
    raise ValueError(f"unknown test {test!r}; expected one of: {', '.join(TESTS)}")
  tx = _common.optimiser(tx, learning_rate)
  return _build(experts_of(model, None), tx, pretrained, _mixture if test == "mixture" else None)


def inter(
    model: Any,
    learning_rate: float = 0.03,
    *,
    tx: optax.GradientTransformation | None = None,
) -> Method:
  """The joint expert alone: CE(g), ordinary fusion, which the index also has as `joint`.

  Absent modalities are zeros to it, as nothing else is left to predict with.
  """
  return train.supervised(model, objectives.fused, _common.optimiser(tx, learning_rate))
