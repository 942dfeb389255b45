"""A two-layer VAE of all modalities together, selected by its ELBO; it needs no label."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import train
from mmfuse.core import ELBO, Outputs


class VAE(nn.Module):
  @nn.compact
  def __call__(self, inputs, key):
    x = jnp.concatenate([inputs[m] for m in sorted(inputs)], 1)
    mu, logvar = jnp.split(nn.Dense(8)(nn.relu(nn.Dense(16)(x))), 2, 1)
    z = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
    said = nn.Dense(x.shape[1])(nn.relu(nn.Dense(16)(z)))
    kl = 0.5 * (jnp.exp(logvar) + mu**2 - 1 - logvar).sum(1)
    return -0.5 * ((said - x) ** 2 + jnp.log(2 * jnp.pi)).sum(1) - kl


NET = VAE()


def loss(variables, batch, key, clock, memory):
  elbo = NET.apply(variables, batch.inputs, key)
  return -(batch.weight * elbo).sum() / jnp.maximum(batch.weight.sum(), 1), train.Aux()


def predict(variables, memory, inputs, mask):
  elbo = NET.apply({"params": variables["params"]}, inputs, jax.random.key(0))
  return Outputs(None, aux={ELBO: elbo})


def method(learning_rate=0.01):
  init = lambda key, batch, num_rows: (NET.init(key, batch.inputs, key), {})
  return train.minimise(init, loss, train.adam(learning_rate), predict=predict)
