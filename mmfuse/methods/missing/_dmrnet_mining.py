"""Which combinations of modalities are hard: DMRNet's statistics of a warm-up, and what is read off them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.core import Batch, label_weight
from mmfuse.methods.missing._combinations import combination_index

MINES = ("variance", "loss")


class Sums(NamedTuple):
  """A statistic of the rows of each combination, so far."""

  total: jax.Array  # [C], sum of w_i v_i
  weight: jax.Array  # [C], sum of w_i

  def mean(self) -> jax.Array:
    """[C]: total / weight, 0 where no row had the combination."""
    return jnp.where(
      self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1.0), 0.0
    )


def no_sums(num: int) -> Sums:
  """Of nothing yet."""
  return Sums(jnp.zeros(num, jnp.float32), jnp.zeros(num, jnp.float32))


def sums_of(index: jax.Array, values: jax.Array, weight: jax.Array, num: int) -> Sums:
  """The sums of a batch.

  Args:
    index: int [B], combinations; rows of `num` have none and count nowhere.
    values: v [B]; not read where the weight is 0.
    weight: w [B].
    num: C.
  """
  weight = weight.astype(jnp.float32)
  mine = jnp.where(index[None, :] == jnp.arange(num)[:, None], weight[None, :], 0.0)
  values = jnp.where(weight > 0, values.astype(jnp.float32), 0.0)
  return Sums((mine * values[None, :]).sum(1), mine.sum(1))


def batch_means(index: jax.Array, values: jax.Array, num: int) -> jax.Array:
  """[C]: as the released code takes them from a batch, NaN where no row has the combination."""
  found = sums_of(index, values, jnp.ones(values.shape[0]), num)
  return found.total / found.weight


def first_is_weak(first: jax.Array, second: jax.Array) -> jax.Array:
  """Whether of two modalities the first alone is the hard combination, as released.

  first, second: [E], `batch_means` of the rows that have it alone, averaged over each warm-up epoch.
  It is if its sum is larger: a tie, and a NaN of either, make the second hard.
  """
  return first.sum() > second.sum()


def hardest(sums: Sums, num_hard: int) -> jax.Array:
  """bool [C]: the `num_hard` combinations of the largest mean, of those that lack a modality and occurred.

  The last one is complete. Ties go to the first.
  """
  num = sums.total.shape[0]
  able = (sums.weight > 0) & (jnp.arange(num) < num - 1)
  found, place = jax.lax.top_k(jnp.where(able, sums.mean(), -jnp.inf), num_hard)
  return jnp.zeros(num, bool).at[place].set(found > -jnp.inf)


def added(memory: dict, batch: Batch, logvar: jax.Array, losses: jax.Array) -> dict:
  r"""The memory's sums with a batch in them.

  Args:
    memory: {"variance": Sums of mean_j sigma_j^2, "loss": Sums of l_i, ...}.
    batch: with the mask that the step has left; a loss counts where the label is known.
    logvar: [B, D], of maps [B, H, W, D].
    losses: [B].
  """
  index, num = combination_index(batch.mask), memory["loss"].total.shape[0]
  variance = jnp.exp(logvar.astype(jnp.float32)).reshape(logvar.shape[0], -1).mean(-1)
  new = {
    "variance": sums_of(index, variance, batch.weight, num),
    "loss": sums_of(index, losses, label_weight(batch), num),
  }
  return {k: jax.tree.map(jnp.add, memory[k], jax.lax.stop_gradient(v)) for k, v in new.items()}
