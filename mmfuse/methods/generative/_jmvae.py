r"""JMVAE-KL: an encoder of all modalities, and one of each that is drawn to it.

Suzuki, Nakayama, Matsuo: "Joint Multimodal Learning with Deep Generative Models", 2016.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, objectives
from mmfuse.core import Clock, Method
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import kl_between, product
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._mixture import Mixture, single
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen, total, warmed_by
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives import kl_losses


class Terms(NamedTuple):
  """What the loss is made of, row by row."""

  nll: jax.Array  # [B], of all modalities
  kl: jax.Array  # [B], KL(q_J || N(0, 1))
  apart: jax.Array  # [B], sum over m of KL(q_J || q_m)


def apart(seen: Seen, mu: jax.Array, lv: jax.Array) -> jax.Array:
  r"""KL(q || q_m) [M, B] of a posterior q = N(mu, exp lv) [B, L] and each uni-modal one."""
  wide = lambda x: jnp.broadcast_to(x[None], seen.mu.shape)
  return kl_between(wide(mu), wide(lv), seen.mu, seen.lv)


def terms(seen: Seen, noise: jax.Array) -> Terms:
  """The three terms; noise [B, L]. Gradients of the last reach the joint encoder and the uni-modal ones."""
  mu, lv = seen.joint
  z = mu + jnp.exp(0.5 * lv) * noise
  nll = -total(seen.explain, seen.present, z)
  return Terms(nll, kl_losses(mu, lv), apart(seen, mu, lv).sum(0))


def conditional(seen: Seen, mu: jax.Array, lv: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(mu, lv) [B, L] of all modalities where a row is complete, else the product of those it has.

  Args:
    seen: the batch.
    mu, lv: [B, L], what is said of a complete row.
  """
  some = product(seen.mu, seen.lv, seen.present)
  whole = seen.complete[:, None]
  return jnp.where(whole, mu, some[0]), jnp.where(whole, lv, some[1])


@dataclasses.dataclass(frozen=True)
class Jmvae:
  """The mean over complete rows of NLL + a_t (beta KL + alpha sum_m KL(q_J || q_m))."""

  alpha: float
  beta: float
  warmup: int

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    noise = draws.rows_first(jax.random.normal, key, (), *seen.mu.shape[1:])
    found = terms(seen, noise)
    grown = warmed_by(
      clock._replace(batch=clock.batches), self.warmup
    )  # a step an epoch, from 1 on
    weight = jnp.where(seen.complete, seen.weight, 0.0)
    value = found.nll + grown * (self.beta * found.kl + self.alpha * found.apart)
    return objectives.weighted_mean(value, weight), {"complete_rows": (weight > 0).sum()}

  def posterior(self, seen: Seen) -> Mixture:
    """The joint encoder's where all modalities are there, else the product of the uni-modal ones."""
    return single(FAMILIES["normal"], *conditional(seen, *seen.joint))


def jmvae(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  alpha: float = 0.1,
  beta: float = 1.0,
  warmup: int = 10,
  width: int = 64,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  """A joint encoder, uni-modal ones near it; then a linear head on E[z] where there are labels.

  It learns from rows that have all modalities: others weigh 0 (the log counts the complete ones), and
  their posterior is the product of the uni-modal ones. The joint encoder has encoders of its own.

  Args:
    model: its encoders are used (twice), decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent: L; default 20, as for MNIST-SVHN.
    alpha: of the uni-modal posteriors, default .1 (the authors').
    beta: of the KL to the prior, default 1.
    warmup: epochs in which both grow, default 10 (MultiVae's).
    width: of the joint encoder's hidden layer, default 64 (ours).
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown likelihood.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Suzuki et al., arXiv 1611.01891, and MultiVae's code.
  """
  net = Net(model, num_latent, specs(likelihood), joint=width, rescale=rescale)
  return build(net, Jmvae(alpha, beta, warmup), model, tx, task, share)
