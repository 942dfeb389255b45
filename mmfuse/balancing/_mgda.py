"""MGDA: the min-norm convex combination of the objectives' gradients. An aggregator.

Sener and Koltun: "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018, after
Desideri, 2012.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.balancing import _groups
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._min_norm import min_norm

_NORMALIZE = ("none", "l2", "loss", "loss+")


class MgdaState(NamedTuple):
  """What the min-norm solver decided last."""

  weights: jax.Array  # [K], multiplier of each gradient: simplex weight over s_k


def mgda_weights(
  gram,
  losses=None,
  present=None,
  *,
  normalize: str = "none",
  clip_ends: bool = False,
) -> tuple[jax.Array, jax.Array]:
  r"""(simplex weights w [K], multipliers w_k / s_k [K]) of the normalised gradients g_k / s_k.

  Args:
    gram: A = G G^T [K, K].
    losses: [K], for "loss" (s_k = L_k) and "loss+" (s_k = L_k |g_k|); "l2": s_k = |g_k|.
    present: bool [K].
    normalize: "none" | "l2" | "loss" | "loss+".
    clip_ends: the end points .999 / .001 and the solver of the released code.
  """
  num = gram.shape[0]
  here = _groups.everyone(present, num)
  scale = jnp.ones(num, jnp.float32)
  if normalize in ("l2", "loss+"):
    scale = scale * jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
  if normalize in ("loss", "loss+"):
    if losses is None:
      raise TypeError(f"MGDA with normalize={normalize!r} needs the extra argument losses=[K]")
    scale = scale * losses.astype(jnp.float32)
  scale = jnp.where(here & (scale > 0), scale, 1.0)
  weights = min_norm(gram / (scale[:, None] * scale[None, :]), here, clip_ends=clip_ends)
  return weights, weights / scale


def aggregate_by_mgda(
  num_objectives: int,
  *,
  normalize: str = "none",
  clip_ends: bool = False,
  scope: str = "global",
  rescale: str = "none",
) -> Aggregator:
  r"""d = \sum_k w_k g_k / s_k, w = argmin |\sum_k w_k g_k / s_k|^2 on the simplex.

  Gradients [K, *param] -> [*param]. d . g_k >= |d|^2 for every k (with s = 1): a descent direction
  for all, or zero at a Pareto-stationary point. An objective with a zero gradient takes all the
  weight, so d = 0.

  Args:
    num_objectives: K >= 1.
    normalize: "none", "l2" (s = |g|), "loss" (s = L) or "loss+" (s = L |g|). The normalised
      gradients are also the ones combined, as in the LibMTL code, so it changes the update's scale.
    clip_ends: False = the exact minimum; True = the released solver with ends .999 / .001.
    scope: "global" = one Gram matrix over all shared parameters; "encoder" = one per encoder (its
      fused and own objective) and one for the rest. Needs owners.
    rescale: "none" = a convex combination, about 1/K of the sum's scale; "sum" = times the number
      of present objectives, comparable with the uniform sum at one learning rate.

  With `owners`, heads keep their own plain gradient and are left out of the Gram matrix.

  Raises:
    ValueError: an unknown option, gradients of another K.
    TypeError: `losses` missing where the normalisation needs them.
  """
  num_objectives = _groups.check_count(num_objectives)
  _groups.check_choice("normalize", normalize, _NORMALIZE)
  _groups.check_choice("scope", scope, _groups.SCOPES)
  _groups.check_choice("rescale", rescale, _groups.RESCALE)

  def init_fn(params):
    del params
    return MgdaState(_groups.uniform_weights(num_objectives))

  def update_fn(
    updates, state, params=None, *, losses=None, owners=None, present=None, **extra_args
  ):
    del state, params, extra_args
    _groups.check_stacked(updates, num_objectives)

    def weigh(gram, rows, here):
      own_losses = None if losses is None else losses[jnp.array(rows)]
      multipliers = mgda_weights(gram, own_losses, here, normalize=normalize, clip_ends=clip_ends)[
        1
      ]
      return _groups.rescaled(multipliers, here, rescale)

    direction, weights = _groups.aggregate(
      weigh, updates, owners, _groups.everyone(present, num_objectives), scope
    )
    return direction, MgdaState(weights)

  return Aggregator(init_fn, update_fn)
