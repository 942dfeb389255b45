"""A balancing rule of your own in one file: weight each objective by its share of the smoothed loss.

It composes with any Optax transform and stands in the same table as the built-in rules:

    mmfuse compare --methods joint,uniform,examples/loss_share.py:loss_share
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing, methods, objectives, train


class LossShareState(NamedTuple):
  weights: jax.Array  # [K], on the simplex. Logged under this name.
  ema: jax.Array  # [K], moving average of the objectives.


def aggregate_by_loss_share(num_objectives: int, decay: float = 0.9) -> balancing.Aggregator:
  r"""w_k = ema_k / \sum_j ema_j; maps updates [K, *param] -> [*param]."""

  def init_fn(params):
    del params
    uniform = jnp.full(num_objectives, 1.0 / num_objectives, jnp.float32)
    return LossShareState(weights=uniform, ema=jnp.zeros(num_objectives, jnp.float32))

  def update_fn(updates, state, params=None, *, losses, **extra_args):
    del params, extra_args  # Take what you need by keyword, ignore the rest.
    ema = decay * state.ema + (1 - decay) * losses
    weights = ema / jnp.maximum(ema.sum(), 1e-8)
    combined = jax.tree.map(lambda g: jnp.tensordot(weights, g, axes=1), updates)
    return combined, LossShareState(weights, ema)

  return balancing.Aggregator(init_fn, update_fn)


@methods.Entry
def loss_share(model, tx):
  """A row of your own, as those of `methods.METHODS`: what `--methods file.py:loss_share` takes."""
  return train.supervised(
    model,
    objectives.fused_and_unimodal,
    aggregator=aggregate_by_loss_share(1 + len(model.modalities)),
    tx=optax.chain(optax.clip_by_global_norm(5.0), tx),
  )


def main():
  """The library's own contract tests, on yours."""
  balancing.check_contract(aggregate_by_loss_share, num_objectives=3)
  print("loss_share keeps the contract of an aggregator")


if __name__ == "__main__":
  main()
