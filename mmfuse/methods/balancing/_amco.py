"""AMCo: adaptive masking of the classes of the dominant branch.

The rule is that of the BalanceBenchmark code (Xu et al., arXiv 2502.10816); its schedule and masks
are in `_amco_masks.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import Method, Objective, label_weight
from mmfuse.methods.balancing._amco_masks import amco_ratio, class_mask, modality_shares, num_masked
from mmfuse.objectives._branches import branch_logits, check_classes
from mmfuse.objectives._mbsd import branch_losses
from mmfuse.tree import FUSED

REFINE = "refine"  # the extra layer's place in the parameters


def refined(model: Any) -> train.Wrapped:
  """logits = (model's logits) K + c: a `core.Model` with one more linear layer C -> C.

  params["refine"] = {"kernel": K [C, C], "bias": c [C]}, the identity and 0 at first, so that
  training starts from the model's own prediction. In training, aux["refine"] is K.
  """
  return train.Wrapped(model, init_fn=_init_refined, heads_fn=_refine, own=REFINE)


def _init_refined(model, key, inputs, mask):
  variables = model.init(key, inputs, mask)
  kept = {"params": variables["params"], "stats": variables.get("batch_stats", {})}
  outputs = jax.eval_shape(lambda: train.outputs_of(model, kept, inputs, mask))
  width = outputs.logits.shape[-1]
  layer = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
  return {**variables, "params": {**variables["params"], REFINE: layer}}


def _refine(model, variables, features, mask, *, train, rngs=None):
  outputs, stats = model.heads(variables, features, mask, train=train, rngs=rngs)
  layer = variables["params"][REFINE]
  aux = {**outputs.aux, REFINE: layer["kernel"]} if train else outputs.aux
  logits = outputs.logits @ layer["kernel"] + layer["bias"].reshape(1, -1)
  return outputs._replace(logits=logits, aux=aux), stats


def _objective(sigma: float, eps: float) -> Objective:
  """Memory: "dominant", the place of the dominant modality in sorted order, -1 = none yet."""

  def init(batch, outputs):
    del batch, outputs
    return {"dominant": jnp.asarray(-1, jnp.int32)}

  def apply(outputs, batch, memory, *, key, clock, **extra):
    del extra
    check_classes(batch.label, "amco")
    branches = branch_logits(outputs)
    width = outputs.logits.shape[-1]
    dominant = jnp.where(clock.batch == 0, -1, memory["dominant"])
    elapsed = clock.batch * clock.epoch / 10.0  # l grows by epoch / 10 a batch, from 0
    keep = class_mask(key, num_masked(amco_ratio(elapsed, eps), width), width)
    masked = sum(
      _masked(z, i, dominant, keep, batch.mask, m) for i, (m, z) in enumerate(branches.items())
    )
    logits = outputs.logits - masked @ outputs.aux[REFINE]
    fused = objectives.weighted_mean(
      objectives.row_losses(logits, batch.label), label_weight(batch)
    )
    shares = modality_shares(jax.lax.stop_gradient(branches), batch.mask, batch.weight)
    top = jnp.argmax(shares).astype(jnp.int32)
    dominant = jnp.where(shares[top] > sigma, top, -1)
    return {FUSED: fused, "branches": branch_losses(branches, batch)}, {"dominant": dominant}

  return Objective(init, apply)


def _masked(z, place, dominant, keep, mask, modality):
  """What the masks take out of the sum of branches [B, C], from rows that have another modality."""
  others = [mask[m] for m in sorted(mask) if m != modality]
  spared = jnp.stack(others).any(0) if others else jnp.zeros_like(mask[modality])
  hidden = (dominant == place) & spared[:, None] & ~keep[None]
  return jnp.where(hidden, z, jnp.zeros((), z.dtype))


def amco(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  sigma: float = 0.5,
  eps: float = 0.3,
) -> Method:
  r"""L = CE((\sum_m z_m - masked) K + c) + \sum_m CE(z_m), z_m the branches of the additive head.

  In batch b of epoch e, int(pt C) random classes of the dominant modality's z are set to 0, pt =
  sin(pi/2 min(eps, l) / eps), l = b e / 10. Dominant is the modality whose share of one softmax
  over all M C branch logits, a mean over the batch before, exceeded sigma; there may be none. A row
  that has no other modality is left alone, and one modality alone is never masked. Classification
  only.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    sigma: default .5 (BalanceBenchmark).
    eps: default .3 (BalanceBenchmark).

  Raises:
    ValueError: sigma outside [0, 1], eps not positive.
    Unavailable: a fused head that is not additive.
  """
  if not 0 <= sigma <= 1:
    raise ValueError(f"sigma must lie in [0, 1], got {sigma}")
  if eps <= 0:
    raise ValueError(f"eps must be positive, got {eps}")
  return train.supervised(refined(model), _objective(sigma, eps), tx)
