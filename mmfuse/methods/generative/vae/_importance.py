r"""Importance-weighted bounds of a mixture of experts: IWAE, DReG, and what samples an ELBO.

Burda et al., ICLR 2016; Tucker et al., ICLR 2019 (DReG); Shi et al., NeurIPS 2019 (of a mixture).
lw [M, K, B] is the log weight of draw k from expert m; "looser" takes the log of the mean over k
within an expert and then the mean over experts, else the log of the mean over all M K.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

OBJECTIVES = ("iwae_looser", "iwae", "dreg_looser", "dreg", "elbo_naive", "elbo")
DREG = ("dreg_looser", "dreg")
CLOSED = ("elbo_naive", "elbo")  # with the KL in closed form


def iwae(lw: jax.Array, present: jax.Array) -> jax.Array:
  """log of the mean weight over experts that are present and draws: lw [M, K, B] -> [B]."""
  some = present.any(0)
  here = jnp.broadcast_to((present | ~some[None])[:, None], lw.shape)
  found = jax.nn.logsumexp(jnp.where(here, lw, -jnp.inf), (0, 1))
  count = jnp.maximum(present.sum(0), 1) * lw.shape[1]
  return jnp.where(some, found - jnp.log(count), 0.0)


def iwae_looser(lw: jax.Array, present: jax.Array) -> jax.Array:
  """Mean over experts that are present of the log of the mean weight over draws: [M, K, B] -> [B]."""
  return over_experts(jax.nn.logsumexp(lw, 1) - jnp.log(lw.shape[1]), present)


def over_experts(values: jax.Array, present: jax.Array) -> jax.Array:
  """Mean of [M, B] over the modalities present; 0 where none is."""
  return jnp.where(present, values, 0.0).sum(0) / jnp.maximum(present.sum(0), 1)


def shares(lw: jax.Array, present: jax.Array, looser: bool) -> jax.Array:
  """Normalised weights [M, K, B], constants: over draws within an expert, or over all of them."""
  lw = jax.lax.stop_gradient(lw)
  if looser:
    return jnp.where(present[:, None], jax.nn.softmax(lw, 1), 0.0)
  here = jnp.broadcast_to(present[:, None] | ~present.any(0)[None, None], lw.shape)
  return jnp.where(present[:, None], jax.nn.softmax(jnp.where(here, lw, -jnp.inf), (0, 1)), 0.0)


def dreg(
  log_weights: Callable[[Callable[[jax.Array], jax.Array]], jax.Array],
  present: jax.Array,
  looser: bool = True,
  double_reweight: bool = True,
) -> jax.Array:
  r"""\sum_k w_k lw_k [B] with constant w = softmax(lw); what arrives at a draw is multiplied by w again.

  So w reaches decoders and prior, w^2 the encoders. The value is not that of IWAE; the gradient of
  the decoders is exactly IWAE's.

  Args:
    log_weights: `(through) -> lw [M, K, B]`, every draw z [M, K, B, L] passed through `through`, the
      densities of the posterior with constant parameters.
    present: bool [M, B].
    looser: softmax over the draws of an expert, then the mean over experts (default True); False:
      over all M K.
    double_reweight: default True, as derived; False is what the released code of MMVAE does, whose
      hook stands on a tensor that is not on the way to the loss.
  """
  w = shares(log_weights(lambda z: z), present, looser)
  through = (lambda z: reweighted(z, w[..., None])) if double_reweight else (lambda z: z)
  weighted = (w * jnp.where(present[:, None], log_weights(through), 0.0)).sum(1)
  return over_experts(weighted, present) if looser else weighted.sum(0)


@jax.custom_vjp
def reweighted(z: jax.Array, w: jax.Array) -> jax.Array:
  """z, whose gradient is multiplied by w [..., 1]."""
  del w
  return z


def _forward(z, w):
  return z, w


def _backward(w, g):
  return g * w, jnp.zeros_like(w)


reweighted.defvjp(_forward, _backward)
