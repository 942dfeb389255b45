"""DIBS: heads whose latents a discriminator can tell apart, and none of them from the prior.

Sinha, Bharadhwaj, Goyal, Larochelle, Garg and Shkurti, DIBS: Diversity Inducing Information Bottleneck
in Model Ensembles, AAAI 2021. The losses are in `_dibs_losses.py`, the heads in `_stochastic_heads.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, fusion, train
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Batch, Method
from mmfuse.methods.ensembles import _dibs_losses as losses
from mmfuse.methods.ensembles._checks import check_name, check_sizes, check_weights
from mmfuse.methods.ensembles._members import JOINED, Init, Owned, Pass, Predict
from mmfuse.methods.ensembles._shared_trunk import LIKELIHOOD, Likelihood
from mmfuse.methods.ensembles._stochastic_heads import LOGVAR, MEAN, StochasticHeads, by_member
from mmfuse.names import CLASSIFICATION
from mmfuse.tree import FUSED, HEADS

OPPONENT = "discriminator"


@dataclasses.dataclass(frozen=True)
class Generators:
  """Whether a leaf is of an encoder or says a Gaussian: what L_G moves."""

  modalities: tuple[str, ...]

  def __call__(self, path: str) -> bool:
    own = [f"{m}/" for m in self.modalities]
    return path.startswith((*own, *(f"{HEADS}/{FUSED}/{name}/" for name in (MEAN, LOGVAR))))


@dataclasses.dataclass(frozen=True)
class Pairs:
  """weight L_G where `generates`, else -L_D, of new draws of every latent and of the prior."""

  model: Any
  discriminator: losses.PairDiscriminator
  members: int
  width: int
  weight: float
  generates: bool

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock, memory
    pass_key, latent_key, prior_key = jax.random.split(key, 3)
    outputs, _ = Pass(self.model)(variables, batch, pass_key)
    mu, logvar = (by_member(outputs.aux[k], self.members) for k in ("mu", "logvar"))
    # Rows first: the draws of a row do not depend on how many there are.
    rows = batch.weight.shape[0]
    noise = draws.flat(jax.random.normal, latent_key, (rows, 2, self.members, self.width))
    prior = draws.flat(jax.random.normal, prior_key, (rows, 2, self.width))
    latents = losses.draw_latents(mu, logvar, jnp.moveaxis(noise, 0, 2))
    params = {"params": variables["params"][OPPONENT]}

    def judge(a, b):
      return self.discriminator.apply(params, jnp.concatenate([a, b], -1))

    terms = losses.generator_terms if self.generates else losses.discriminator_terms
    found = terms(judge, latents, jnp.moveaxis(prior, 0, 1), batch.weight)
    total = jnp.stack(list(found.values())).sum()
    log = {f"pair/{name}": value for name, value in found.items()}
    return self.weight * total if self.generates else -total, train.Aux(log=log)


def dibs(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  members: int = 4,
  width: int = 32,
  alpha: float = 1.0,
  beta: float = 0.0,
  weight: float = 0.1,
  hidden: tuple[int, ...] = (128, 128),
  joined: str = "vote",
  adversary_tx: optax.GradientTransformation | None = None,
) -> Method:
  r"""Three updates a step, one after the other, each on new draws zt_k ~ N(mu_k(h), Sigma_k(h)) of K heads:

  (a) ascend mean_n \sum_k [alpha log q_k(y | zt_k) - beta KL_k] over encoders, heads and decoders;
  (b) descend weight L_G over encoders and heads; (c) ascend L_D over the discriminator D of pairs,

  L_G = E_{i<j} log D(z_i, z_j) + E_i log(1 - D(r, z_i)) + E_i log(1 - D(z_i, z_i')), r ~ N(0, I),
  L_D = E log D(r, r') + E_{i<j} log D(z_i, z_j) + E_i log(1 - D(r, z_i)), latents being constants.

  So heads become distinguishable while each overlaps the prior, which takes the place of KL. D sees both
  orders of a pair of one row. The prediction is the modal class of the K, zt_k being mu_k, as logarithms
  of the shares of votes (`vote`). Of other labels than classes each yes is voted on, and real numbers
  are averaged. (b) and (c) read no label and keep their rates under `fit(learning_rate=)`. The log has
  each kind of pair, "pair/cross"... Any number of modalities; one head has no pairs to tell apart.

  Args:
    model: a `fusion.LateFusion`; its fusion is replaced by the heads, which read the features side by
      side.
    tx: the optimiser of (a).
    task: what the labels are; default classification.
    members: K, default 4; this and the other defaults are ours, as the paper's were not seen.
    width: L, of a latent, default 32.
    alpha, beta: default 1 and 0: the paper does not optimise KL either.
    weight: of L_G, default .1; 0 leaves the heads alone (`shared_trunk`).
    hidden: layers of D, default (128, 128).
    joined: "vote" (default, paper) or "mean", of the heads' probabilities.
    adversary_tx: the optimiser of (b) and of (c), default Adam, 2e-4, b1 = .5.

  Raises:
    ValueError: a size below 1, a negative weight, an unknown way to join.
    Unavailable: a model that is no `LateFusion`, a modality called "discriminator".
  """
  check_sizes(members=members, width=width, **{f"hidden[{i}]": h for i, h in enumerate(hidden)})
  check_weights(alpha=alpha, beta=beta, weight=weight)
  check_choice("joined", joined, tuple(JOINED))
  check_name(model, OPPONENT)
  model = fusion.with_fusion(model, StochasticHeads(members, width, task, joined), "dibs")
  discriminator = losses.PairDiscriminator(tuple(hidden))
  adversary = optax.adam(2e-4, b1=0.5) if adversary_tx is None else adversary_tx
  pairs = Pairs(model, discriminator, members, width, weight, generates=True)
  players = {
    LIKELIHOOD: train.Player(Owned(OPPONENT, False), Likelihood(model, members, alpha, beta), tx),
    "generator": train.Player(
      Generators(tuple(model.modalities)), pairs, adversary, searched=False
    ),
    OPPONENT: train.Player(
      Owned(OPPONENT, True),
      dataclasses.replace(pairs, generates=False),
      adversary,
      searched=False,
    ),
  }
  init = Init(model, discriminator, OPPONENT, 2 * width)
  return train.alternate(players, init, predict=Predict(model))
