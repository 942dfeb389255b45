r"""MVTCAE: a product of experts held to each of its experts, an upper bound of total correlation.

Hwang, Kim, Hong, Kim: "Multi-View Representation Learning via Total Correlation Objective", NeurIPS
2021.
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
from mmfuse.methods.generative.vae._gaussian import kl_between, products
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._mixture import Mixture, single
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen, total, warmed_by
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives import kl_losses


class Terms(NamedTuple):
  """What the loss is made of, row by row."""

  nll: jax.Array  # [B], of all modalities present
  to_experts: jax.Array  # [M, B], KL(q_J || q_m)
  to_prior: jax.Array  # [B], KL(q_J || N(0, 1))


def joint(seen: Seen) -> tuple[jax.Array, jax.Array]:
  """(mu, lv) [B, L] of the product of the experts that are present, without a prior."""
  none = jnp.zeros((1, seen.present.shape[1]), bool)
  mu, lv = products(seen.mu, seen.lv, seen.present[None], none)
  return mu[0], lv[0]


def terms(seen: Seen, noise: jax.Array) -> Terms:
  """The three terms; noise [B, L]."""
  mu, lv = joint(seen)
  z = mu + jnp.exp(0.5 * lv) * noise
  wide = lambda x: jnp.broadcast_to(x[None], seen.mu.shape)
  each = kl_between(wide(mu), wide(lv), seen.mu, seen.lv)
  return Terms(-total(seen.explain, seen.present, z), each, kl_losses(mu, lv))


def weighed(found: Terms, present: jax.Array, alpha: float, beta: Any) -> jax.Array:
  r"""(M - alpha) / M NLL + beta (alpha / M \sum_m KL(q_J || q_m) + (1 - alpha) KL(q_J || N)) [B].

  M is how many modalities the row has.

  Args:
    found: the terms.
    present: bool [M, B].
    alpha: how much experts count against the prior.
    beta: of both.
  """
  count = jnp.maximum(present.sum(0), 1).astype(jnp.float32)
  experts = jnp.where(present, found.to_experts, 0.0).sum(0)
  held = alpha / count * experts + (1 - alpha) * found.to_prior
  return (count - alpha) / count * found.nll + beta * held


@dataclasses.dataclass(frozen=True)
class Mvtcae:
  """The mean over rows of `weighed`."""

  alpha: float
  beta: float
  warmup: int

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    noise = draws.rows_first(jax.random.normal, key, (), *seen.mu.shape[1:])
    beta = warmed_by(clock, self.warmup, self.beta)
    value = weighed(terms(seen, noise), seen.present, self.alpha, beta)
    weight = jnp.where(seen.present.any(0), seen.weight, 0.0)
    return objectives.weighted_mean(value, weight), {}

  def posterior(self, seen: Seen) -> Mixture:
    """The product of the experts that are present."""
    return single(FAMILIES["normal"], *joint(seen))


def mvtcae(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  alpha: float = 0.1,
  beta: float = 2.5,
  warmup: int = 0,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  """A product of experts near each of them; then a linear head on E[z] where there are labels.

  Of a row that lacks modalities everything is what the smaller model's would be, M included.

  Args:
    model: its encoders are used, decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent: L; default 20, as for MNIST-SVHN.
    alpha: share of the experts against the prior; default .1, the authors' 5/6 for PolyMNIST.
    beta: of both, default 2.5.
    warmup: epochs in which it grows from 0; default 0.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown likelihood, alpha outside [0, 1].
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Hwang et al., NeurIPS 2021, and MultiVae's code.
  """
  if not 0 <= alpha <= 1:
    raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
  net = Net(model, num_latent, specs(likelihood), rescale=rescale)
  return build(net, Mvtcae(alpha, beta, warmup), model, tx, task, share)
