"""Diverse representations: networks that solve the task by features independent of each other.

Pace, Russo and Shanahan, Learning Diverse Representations for Fast Adaptation to Distribution Shift,
arXiv 2006.07119, 2020. From the abstract: the body of the paper could not be read, so that estimators,
sizes and weights are ours. The estimators are in `_total_correlation.py`, the batches in `_balanced.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, train
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Batch, Method, label_weight
from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._features import vectors
from mmfuse.methods.ensembles import _total_correlation as tc
from mmfuse.methods.ensembles._balanced import BalancedRows
from mmfuse.methods.ensembles._checks import check_name, check_sizes, check_weights
from mmfuse.methods.ensembles._copies import Copies
from mmfuse.methods.ensembles._members import MEMBERS, Init, Owned, Pass, Predict, member_losses
from mmfuse.methods.ensembles._stochastic_heads import by_member
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives._branches import check_classes

OPPONENT = "critic"


class FinalFeatures(nn.Module):
  r"""logits = W z + b, z = tanh(V [h_1; ...; h_M] + c) [B, d]: few and bounded features.

  `(features {m: [B, ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], {"latent": z})`.
  width: d.
  """

  width: int

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    h = concat_vectors(vectors(features, mask))
    z = jnp.tanh(nn.Dense(self.width, name="final")(h))
    return nn.Dense(num_classes, name="out")(z), {"latent": z}


@dataclasses.dataclass(frozen=True)
class Independent:
  """The critic's loss or, not `criticises`, \\sum_n CE_n + lam TC_hat under the critic as it is."""

  model: Copies
  critic: tc.CriticNetwork
  num_classes: int
  kind: str
  lam: float
  criticises: bool

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock, memory
    check_classes(batch.label, "diverse")
    pass_key, draw_key = jax.random.split(key)
    forward, weight = Pass(self.model), label_weight(batch)
    outputs, stats = forward(variables, batch, pass_key)
    z = by_member(outputs.aux["latent"], self.model.number)
    z = jax.lax.stop_gradient(z) if self.criticises else z
    # Rows that do not count are a class of their own: no other row is exchanged for one of them.
    apart = jnp.where(weight > 0, batch.label, self.num_classes)
    perms = tc.permute_within_classes(draw_key, apart, self.model.number)
    params = {"params": variables["params"][OPPONENT]}

    def critic(z, label):
      return self.critic.apply(params, tc.beside_label(z, label, self.num_classes))

    found = tc.judged(critic, z, batch.label, perms)
    estimate = tc.ESTIMATORS[self.kind](*found, weight)
    if self.criticises:
      return tc.critic_loss(self.kind, *found, weight), train.Aux(log={"estimate": estimate})
    errors = member_losses(outputs.aux[MEMBERS], batch.label, weight).sum()
    after = {**variables, "batch_stats": stats}
    total = errors + self.lam * estimate + forward.probe(after, outputs, batch, pass_key)
    return total, train.Aux(stats, log={"errors": errors, "total_correlation": estimate})


def diverse(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  members: int = 2,
  width: int = 4,
  lam: float = 1.0,
  estimator: str = "dv",
  critic_steps: int = 2,
  hidden: tuple[int, ...] = (64, 64),
  balanced: bool = True,
  critic_tx: optax.GradientTransformation | None = None,
) -> Method:
  r"""L = \sum_n CE_n + lam TC_hat(z_1, ..., z_N | y) of N networks, after `critic_steps` of a critic T.

  z_n = tanh(V h_n + c) [B, d] are the final features of network n, which shares nothing with the others.
  TC = KL(p(z_1, ..., z_N | y) || \prod_n p(z_n | y)), of two networks I(z_1; z_2 | y), is estimated of joint
  samples and from rows of z_2, ..., z_N permuted within their class in the batch: DV = E T - log E e^T,
  NWJ = E T - E e^{T - 1}, or the log ratio of densities. What diversity is good for shows where a linear
  head is fitted to all features on a few rows of a shifted distribution (`metrics.adaptation`), not in
  the networks' own predictions, which are averaged. The critic keeps its rate under
  `fit(learning_rate=)`. One class a row; any number of modalities.

  Args:
    model: a `fusion.LateFusion`; its fusion is replaced by z_n and a linear head.
    tx: the optimiser of the networks.
    members: N, default 2; this and the other defaults are ours, as the paper's were not seen.
    width: d, default 4: the estimate is of N d columns.
    lam: default 1; 0 trains N networks by themselves, beside a critic that nobody listens to.
    estimator: "dv" (default), "nwj", or "dre", the density ratio, whose numbers behave best.
    critic_steps: of the critic before each step of the networks, on the same batch; default 2.
    hidden: layers of the critic, default (64, 64).
    balanced: batches hold as many rows of each class, rare ones more than once an epoch (default),
      since a row that is alone in its class is exchanged for itself; False: as any other method.
    critic_tx: the optimiser of the critic, default Adam, 1e-3.

  Raises:
    ValueError: a size below 1, a negative weight, an unknown estimator; other labels than classes.
    Unavailable: a model that is no `LateFusion`, a modality called "critic".
  """
  sizes = {"members": members, "width": width, "critic_steps": critic_steps}
  check_sizes(**sizes, **{f"hidden[{i}]": h for i, h in enumerate(hidden)})
  check_weights(lam=lam)
  check_choice("estimator", estimator, tuple(tc.ESTIMATORS))
  check_name(model, OPPONENT)
  own = fusion.with_fusion(model, FinalFeatures(width), "diverse")
  copies = Copies(own, members, CLASSIFICATION)
  critic = tc.CriticNetwork(tuple(hidden), shifts=estimator != "dv")
  loss = Independent(copies, critic, own.num_classes, estimator, lam, criticises=False)
  own_tx = optax.adam(1e-3) if critic_tx is None else critic_tx
  players = {
    OPPONENT: train.Player(
      Owned(OPPONENT, True),
      dataclasses.replace(loss, criticises=True),
      own_tx,
      steps=critic_steps,
      searched=False,
    ),
    "networks": train.Player(Owned(OPPONENT, False), loss, tx),
  }
  init = Init(copies, critic, OPPONENT, members * width + own.num_classes)
  method = train.alternate(players, init, predict=Predict(copies))
  if not balanced:
    return method
  return method._replace(phases=(train.only_phase(method)._replace(rows=BalancedRows()),))
