r"""MMVAE+: beside what modalities share, each has a latent of its own that others cannot pass through.

Palumbo, Daunhawer, Vogt: "MMVAE+: Enhancing the Generative Quality of Multimodal VAEs without
Compromises", ICLR 2023.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, objectives
from mmfuse.core import Clock, Method
from mmfuse.methods.generative._mmvae import mixture_log_prob
from mmfuse.methods.generative.vae import _importance
from mmfuse.methods.generative.vae._families import Family, family_of
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen
from mmfuse.names import CLASSIFICATION, closest

OBJECTIVES = ("iwae_looser", "iwae", "dreg_looser", "dreg")


class Noise(NamedTuple):
  """What draws are made of, as the family takes it."""

  shared: jax.Array  # [M, K, B, L], of u_m
  private: jax.Array  # [M, K, B, P], of w_m
  cross: jax.Array  # [M, M, K, B, P], of what stands in for w_n where m is asked for n


def log_weights(
  family: Family, seen: Seen, noise: Noise, beta: float = 1.0, *, still: bool = False, through=None
) -> jax.Array:
  r"""lw [M, K, B] = \sum_n log p(x_n | .) + beta (log p(u, w) - log 1/M \sum_l q(u | x_l) - log q(w | x_m)).

  x_m is explained by [u_m, w_m], x_n by [u_m, a draw of r_n], whose scale is learnt; p(u, w) is standard.

  Args:
    family: of posteriors and priors.
    seen: the batch.
    noise: of all draws.
    beta: default 1.
    still: the densities of the posterior have constant parameters (DReG); default False.
    through: what every draw [..., K, B, .] is passed through; default nothing.
  """
  through = (lambda z: z) if through is None else through
  mu, lv = seen.private
  u = through(family.moved(seen.mu[:, None], seen.lv[:, None], noise.shared))
  w = through(family.moved(mu[:, None], lv[:, None], noise.private))
  fixed = lambda x: jax.lax.stop_gradient(x) if still else x
  prior = lambda z: family.log_prob(z, jnp.zeros_like(z), jnp.zeros_like(z))
  shared = mixture_log_prob(family, u, fixed(seen.mu), fixed(seen.lv), seen.present)
  own = family.log_prob(w, fixed(mu)[:, None], fixed(lv)[:, None])
  explained = []
  for m in range(len(seen.explain)):
    parts = []
    for n, log_p in enumerate(seen.explain):
      style = w[m] if n == m else _stand_in(family, seen, n, noise.cross[m, n])
      parts.append(jnp.where(seen.present[n][None], log_p(jnp.concatenate([u[m], style], -1)), 0.0))
    explained.append(sum(parts[1:], parts[0]))
  return jnp.stack(explained) + beta * (prior(u) + prior(w) - shared - own)


def _stand_in(family: Family, seen: Seen, n: int, noise: jax.Array) -> jax.Array:
  """A draw of r_n: noise [..., B, P]."""
  raw = seen.cross[n].reshape((1,) * (noise.ndim - 1) + (-1,))
  return family.moved(jnp.zeros_like(noise), jnp.broadcast_to(raw, noise.shape), noise)


class Private(NamedTuple):
  """The posterior: u of one of the experts, w_m of every modality that is present, else of r_m."""

  family: Family  # of all posteriors and priors
  seen: Seen  # the batch
  weight: jax.Array  # [M, B], sums to 1

  @property
  def mean(self) -> jax.Array:
    """E[u] [B, L]."""
    return jnp.where(self.seen.present[..., None], self.weight[..., None] * self.seen.mu, 0.0).sum(
      0
    )

  def _draws(self, key: jax.Array, component: jax.Array):
    """(u [K, B, L], {modality: its own w [K, B, P]}, {modality: a draw of its r [K, B, P]})."""
    samples, rows = component.shape
    seen, family = self.seen, self.family
    keys = jax.random.split(key, 1 + 2 * len(seen.explain))
    noise = lambda k, width: draws.rows_first(family.noise, k, (samples,), rows, width)
    width = seen.private[0].shape[-1]
    at = lambda x: jnp.take_along_axis(x, component[..., None], 0)
    alone = ~seen.present.any(0)[None, :, None]
    clean = lambda x: jnp.where(alone, 0.0, at(x))  # of nobody it is the prior
    u = family.moved(clean(seen.mu), clean(seen.lv), noise(keys[0], seen.mu.shape[-1]))
    own, other = [], []
    for m, (mu, lv) in enumerate(zip(*seen.private, strict=True)):
      own.append(family.moved(mu[None], lv[None], noise(keys[1 + 2 * m], width)))
      other.append(_stand_in(family, seen, m, noise(keys[2 + 2 * m], width)))
    return u, own, other

  def log_weights(self, explain, present, key, component) -> jax.Array:
    """log w [K, B] at beta = 1, as `Mixture.log_weights`."""
    seen, family = self.seen, self.family
    u, own, other = self._draws(key, component)
    prior = lambda z: family.log_prob(z, jnp.zeros_like(z), jnp.zeros_like(z))
    lw = prior(u) - mixture_log_prob(family, u, seen.mu, seen.lv, present)
    for m, log_p in enumerate(explain):
      mine = component == m
      style = jnp.where(mine[..., None], own[m], other[m])
      said = log_p(jnp.concatenate([u, style], -1))
      density = family.log_prob(own[m], seen.private[0][m][None], seen.private[1][m][None])
      lw = lw + jnp.where(present[m][None], said, 0.0)
      lw = lw + jnp.where(mine & present[m][None], prior(own[m]) - density, 0.0)
    return jnp.where(present.any(0)[None], lw, 0.0)

  def latents(self, key: jax.Array, component: jax.Array) -> tuple[jax.Array, ...]:
    """[u, w_m] of each modality: its own w where it is present, a draw of r_m where it is not."""
    u, own, other = self._draws(key, component)
    return tuple(
      jnp.concatenate([u, jnp.where(here[None, :, None], w, r)], -1)
      for here, w, r in zip(self.seen.present, own, other, strict=True)
    )

  def centre(self) -> tuple[jax.Array, ...]:
    """Means in place of draws."""
    return tuple(
      jnp.concatenate([self.mean, jnp.where(here[:, None], mu, 0.0)], -1)
      for here, mu in zip(self.seen.present, self.seen.private[0], strict=True)
    )


@dataclasses.dataclass(frozen=True)
class MmvaePlus:
  """The loss is the mean over rows of - the bound that `objective` names."""

  family: str
  objective: str
  samples: int
  beta: float
  double_reweight: bool

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    del clock
    family = family_of(self.family)
    m, rows, width = seen.mu.shape
    style = seen.private[0].shape[-1]
    keys = jax.random.split(key, 3)
    noise = Noise(
      draws.rows_first(family.noise, keys[0], (m, self.samples), rows, width),
      draws.rows_first(family.noise, keys[1], (m, self.samples), rows, style),
      draws.rows_first(family.noise, keys[2], (m, m, self.samples), rows, style),
    )
    value = bound(family, seen, noise, self.beta, self.objective, self.double_reweight)
    rows_with = jnp.where(seen.present.any(0), seen.weight, 0.0)
    return -objectives.weighted_mean(value, rows_with), {}

  def posterior(self, seen: Seen) -> Private:
    """The mixture of the experts that are present, and what each of them has alone."""
    use = seen.present | ~seen.present.any(0)[None]
    return Private(
      family_of(self.family), seen, use / use.sum(0, keepdims=True).astype(jnp.float32)
    )


def bound(
  family: Family,
  seen: Seen,
  noise: Noise,
  beta: float = 1.0,
  objective: str = "iwae_looser",
  double_reweight: bool = True,
) -> jax.Array:
  """What is maximised [B], of every row.

  Args:
    family: of posteriors and priors.
    seen: the batch.
    noise: of all draws.
    beta: default 1.
    objective: iwae_looser (default), iwae, dreg_looser, dreg.
    double_reweight: of DReG, default True.
  """
  if objective in _importance.DREG:
    weigh = lambda through: log_weights(family, seen, noise, beta, still=True, through=through)
    looser = objective == "dreg_looser"
    return _importance.dreg(weigh, seen.present, looser, double_reweight)
  lw = log_weights(family, seen, noise, beta)
  reduce = _importance.iwae if objective == "iwae" else _importance.iwae_looser
  return reduce(lw, seen.present)


def mmvae_plus(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 10,
  num_private: int = 10,
  num_samples: int = 1,
  beta: float = 1.0,
  objective: str = "iwae_looser",
  family: str = "normal",
  double_reweight: bool = True,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  """MMVAE with private latents; then a linear head on E[u] where there are labels.

  A modality is asked for another one through the shared u alone: w of the other comes from a prior with a
  learnt scale. Of a row that lacks modalities everything is what the smaller model's would be.

  Args:
    model: its encoders are used, decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent, num_private: L of u and P of w_m; default 10 and 10, together what other rows have (the
      authors' for PolyMNIST: 32 and 32).
    num_samples: K, default 1 (the authors': 1 or 10).
    beta: of everything but the likelihoods, default 1; 2.5 for PolyMNIST.
    objective: iwae_looser (default), iwae, dreg_looser, dreg.
    family: "normal" (default) or "laplace".
    double_reweight: of DReG, default True; False as released.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown objective, family or likelihood, num_private below 1.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Palumbo et al., ICLR 2023, and MultiVae's code.
  """
  family_of(family)
  if objective not in OBJECTIVES:
    raise ValueError(f"unknown objective {objective!r}; {closest(objective, OBJECTIVES)}")
  if num_private < 1:
    raise ValueError(f"num_private must be at least 1, got {num_private}; mmvae has none")
  net = Net(model, num_latent, specs(likelihood), private=num_private, rescale=rescale)
  rule = MmvaePlus(family, objective, num_samples, beta, double_reweight)
  return build(net, rule, model, tx, task, share)
