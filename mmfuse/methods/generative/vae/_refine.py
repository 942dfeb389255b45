r"""Iterative amortised inference: the posterior of a batch, improved by what its ELBO says of it.

Marino, Yue, Mandt: "Iterative Amortized Inference", ICML 2018. lambda = (mu, lv); the update reads the
gradient of the ELBO as one more input, so that no second derivative is taken.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.fusion._late import named_key
from mmfuse.methods.generative.vae._seen import Explain, total
from mmfuse.objectives import kl_losses

EPS = 1e-5  # of the layer norms, which have no parameters


class Lambda(NamedTuple):
  """A posterior N(mu, exp lv)."""

  mu: jax.Array  # [..., B, L]
  lv: jax.Array  # [..., B, L]


# (lambda, gradient of the ELBO there) -> lambda, each (mu, lv) side by side, [B, 2 L]
Update = Callable[[jax.Array, jax.Array], jax.Array]


def elbos(
  explain: tuple[Explain, ...], present: jax.Array, q: Lambda, noise: jax.Array
) -> jax.Array:
  r"""\sum_m log p(x_m | mu + exp(lv / 2) eps) - KL(q || N(0, 1)) [..., B], one of each draw.

  Args:
    explain: log p(x_m | z) of each modality.
    present: bool [M, B].
    q: [..., B, L] each; axes of 1 go with every draw.
    noise: eps [..., B, L].
  """
  said = total(explain, present, q.mu + jnp.exp(0.5 * q.lv) * noise)
  return said - kl_losses(q.mu, q.lv)


def elbo(
  explain: tuple[Explain, ...], present: jax.Array, q: Lambda, noise: jax.Array
) -> jax.Array:
  """`elbos` of one posterior [B, L]: [B], the mean over K draws.

  Args:
    explain, present, q: as in `elbos`.
    noise: eps [B, L] or [K, B, L].
  """
  if noise.ndim == 2:
    return elbos(explain, present, q, noise)
  return elbos(explain, present, Lambda(q.mu[None], q.lv[None]), noise).mean(0)


def elbo_gradient(
  explain: tuple[Explain, ...], present: jax.Array, q: Lambda, noise: jax.Array
) -> Lambda:
  """d (sum over rows of the ELBO) / d lambda, a constant.

  Args:
    explain, present, q, noise: as in `elbo`.
  """
  still = jax.lax.stop_gradient(q)
  found = jax.grad(lambda at: elbo(explain, present, at, noise).sum())(still)
  return jax.lax.stop_gradient(found)


def refine(
  explain: tuple[Explain, ...],
  present: jax.Array,
  q: Lambda,
  noises: jax.Array,
  update: Update,
) -> Lambda:
  """The trajectory lambda_0..lambda_T, [T + 1, B, L]: T updates inside one `lax.scan`.

  Args:
    explain: log p(x_m | z) of each modality, with constant parameters.
    present: bool [M, B].
    q: lambda_0.
    noises: [T, B, L] or [T, K, B, L], one draw for each gradient.
    update: `gated`, or a step of plain `ascent`.
  """

  def step(at, noise):
    new = update(at, _flat(elbo_gradient(explain, present, _halves(at), noise)))
    return new, new

  if not noises.shape[0]:
    return Lambda(q.mu[None], q.lv[None])
  first = _flat(q)
  _, path = jax.lax.scan(step, first, noises)
  return _halves(jnp.concatenate([first[None], path]))


def _flat(q: Lambda) -> jax.Array:
  """[..., 2 L]."""
  return jnp.concatenate(q, -1)


def _halves(flat: jax.Array) -> Lambda:
  return Lambda(*jnp.split(flat, 2, -1))


def ascent(rate: float) -> Update:
  """lambda + rate * gradient: the limit of a learned update."""
  return lambda q, g: q + rate * g


def gated(params: Any, data: tuple[jax.Array, ...] = ()) -> Update:
  r"""lambda <- s(gate) lambda + (1 - s(gate)) proposal, both linear in tanh(W [LN(lambda), LN(g), x_1, ...]).

  LN: over the 2 L numbers, without parameters. params: {"hidden", "gate", "proposal"}, each {"kernel",
  "bias"}; data: x_m [B, D_m], default none.
  """
  dense = lambda name, h: h @ params[name]["kernel"] + params[name]["bias"][None]

  def update(q: jax.Array, g: jax.Array) -> jax.Array:
    h = jnp.tanh(dense("hidden", jnp.concatenate([_normed(q), _normed(g), *data], -1)))
    gate = jax.nn.sigmoid(dense("gate", h))
    return gate * q + (1 - gate) * dense("proposal", h)

  return update


def init_gated(key: jax.Array, latent: int, data: int, width: int, bias: float = 1.0) -> dict:
  """Parameters of `gated`.

  Args:
    key: of the draw.
    latent: L.
    data: numbers of all modalities of a row, 0 where they are not fed.
    width: of the hidden layer.
    bias: of the gate, default 1: an update begins small.
  """
  sizes = {
    "hidden": (4 * latent + data, width),
    "gate": (width, 2 * latent),
    "proposal": (width, 2 * latent),
  }
  init = nn.initializers.lecun_normal()
  return {
    name: {
      "kernel": init(named_key(key, name), size),
      "bias": jnp.full(size[1], bias if name == "gate" else 0.0, jnp.float32),
    }
    for name, size in sizes.items()
  }


def _normed(x: jax.Array) -> jax.Array:
  centred = x - x.mean(-1, keepdims=True)
  return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPS)
