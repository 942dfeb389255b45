"""Shared trunk: the heads of DIBS without its adversary, the baseline that it is measured by."""

import dataclasses
from typing import Any

import jax
import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Batch, Method, label_weight
from mmfuse.methods.ensembles._checks import check_sizes, check_weights
from mmfuse.methods.ensembles._dibs_losses import bottleneck
from mmfuse.methods.ensembles._members import MEMBERS, Init, Pass, Predict
from mmfuse.methods.ensembles._stochastic_heads import StochasticHeads, by_member
from mmfuse.names import CLASSIFICATION

LIKELIHOOD = "likelihood"


@dataclasses.dataclass(frozen=True)
class Likelihood:
  """-L of `bottleneck`, and the loss of the uni-modal heads, which the trunk does not see."""

  model: Any
  members: int
  alpha: float = 1.0
  beta: float = 0.0

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock, memory
    forward = Pass(self.model)
    outputs, stats = forward(variables, batch, key)
    each = jax.vmap(lambda z: objectives.row_losses(z, batch.label), 1, 0)
    mu, logvar = (by_member(outputs.aux[k], self.members) for k in ("mu", "logvar"))
    gained = bottleneck(
      each(outputs.aux[MEMBERS]),
      objectives.kl_losses(mu, logvar),
      (label_weight(batch), batch.weight),
      self.alpha,
      self.beta,
    )
    after = {**variables, "batch_stats": stats}
    probe = forward.probe(after, outputs, batch, key)
    return probe - gained, train.Aux(stats, log={LIKELIHOOD: gained})


def everything(path: str) -> bool:
  """Every leaf."""
  del path
  return True


def shared_trunk(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  members: int = 4,
  width: int = 32,
  beta: float = 0.0,
) -> Method:
  r"""L = \sum_k CE(q_k(zt_k)), zt_k ~ N(mu_k(h), Sigma_k(h)): K stochastic heads on shared encoders.

  `dibs` with weight=0: each head is trained by itself, and what the trunk learns is all that ties them.
  They are averaged, p = (1/K) \sum_k p_k at zt_k = mu_k. Any labels, any number of modalities.

  Args:
    model: a `fusion.LateFusion`; its fusion is replaced.
    tx: the optimiser of all its parameters.
    task: what the labels are; default classification.
    members: K, default 4 (as in `dibs`).
    width: L, of each latent, default 32.
    beta: of KL(zt_k || N(0, I)), default 0.

  Raises:
    ValueError: a size below 1, a negative weight. Unavailable: a model that is no `LateFusion`.
  """
  check_sizes(members=members, width=width)
  check_weights(beta=beta)
  heads = StochasticHeads(members, width, task, "mean")
  model = fusion.with_fusion(model, heads, "shared_trunk")
  player = train.Player(everything, Likelihood(model, members, beta=beta), tx)
  return train.alternate({LIKELIHOOD: player}, Init(model), predict=Predict(model))
