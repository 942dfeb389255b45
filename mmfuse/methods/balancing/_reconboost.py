"""ReconBoost: modalities take turns, each learning what the others still get wrong.

Hua, Xu, Bao, Yang and Huang, ReconBoost: Boosting Can Achieve Modality Reconcilement, ICML 2024.
The losses are in `_reconboost_losses.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Clock, Method, label_weight
from mmfuse.methods.balancing._reconboost_losses import agreement_loss, reconboost_loss
from mmfuse.objectives._branches import branch_logits, check_classes
from mmfuse.tree import FUSED, HEADS

RATE = "boost_rate"  # its place in the parameters
VARIANTS = ("released", "attached")


def present_sum(branches, mask):
  """sum of z_m [B, C] over the modalities that a row has."""
  return sum(jnp.where(mask[m][:, None], z, jnp.zeros((), z.dtype)) for m, z in branches.items())


def boosted(model: Any, start: float) -> train.Wrapped:
  r"""logits = boost_rate \sum_m z_m over present m: a `core.Model` with one learned scalar more.

  params["boost_rate"]: float32 scalar, `start` at first. z_m: the branches of the fused head where
  it is additive, else the uni-modal heads. In training, aux["boost_rate"] is the scalar.
  """
  return train.Wrapped(model, init_fn=_Start(start), heads_fn=_boost, own=RATE)


@dataclasses.dataclass(frozen=True)
class _Start:
  """The model's variables and the scalar."""

  rate: float

  def __call__(self, model, key, inputs, mask):
    variables = model.init(key, inputs, mask)
    rate = jnp.asarray(self.rate, jnp.float32)
    return {**variables, "params": {**variables["params"], RATE: rate}}


def _boost(model, variables, features, mask, *, train, rngs=None):
  """The model's outputs with the boosted sum as fused logits."""
  outputs, stats = model.heads(variables, features, mask, train=train, rngs=rngs)
  rate = variables["params"][RATE]
  logits = rate * present_sum(branch_logits(outputs), mask)
  aux = {**outputs.aux, RATE: rate} if train else outputs.aux
  return outputs._replace(logits=logits, aux=aux), stats


def turn(clock: Clock, num_modalities: int) -> tuple[jax.Array, jax.Array]:
  """(place of the active modality, whether it is boosted alone): epochs 0, 2, 4... and between."""
  stage = clock.epoch % (2 * num_modalities)
  return stage // 2, stage % 2 == 0


def _objective(own: float, residual: float, alpha: float, variant: str):
  def objective(outputs, batch, *, clock, **extra):
    del extra
    check_classes(batch.label, "reconboost")
    branches = branch_logits(outputs)
    names = sorted(branches)
    active, alone = turn(clock, len(names))
    known = label_weight(batch)
    total = objectives.weighted_mean(objectives.row_losses(outputs.logits, batch.label), known)
    total = jnp.where(alone, 0.0, total)
    for i, m in enumerate(names):
      others = {j: z for j, z in branches.items() if j != m}
      ensemble = outputs.aux[RATE] * present_sum(others, batch.mask)
      ensemble = jnp.broadcast_to(ensemble, branches[m].shape)
      rows = reconboost_loss(branches[m], ensemble, batch.label, own=own, residual=residual)
      loss = objectives.weighted_mean(rows, jnp.where(batch.mask[m], known, 0.0))
      before = names[i - 1]
      # The agreement reads no label.
      both = jnp.where(batch.mask[before] & batch.mask[m], batch.weight, 0.0)
      agreement = objectives.weighted_mean(
        agreement_loss(branches[m], branches[before], attached=variant == "attached"), both
      )
      loss += jnp.where(clock.epoch >= 2 * len(names), alpha, 0.0) * agreement
      total += jnp.where(alone & (active == i), loss, 0.0)
    return {FUSED: total}

  return objective


def hold_untouched(tx: optax.GradientTransformation, num_modalities: int):
  """`tx`, but while one modality is boosted alone, leaves that got no gradient do not move.

  Momentum would otherwise carry on the encoders whose turn it is not. In a head that all branches
  share (concat), columns of features that got none are held.
  """
  tx = optax.with_extra_args_support(tx)

  def update(grads, state, params=None, *, clock, **extra_args):
    updates, state = tx.update(grads, state, params, clock=clock, **extra_args)
    alone = turn(clock, num_modalities)[1]
    still = lambda g: ~jnp.any(g != 0, axis=tuple(range(1, g.ndim)), keepdims=True)
    whole = lambda g: ~jnp.any(g != 0)

    def hold(path, g, u):
      silent = still(g) if getattr(path[0], "key", None) == HEADS and g.ndim > 1 else whole(g)
      return jnp.where(alone & silent, jnp.zeros_like(u), u)

    return jax.tree_util.tree_map_with_path(hold, grads, updates), state

  return optax.GradientTransformationExtraArgs(tx.init, update)


def reconboost(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  own: float = 5.0,
  residual: float = 1.0,
  alpha: float = 0.5,
  boost_rate: float = 0.01,
  variant: str = "released",
) -> Method:
  r"""For each modality in turn, an epoch on it alone and an epoch of CE(boost_rate \sum_m z_m).

  Alone: `reconboost_loss` of z_m given boost_rate times the sum of the others, plus, from the
  second round on, alpha times `agreement_loss` with the modality before. Only what the loss of the
  active modality reaches moves then (statistics of batch norm, and the running linear probes in the
  uni-modal heads, go on). A round takes 2 M epochs, each counting as one of the budget: with any
  other number of epochs the first modalities have had one turn more. Classification only; a
  modality alone is boosted against a uniform ensemble.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    own, residual, alpha: weights 5, 1, .5 (BalanceBenchmark); boost_rate: start, .01.
    variant: "released": the agreement term carries no gradient, as in that code, and alpha shows in
      the logged loss alone; "attached": it
      pulls the active modality.

  Raises:
    ValueError: an unknown variant.
  """
  if variant not in VARIANTS:
    raise ValueError(f"unknown variant {variant!r}; expected one of: {', '.join(VARIANTS)}")
  tx = hold_untouched(tx, len(model.modalities))
  objective = _objective(own, residual, alpha, variant)
  return train.supervised(boosted(model, boost_rate), objective, tx)
