"""A classifier of pixels from two modalities, scored by Dice; places without a label are -1."""

import flax.linen as nn
import jax.numpy as jnp
import optax

from mmfuse import metrics, train
from mmfuse.core import Functions, Outputs

CONV = nn.Conv(2, (3, 3))


def init(key, inputs, mask):
  return {"params": {m: CONV.init(key, inputs[m])["params"] for m in ("a", "b")}, "batch_stats": {}}


def encode(variables, inputs, mask, *, train, rngs=None):
  said = {m: CONV.apply({"params": variables["params"][m]}, inputs[m]) for m in ("a", "b")}
  return said, variables["batch_stats"]


def heads(variables, features, mask, *, train, rngs=None):
  there = {m: mask[m].reshape(-1, 1, 1, 1) for m in features}
  logits = sum(jnp.where(there[m], f, 0.0) for m, f in features.items())
  return Outputs(logits, features=features), variables["batch_stats"]


def cross_entropy(outputs, batch, **extra):
  counts = (batch.label >= 0) * batch.weight.reshape(-1, 1, 1)
  rows = optax.softmax_cross_entropy_with_integer_labels(
    outputs.logits, jnp.maximum(batch.label, 0)
  )
  return {"fused": (counts * rows).sum() / jnp.maximum(counts.sum(), 1)}


def method(learning_rate=0.3):
  model = Functions(init, encode, heads, ("a", "b"))
  made = train.supervised(model, cross_entropy, train.sgd(learning_rate))
  metric = metrics.dense(metrics.classification(2))
  return made._replace(phases=(made.phases[0]._replace(metric=metric, select="macro_f1"),))
