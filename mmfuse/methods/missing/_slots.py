"""Slots that mean the same for every modality, their sum, and two branches that read half of them each.

The network of Zhang, Doughty and Snoek, Learning Unseen Modality Interaction, NeurIPS 2023; its training
is in `_unseen_interaction.py`.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.encoders import Norm
from mmfuse.encoders._attend import attend, split_heads
from mmfuse.encoders._dense import Dense
from mmfuse.fusion._features import sequences, within
from mmfuse.names import CLASSIFICATION, MULTILABEL

# Of positions and tokens: as wide as what they stand beside, so that slots differ from the first step.
WIDE = nn.initializers.normal(1.0)
TOKENS = "tokens"  # the parameter [U, width] that aligned features are drawn to


def reorganise(features: jax.Array, logits: jax.Array, valid: jax.Array | None = None) -> jax.Array:
  """F = P^T f [B, k, D], P = softmax over k slots of logits [B, n, k]; f [B, n, D].

  A token deals all of itself out, so that the slots add up to the tokens. valid: bool [B, n], the
  tokens that count; None = all.
  """
  places = jax.nn.softmax(logits)
  if valid is not None:
    places = jnp.where(valid[..., None], places, 0.0)
  return jnp.einsum("bnk,bnd->bkd", places.astype(features.dtype), features)


def add_present(features: Mapping[str, jax.Array], mask: Mapping[str, jax.Array]) -> jax.Array:
  """The sum of x_m [B, k, d] over the modalities that are there; 0 where there is none."""
  kept = masks.fill(features, mask)
  return sum((kept[m] for m in sorted(kept)), jnp.zeros((), jnp.float32))


def to_branches(x: jax.Array, branches: int) -> jax.Array:
  """[R class tokens, group 1, ..., group R] [B, R + R g, D] -> [B R, 1 + g, D], a class token a group."""
  rows, steps, width = x.shape
  groups = x[:, branches:].reshape(rows, branches, steps // branches - 1, width)
  joined = jnp.concatenate([x[:, :branches, None], groups], 2)
  return joined.reshape(rows * branches, steps // branches, width)


def from_branches(x: jax.Array, branches: int) -> jax.Array:
  """What `to_branches` took apart."""
  rows, steps, width = x.shape[0] // branches, x.shape[1], x.shape[2]
  x = x.reshape(rows, branches, steps, width)
  return jnp.concatenate([x[:, :, 0], x[:, :, 1:].reshape(rows, -1, width)], 1)


def mean_of_branches(z: jax.Array, task: str) -> jax.Array:
  """The mean of what R branches say, as logits: z [B, R, C] -> [B, C].

  classification: log mean_r softmax(z_r); multilabel: the logit of mean_r sigmoid(z_r); else the
  mean of z_r.
  """
  mean = lambda log_p: jax.nn.logsumexp(log_p, axis=1) - math.log(z.shape[1])
  if task == CLASSIFICATION:
    return mean(jax.nn.log_softmax(z))
  if task == MULTILABEL:
    return mean(jax.nn.log_sigmoid(z)) - mean(jax.nn.log_sigmoid(-z))
  return jnp.mean(z, 1)


class Attention(nn.Module):
  """softmax(q k^T / sqrt(d)) v of x [B, T, D], `heads` of `width` d, then dense to D; q, k, v: no bias."""

  heads: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
    rows, steps, features = x.shape
    qkv = Dense(3 * self.heads * self.width, use_bias=False, name="qkv")(x)
    q, k, v = split_heads(qkv, self.heads)
    return Dense(features, name="out")(attend(q, k, v, valid[:, None]).reshape(rows, steps, -1))


class Layers(nn.Module):
  """`layers` times x + attention(norm(x)), x + MLP(norm(x)), GELU; attention and MLP are 2 D wide."""

  layers: int
  heads: int

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array, *, train: bool) -> jax.Array:
    width = x.shape[-1]
    norm = lambda name: Norm(name=name)
    for i in range(self.layers):
      attention = Attention(self.heads, 2 * width // self.heads, name=f"attention{i}")
      x = x + attention(norm(f"norm{i}")(x, valid, train=train), valid)
      h = Dense(2 * width, name=f"up{i}")(norm(f"norm_mlp{i}")(x, valid, train=train))
      x = x + Dense(width, name=f"down{i}")(nn.gelu(h))
    return x


class Common(nn.Module):
  """norm(dense(norm(x))), to `width`."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array, *, train: bool) -> jax.Array:
    x = nn.Dense(self.width, name="dense")(Norm(name="before")(x, valid, train=train))
    return Norm(name="after")(x, valid, train=train)


class Reorganised(nn.Module):
  """Tokens f [B, n, D] of a modality -> F [B, slots, D]: a transformer says where each of them goes."""

  slots: int
  width: int
  layers: int
  heads: int

  @nn.compact
  def __call__(self, f: jax.Array, valid: jax.Array, *, train: bool) -> jax.Array:
    h = Common(self.width, name="embed")(f, valid, train=train)
    h = h + self.param("positions", WIDE, (1, *h.shape[1:]))
    h = Layers(self.layers, self.heads, name="layers")(h, valid, train=train)
    logits = nn.Dense(self.slots, name="place")(Norm(name="norm")(h, valid, train=train))
    return reorganise(f, logits, valid)


class SlotFusion(nn.Module):
  r"""z = branches(\sum_m s_m e_m), e_m = norm(dense(norm(F_m))) of tokens dealt out to slots.

  `(features {m: [B, n_m, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], beside)`.
  The sum runs over the modalities that are present, so that an absent one adds nothing. Branch r of R
  attends to its own k / R slots and its class token, from which one head for all branches reads z_r.
  beside["members"] is z [B, R, C], beside["latent"] {m: the mean of e_m over slots [B, width]}, 0 where
  absent; logits are `mean_of_branches`. params["tokens"] [U, width] is for the loss alone.

  Args:
    task: of the label.
    slots: k, a multiple of branches.
    width: of e, d.
    layers: of each modality's transformer and of that of the branches.
    heads: of their attention.
    tokens: U, of tasks without classes; one a class otherwise.
    branches: R, default 2.
  """

  reads_steps = True

  task: str
  slots: int
  width: int
  layers: int
  heads: int
  tokens: int
  branches: int = 2

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    common = {}
    for m, given in sequences(features, mask).items():
      sizes = (self.slots, self.width, self.layers, self.heads)
      reorganised = Reorganised(*sizes, name=f"reorganise_{m}")
      dealt = reorganised(given.values, within(given), train=train)
      every = jnp.ones(dealt.shape[:2], bool)
      common[m] = Common(self.width, name=f"embed_{m}")(dealt, every, train=train)
    latent = masks.fill({m: e.mean(1) for m, e in common.items()}, mask)
    total = add_present(common, mask)
    count = num_classes if self.task == CLASSIFICATION else self.tokens
    self.param(TOKENS, WIDE, (count, self.width))
    total = total + self.param("positions", WIDE, (1, self.slots, self.width))
    tops = self.param("class_tokens", WIDE, (1, self.branches, self.width))
    rows = total.shape[0]
    x = jnp.concatenate([jnp.broadcast_to(tops, (rows, *tops.shape[1:])), total], 1)
    x = to_branches(x, self.branches)
    every = jnp.ones(x.shape[:2], bool)
    x = Layers(self.layers, self.heads, name="branches")(x, every, train=train)[:, 0]
    x = Norm(name="norm")(x, every[:, 0], train=train)
    z = nn.Dense(num_classes, name="out")(x).reshape(rows, self.branches, num_classes)
    return mean_of_branches(z, self.task), {"members": z, "latent": latent}
