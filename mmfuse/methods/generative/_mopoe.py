r"""MoPoE: a mixture, over all subsets of modalities, of the product of each subset's experts.

Sutter, Daunhawer, Vogt: "Generalized Multimodal ELBO", ICLR 2021.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import draws, objectives
from mmfuse.core import Clock, Method
from mmfuse.masks import combinations
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import products
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._mixture import Mixture, mixture
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen, total, warmed_by
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives import kl_losses


class Subsets(NamedTuple):
  """The components of every row."""

  mu: jax.Array  # [S, B, L]
  lv: jax.Array  # [S, B, L]
  available: jax.Array  # bool [S, B]: the row has all modalities of the subset


def table(number: int) -> np.ndarray:
  """bool [S, M]: all non-empty subsets, (0), (1), ..., (0, 1), ..., the whole set last."""
  names = [str(m) for m in range(number)]
  return np.array([[m in s for m in names] for s in combinations(names)])


def subset_posteriors(seen: Seen) -> Subsets:
  """q_S, the product of the experts of S; N(0, 1) is one more where S is all that the row has.

  That the prior stands in the whole set alone is a detail of the authors' code, not of the paper.
  """
  of = jnp.asarray(table(seen.present.shape[0]))
  available = (seen.present[None] | ~of[..., None]).all(1)
  whole = (seen.present[None] == of[..., None]).all(1)
  votes = of[..., None] & available[:, None]
  mu, lv = products(seen.mu, seen.lv, votes, whole)
  return Subsets(mu, lv, available)


def blocks(rows: jax.Array, number: int) -> jax.Array:
  """int [B]: `rows` (bool [B]) cut into `number` equal blocks in their order, the rest to the last.

  Of fewer rows than blocks all are of the last one: stratified instead of drawn.
  """
  place, count = jnp.cumsum(rows) - 1, rows.sum()
  size = count // number
  return jnp.where(size > 0, jnp.minimum(place // jnp.maximum(size, 1), number - 1), number - 1)


def choose(seen: Seen, available: jax.Array, key: jax.Array) -> jax.Array:
  """int [B], the component of each row: blocks of the complete ones, of others drawn evenly.

  Args:
    seen: the batch.
    available: bool [S, B].
    key: of the draw.
  """
  counted = seen.complete & (seen.weight > 0)
  u = jax.random.uniform(key, (available.shape[1],))
  rank = jnp.cumsum(available, 0) - 1
  wanted = jnp.minimum((u * available.sum(0)).astype(jnp.int32), available.sum(0) - 1)
  drawn = jnp.argmax(available & (rank == wanted[None]), 0)
  return jnp.where(counted, blocks(counted, available.shape[0]), drawn)


def negative_elbo(
  seen: Seen, subsets: Subsets, component: jax.Array, noise: jax.Array, beta: Any = 1.0
) -> tuple[jax.Array, jax.Array]:
  r"""(\sum_m NLL_m(z) + beta KL, KL) [B], KL = mean over the available S of KL(q_S || N(0, 1)).

  z comes from one component a row.

  Args:
    seen: the batch.
    subsets: its components.
    component: int [B].
    noise: [B, L].
    beta: default 1.
  """
  at = lambda x: jnp.take_along_axis(x, component[None, :, None], 0)[0]
  z = at(subsets.mu) + jnp.exp(0.5 * at(subsets.lv)) * noise
  each = jnp.where(subsets.available, kl_losses(subsets.mu, subsets.lv), 0.0)
  kl = each.sum(0) / jnp.maximum(subsets.available.sum(0), 1)
  return -total(seen.explain, seen.present, z) + beta * kl, kl


@dataclasses.dataclass(frozen=True)
class Mopoe:
  """The mean over rows of `negative_elbo`."""

  beta: float
  warmup: int

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    which, noise_key = jax.random.split(key)
    subsets = subset_posteriors(seen)
    component = choose(seen, subsets.available, which)
    noise = draws.rows_first(jax.random.normal, noise_key, (), *seen.mu.shape[1:])
    beta = warmed_by(clock, self.warmup, self.beta)
    value, kl = negative_elbo(seen, subsets, component, noise, beta)
    weight = jnp.where(seen.present.any(0), seen.weight, 0.0)
    return objectives.weighted_mean(value, weight), {"kl": objectives.weighted_mean(kl, weight)}

  def posterior(self, seen: Seen) -> Mixture:
    """The mixture of all subsets that are available."""
    found = subset_posteriors(seen)
    prior = jnp.zeros((1, seen.mu.shape[-1]))
    return mixture(FAMILIES["normal"], found.mu, found.lv, found.available, prior)


def mopoe(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  beta: float = 1.0,
  warmup: int = 0,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  """A mixture of products of experts; then a linear head on E[z] where there are labels.

  A row's z comes from one subset: rows are cut into equal blocks in the order of the subsets, which
  keeps shapes static. Of a row that lacks modalities everything is what the smaller model's would be;
  its subset is drawn.

  Args:
    model: its encoders are used, decoders mirror them, its heads tell the width of the logits.
    task: of the data; "generation" is the VAE without a head.
    likelihood: of all modalities or {m: spec}: normal (scale 1), "normal:.5", laplace, "laplace:.75",
      bernoulli (of values in [0, 1]), categorical. Default "auto": normal, categorical for tokens.
    num_latent: L; default 20, as for MNIST-SVHN.
    beta: of the KL, default 1; the authors' 2.5 for PolyMNIST.
    warmup: epochs in which it grows from 0; default 0.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown likelihood.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Sutter et al., ICLR 2021, and MultiVae's code.
  """
  net = Net(model, num_latent, specs(likelihood), rescale=rescale)
  return build(net, Mopoe(beta, warmup), model, tx, task, share)
