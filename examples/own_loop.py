"""Balancing in your own training loop: Optax and nothing else of ours but the rule."""

import jax
import jax.numpy as jnp
import optax

from mmfuse import balancing


def init(key, dims, hidden=16, classes=3):
  """Two encoders and a concatenating head: the top-level subtree names the modality."""
  keys = dict(zip(sorted(dims), jax.random.split(key, len(dims))))
  params = {m: {"w": jax.random.normal(keys[m], (d, hidden)) / d**0.5} for m, d in dims.items()}
  params["head"] = {m: jnp.zeros((hidden, classes)) for m in dims}
  return params


def unimodal_logits(params, inputs):
  """Each modality's share of the fused logits; their sum is the fused prediction."""
  return {m: jnp.tanh(inputs[m] @ params[m]["w"]) @ params["head"][m] for m in inputs}


def main(steps=200, rows=256):
  """OGM-GE as a link of the chain, then MMPareto on stacked gradients."""
  key = jax.random.key(0)
  label = jax.random.randint(key, (rows,), 0, 3)
  inputs = {
    "audio": jax.nn.one_hot(label, 3) + jax.random.normal(jax.random.fold_in(key, 1), (rows, 3)),
    "video": jax.nn.one_hot(label, 3) @ jnp.ones((3, 8)) + jax.random.normal(key, (rows, 8)),
  }
  mask = {m: jnp.ones(rows, bool) for m in inputs}
  params = init(key, {m: x.shape[-1] for m, x in inputs.items()})
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels

  # A modulator: a link of the chain; `scores` and `key` go to `update`.
  tx = optax.chain(balancing.ogm_ge(alpha=0.3), optax.sgd(0.1))

  def fused_loss(params):
    split = unimodal_logits(params, inputs)
    return cross_entropy(sum(split.values()), label).mean(), split

  @jax.jit
  def modulated(params, state, key):
    (loss, split), grads = jax.value_and_grad(fused_loss, has_aux=True)(params)
    scores = balancing.scores(split, label, mask)
    updates, state = tx.update(grads, state, params, scores=scores, key=key)
    return optax.apply_updates(params, updates), state, loss

  state = tx.init(params)
  for step in range(steps):
    params, state, loss = modulated(params, state, jax.random.fold_in(key, step))
  print(f"ogm_ge: loss {loss:.3f}")

  # An aggregator: gradients [K, *param] in, one direction out. Row 0 is the fused loss.
  names = sorted(inputs)
  tx2 = balancing.chain(balancing.mmpareto(1 + len(names), modalities=names), optax.sgd(0.1))

  def losses(params):
    split = unimodal_logits(params, inputs)
    return jnp.stack(
      [cross_entropy(z, label).mean() for z in (sum(split.values()), *(split[m] for m in names))]
    )

  @jax.jit
  def aggregated(params, state):
    values = losses(params)
    stacked = jax.jacrev(losses)(params)  # leaves [K, *param]
    updates, state = tx2.update(stacked, state, params, losses=values)
    return optax.apply_updates(params, updates), state, values[0]

  state = tx2.init(params)
  for _ in range(steps):
    params, state, loss = aggregated(params, state)
  print(f"mmpareto: loss {loss:.3f}")


if __name__ == "__main__":
  main()
