"""Pre-norm Transformer encoder of sequences, with read-only prompts."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._attend import attend, split_heads
from mmfuse.encoders._dense import Dense
from mmfuse.encoders._kept import dropped, kept
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._sequence import length_of, mean_over, steps_of_vectors

POOLS = ("token", "mean", "none")


# Its tanh is not kept for the gradient but computed again: on CPU that costs less than reading it.
gelu = jax.checkpoint(nn.gelu)


def attend_read_only(prompts: Any, tokens: Any, valid: jax.Array | None) -> jax.Array:
  """What prompts read, of tokens and of each other: [B, P, heads, d].

  prompts, tokens: (q, k, v), each [B, P or T, heads, d]; valid [B, T], None = all. Tokens never read
  prompts: theirs is `attend` of themselves, the same numbers with prompts and without.
  """
  k, v = (jnp.concatenate(pair, 1) for pair in zip(tokens[1:], prompts[1:], strict=True))
  if valid is None:
    return attend(prompts[0], k, v, None)
  seen = jnp.pad(valid, ((0, 0), (0, prompts[0].shape[1])), constant_values=True)
  return attend(prompts[0], k, v, seen[:, None])


class Block(nn.Module):
  """x + attention(norm(x)), then x + MLP(norm(x)) with GELU and a hidden width of 4 D.

  valid bool [B, T], None = all. With prompts [B, P, D], (x, prompts) of the same layers: prompts read x and
  themselves, x reads itself.
  keep bool [B, 2, T + P, D] is what dropout leaves of both halves, None everything. first: of x only that
  many positions are wanted, which read all of x; None = all.
  """

  heads: int
  dropout: float

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    valid: jax.Array | None,
    prompts: jax.Array | None = None,
    *,
    keep: jax.Array | None = None,
    first: int | None = None,
    train: bool,
  ) -> Any:
    steps, width = x.shape[1:]
    norm1, norm2 = Norm(name="norm1"), Norm(name="norm2")
    qkv, out = Dense(3 * width, name="qkv"), Dense(width, name="out")
    up, down = Dense(4 * width, name="up"), Dense(width, name="down")

    def dealt(x) -> list[jax.Array]:
      return split_heads(qkv(norm1(x, None, train=train)), self.heads)

    def finished(x, h, own):
      drop = lambda a, half: dropped(a, None if keep is None else keep[:, half, own], self.dropout)
      x = x + drop(out(h.reshape(x.shape)), 0)
      h = norm2(x, None, train=train)
      return x + drop(down(gelu(up(h))), 1)

    q, k, v = dealt(x)
    h = attend(q[:, :first], k, v, None if valid is None else valid[:, None])
    h = finished(x[:, :first], h, slice(first or steps))
    if prompts is None:
      return h
    # In products of their own: no number of the tokens' changes.
    read = attend_read_only(dealt(prompts), (q, k, v), valid)
    return h, finished(prompts, read, slice(steps, None))


class Transformer(nn.Module):
  """x [B, T, C] -> [B, features]: dense to D = features, learned positions, pre-norm blocks, norm.

  x may be a `core.Sequence`; steps beyond the length are not attended to. T is fixed by the first
  batch. Vaswani et al., Attention Is All You Need, NeurIPS 2017; pre-norm: Xiong et al., On Layer
  Normalization in the Transformer Architecture, ICML 2020.

  With prompts, [B, 1 + prompts, features]: what it is without them, bit for bit, then what each of the
  learned vectors "prompts" [P, D] has read, in every block, of all steps and of the prompts. No step
  reads a prompt (Lee et al., Read-only Prompt Optimization for Vision-Language Few-shot Learning,
  ICCV 2023).

  Args:
    features: D, default 64; sizes are ours.
    layers: blocks, default 2.
    heads: of the attention, default 4.
    dropout: after both halves of a block, default .1 (Vaswani et al.).
    pool: "token" (default), a learned class token; "mean" over the valid steps; "none": all steps
      [B, T, features], invalid ones zero, for a fusion that attends to them.
    prompts: P, default 0, none.
    position_std: standard deviation of positions at first, default .02; about 1 lets a mean over steps know
      from the beginning where they stood.

  Raises:
    ValueError: features that are no multiple of heads, an unknown pool, prompts below 0 or beside
      pool="none".
  """

  reads_lengths = True

  features: int = 64
  layers: int = 2
  heads: int = 4
  dropout: float = 0.1
  pool: str = "token"
  prompts: int = 0
  position_std: float = 0.02

  @property
  def step_features(self) -> int | None:
    """The width of a step where the result is a sequence of them."""
    return self.features if self.pool == "none" else None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask  # rows never meet: an absent one cannot reach the others
    self._check()
    values, valid = steps_of_vectors(x)
    normal = nn.initializers.normal(0.02)
    h = Dense(self.features, name="embed")(values)
    spread = nn.initializers.normal(self.position_std)
    h = h + self.param("positions", spread, (1, *h.shape[1:]))
    if self.pool == "token":
      token = self.param("token", normal, (1, 1, self.features))
      h = jnp.concatenate([jnp.broadcast_to(token, (h.shape[0], 1, self.features)), h], 1)
      valid = jnp.pad(valid, ((0, 0), (1, 0)), constant_values=True)
    asked = None if length_of(x) is None else valid
    read = None
    if self.prompts:
      learned = self.param("prompts", normal, (self.prompts, self.features))
      read = jnp.broadcast_to(learned[None], (h.shape[0], *learned.shape))
    keep = self._keep(h, read) if train and self.dropout else None
    for i in range(self.layers):
      block = Block(self.heads, self.dropout, name=f"block{i}")
      own = None if keep is None else keep[:, 2 * i : 2 * i + 2]
      # Of the last block the token alone is read: half of that block's arithmetic is not done.
      first = 1 if self.pool == "token" and i == self.layers - 1 else None
      if read is None:
        h = block(h, asked, keep=own, first=first, train=train)
      else:
        h, read = block(h, asked, read, keep=own, first=first, train=train)
    norm = Norm(name="norm")
    h = norm(h, None, train=train)
    if self.pool == "none":
      return jnp.where(valid[..., None], h, jnp.zeros((), h.dtype))
    pooled = h[:, 0] if self.pool == "token" else mean_over(h, valid)
    if read is None:
      return pooled
    read = norm(read, None, train=train)
    return jnp.concatenate([pooled[:, None], read], 1)

  def _keep(self, h: jax.Array, read: jax.Array | None) -> jax.Array:
    """bool [B, 2 L, T + P, D]; what prompts draw comes after, so that it changes nothing of the steps'."""
    drawn = [
      kept(self.make_rng("dropout"), self.dropout, (x.shape[0], 2 * self.layers, *x.shape[1:]))
      for x in (h, read)
      if x is not None
    ]
    return jnp.concatenate(drawn, 2)

  def _check(self):
    if self.features % self.heads:
      raise ValueError(f"features ({self.features}) must be a multiple of heads ({self.heads})")
    if self.pool not in POOLS:
      raise ValueError(f"pool is 'token', 'mean' or 'none', got {self.pool!r}")
    if self.prompts < 0 or (self.prompts and self.pool == "none"):
      raise ValueError(
        f"prompts are at least 0 and need a pool, got prompts={self.prompts} and pool={self.pool!r}"
      )
