r"""MMVAE: a mixture of experts, q(z | X) = 1/M \sum_m q_m(z | x_m), and bounds of it.

Shi, Siddharth, Paige, Torr: "Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep
Generative Models", NeurIPS 2019.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, objectives
from mmfuse.core import Clock, Method
from mmfuse.methods.generative.vae import _importance
from mmfuse.methods.generative.vae._families import Family, family_of
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._mixture import Mixture, mixture
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen, total
from mmfuse.names import CLASSIFICATION, closest


def mixture_log_prob(
  family: Family, z: jax.Array, loc: jax.Array, raw: jax.Array, present: jax.Array
) -> jax.Array:
  r"""log 1/M \sum_m q_m(z | x_m) over the modalities present: z [..., B, L] -> [..., B].

  Args:
    family: of every expert.
    z: latents.
    loc, raw: [M, B, L].
    present: bool [M, B]; where none is, 0.
  """
  lead = (1,) * (z.ndim - 2)
  each = jnp.stack(
    [
      family.log_prob(z, a.reshape(lead + a.shape), b.reshape(lead + b.shape))
      for a, b in zip(loc, raw)
    ]
  )
  some = present.any(0)
  here = (present | ~some[None]).reshape(present.shape[:1] + lead + present.shape[1:])
  found = jax.nn.logsumexp(jnp.where(here, each, -jnp.inf), 0)
  count = jnp.log(jnp.maximum(present.sum(0), 1)).reshape(lead + some.shape)
  return jnp.where(some.reshape(lead + some.shape), found - count, 0.0)


def log_weights(
  family: Family,
  seen: Seen,
  noise: jax.Array,
  prior: jax.Array,
  *,
  still: bool = False,
  through=None,
) -> jax.Array:
  r"""lw [M, K, B] = log p(z) + \sum_n log p(x_n | z) - log 1/M \sum_m' q_m'(z | x_m'), z from q_m.

  Args:
    family: of posteriors and prior.
    seen: the batch.
    noise: [M, K, B, L].
    prior: raw scale [1, L].
    still: the densities of the posterior have constant parameters (DReG); default False.
    through: what every draw is passed through; default nothing.
  """
  z = family.moved(seen.mu[:, None], seen.lv[:, None], noise)
  z = z if through is None else through(z)
  loc, raw = (jax.lax.stop_gradient(x) if still else x for x in (seen.mu, seen.lv))
  log_p = family.log_prob(z, jnp.zeros_like(z), prior[None, None])
  return (
    log_p
    + total(seen.explain, seen.present, z)
    - mixture_log_prob(family, z, loc, raw, seen.present)
  )


def elbo_naive(family: Family, seen: Seen, noise: jax.Array, prior: jax.Array) -> jax.Array:
  r"""1/M \sum_m (\sum_n log p(x_n | z_m) - KL(q_m || p)) [B], the mean over draws: noise [M, K, B, L].

  Args:
    family, seen, noise, prior: as in `log_weights`.
  """
  z = family.moved(seen.mu[:, None], seen.lv[:, None], noise)
  kl = family.kl(seen.mu, seen.lv, prior[None])
  return _importance.over_experts(total(seen.explain, seen.present, z).mean(1) - kl, seen.present)


def elbo_sampled(family: Family, seen: Seen, noise: jax.Array, prior: jax.Array) -> jax.Array:
  r"""As `elbo_naive`, each modality explained by its own z_d alone, whichever expert it is asked of.

  Term (r, d) is log p(x_d | z_d) times q_r(z_d) / q_d(z_d), where z_d and q_d are constants and q_r is
  not; 1 for d = r.

  Args:
    family, seen, noise, prior: as in `log_weights`.
  """
  z = family.moved(seen.mu[:, None], seen.lv[:, None], noise)
  fixed = jax.lax.stop_gradient(z)
  kl = family.kl(seen.mu, seen.lv, prior[None])
  own = [log_p(z_d) for log_p, z_d in zip(seen.explain, z, strict=True)]  # [K, B]
  density = lambda r, d: family.log_prob(fixed[d], seen.mu[r][None], seen.lv[r][None])
  terms = []
  for r in range(len(own)):
    explained = jnp.zeros_like(own[0])
    for d, log_p in enumerate(own):
      ratio = density(r, d) - jax.lax.stop_gradient(density(d, d))
      both = (seen.present[r] & seen.present[d])[None]
      weight = 1.0 if d == r else jnp.exp(jnp.where(both, ratio, 0.0))
      explained = explained + jnp.where(both, weight * log_p, 0.0)
    terms.append(explained.mean(0) - kl[r])
  return _importance.over_experts(jnp.stack(terms), seen.present)


def bound(
  family: Family,
  seen: Seen,
  noise: jax.Array,
  prior: jax.Array,
  objective: str = "dreg_looser",
  double_reweight: bool = True,
) -> jax.Array:
  """What is maximised [B], of every row.

  Args:
    family: of posteriors and prior.
    seen: the batch.
    noise: [M, K, B, L].
    prior: raw scale [1, L] of p(z).
    objective: one of iwae_looser, iwae, dreg_looser (default), dreg, elbo_naive, elbo.
    double_reweight: of DReG, default True; see `vae.dreg`.

  Raises:
    ValueError: an unknown objective.
  """
  if objective not in _importance.OBJECTIVES:
    raise ValueError(
      f"unknown objective {objective!r}; {closest(objective, _importance.OBJECTIVES)}"
    )
  if objective in _importance.DREG:
    weigh = lambda through: log_weights(family, seen, noise, prior, still=True, through=through)
    looser = objective == "dreg_looser"
    return _importance.dreg(weigh, seen.present, looser, double_reweight)
  if objective in _importance.CLOSED:
    return (elbo_naive if objective == "elbo_naive" else elbo_sampled)(family, seen, noise, prior)
  lw = log_weights(family, seen, noise, prior)
  reduce = _importance.iwae if objective == "iwae" else _importance.iwae_looser
  return reduce(lw, seen.present)


@dataclasses.dataclass(frozen=True)
class Mmvae:
  """The loss is the mean over rows of - `bound`."""

  family: str
  objective: str
  samples: int
  double_reweight: bool

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    del clock
    family = family_of(self.family)
    modalities, rows, width = seen.mu.shape
    noise = draws.rows_first(family.noise, key, (modalities, self.samples), rows, width)
    value = bound(
      family, seen, noise, _prior(seen), self.objective, double_reweight=self.double_reweight
    )
    rows_with = jnp.where(seen.present.any(0), seen.weight, 0.0)
    return -objectives.weighted_mean(value, rows_with), {}

  def posterior(self, seen: Seen) -> Mixture:
    """The mixture of the experts that are present."""
    return mixture(family_of(self.family), seen.mu, seen.lv, seen.present, _prior(seen))


def _prior(seen: Seen) -> jax.Array:
  width = seen.mu.shape[-1]
  return seen.shared["prior"] if seen.shared and "prior" in seen.shared else jnp.zeros((1, width))


def mmvae(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  num_samples: int = 10,
  objective: str = "dreg_looser",
  family: str = "laplace",
  learn_prior: bool = True,
  double_reweight: bool = True,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  r"""A mixture of experts, by DReG; then a linear head on E[z] where there are labels.

  Each of M experts draws K times and is asked to explain all modalities. The mean over rows is minimised
  where the authors' code sums: read their learning rate accordingly. Of a row that lacks modalities
  everything is what the smaller model's would be. Laplace scales are softmax(raw) L + 1e-6.

  Args:
    model: its encoders are used, decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent: L; default 20, the authors' for MNIST-SVHN.
    num_samples: K; default 10 (PolyMNIST; 30 for MNIST-SVHN). It multiplies the cost.
    objective: dreg_looser (default), dreg, iwae_looser, iwae, elbo (importance-sampled), elbo_naive.
    family: of posteriors and prior, "laplace" (default, the authors') or "normal".
    learn_prior: the scale of p(z) is learnt, default True.
    double_reweight: of DReG, default True; False as released.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown objective, family or likelihood.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Shi et al., NeurIPS 2019, and their code; MultiVae's for DReG.
  """
  family_of(family)
  if objective not in _importance.OBJECTIVES:
    raise ValueError(
      f"unknown objective {objective!r}; {closest(objective, _importance.OBJECTIVES)}"
    )
  net = Net(model, num_latent, specs(likelihood), prior=learn_prior, rescale=rescale)
  rule = Mmvae(family, objective, num_samples, double_reweight)
  return build(net, rule, model, tx, task, share)
