"""Softmax cross-entropy of integer labels."""

import jax
import jax.numpy as jnp

from mmfuse import choose


@jax.custom_jvp
def cross_entropy_loss(logits: jax.Array, label: jax.Array) -> jax.Array:
  r"""log \sum_c e^{z_c} - z_y, [...], of logits z [..., C] and labels y int [...], in nats.

  Its derivative, softmax(z) - onehot(y), is written down: what `jax.nn.logsumexp` does for infinite sums
  is compiled with every loss. A single z_c may be -inf.

  Args:
    logits: float [..., C].
    label: int [...]; of another than 0..C-1 the loss is NaN, its derivative finite (for rows not read).
  """
  return _loss_and_shares(logits, label)[0]


def _loss_and_shares(z, label):
  highest = jnp.max(z, -1, keepdims=True)
  shares = jnp.exp(z - highest)
  total = jnp.sum(shares, -1, keepdims=True)
  loss = (jnp.log(total) + highest)[..., 0] - choose.along(z, label, -1)
  label = label.astype(jnp.int32)
  known = (label >= 0) & (label < z.shape[-1])
  return jnp.where(known, loss, jnp.nan), shares / total


@cross_entropy_loss.defjvp
def _derivative(primals, tangents):
  z, label = primals
  loss, p = _loss_and_shares(z, label)
  slope = p - choose.matches(label, z.shape, -1).astype(z.dtype)
  return loss, jnp.sum(slope * tangents[0], -1)
