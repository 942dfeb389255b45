"""K stochastic heads on one trunk, each with a latent and a decoder of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import draws
from mmfuse.fusion import draw_gaussian
from mmfuse.fusion._early import concat_vectors
from mmfuse.fusion._features import vectors
from mmfuse.methods.ensembles._members import JOINED, MEMBERS

MEAN, LOGVAR = "mean", "logvar"
FARTHEST = 10.0  # of a log variance from 0: its exponential stays a number


def by_member(flat: jax.Array, number: int) -> jax.Array:
  """[B, K L] -> [K, B, L], as the equations count: a head, a row, a unit."""
  return jnp.moveaxis(flat.reshape(flat.shape[0], number, -1), 1, 0)


class StochasticHeads(nn.Module):
  r"""z_k = q_k(zt_k), zt_k ~ N(mu_k, exp(logvar_k)) in training and zt_k = mu_k else; K of them.

  mu_k, logvar_k [B, L] are linear in h = [h_1; ...; h_M], the decoder q_k is linear. `(features {m: [B,
  ...]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], {"members": [B, K, C], "mu",
  "logvar": [B, K L]})`. Training draws from the stream "dropout". Absent modalities come in as zeros.

  Args:
    members: K.
    width: L.
    task: what the labels are.
    joined: "vote" or "mean", how logits [B, C] come of the members'.
  """

  members: int
  width: int
  task: str
  joined: str

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    h = concat_vectors(vectors(features, mask))
    shape = (h.shape[0], self.members, self.width)
    mu, logvar = (nn.Dense(self.members * self.width, name=n)(h) for n in (MEAN, LOGVAR))
    logvar = jnp.clip(logvar, -FARTHEST, FARTHEST)
    latent = mu.reshape(shape)
    if train:  # rows first: the draws of a row do not depend on how many there are
      noise = draws.flat(jax.random.normal, self.make_rng("dropout"), shape, dtype=mu.dtype)
      latent = draw_gaussian(latent, logvar.reshape(shape), noise)
    start = nn.initializers.lecun_normal(batch_axis=(0,))
    kernel = self.param("kernel", start, (self.members, self.width, num_classes))
    bias = self.param("bias", nn.initializers.zeros_init(), (self.members, num_classes))
    members = jnp.einsum("bkl,klc->bkc", latent, kernel) + bias[None]
    logits = JOINED[self.joined](members, self.task)
    return logits, {MEMBERS: members, "mu": mu, "logvar": logvar}
