"""Skeletons: joint, bone and motion embedded apart, joined early, read by Transformers of frames and joints.

Sun, Liu, Dong, Qu, Gao, Yang, Wang, Wang: Unified Multi-modal Unsupervised Representation Learning for
Skeleton-based Action Understanding, ACM MM 2023.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.data._skeleton_graph import NTU_PARENTS
from mmfuse.encoders._attend import attend, split_heads
from mmfuse.encoders._dense import Dense
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import entry_at
from mmfuse.encoders._skeleton_streams import (
  STREAMS,
  skeleton_streams,
  skeleton_tokens,
  whole_frames,
)

BRANCHES = ("temporal", "spatial")


def interleaved_positions(rows: int, width: int) -> np.ndarray:
  """sin(p f_i) in the channels 2 i, cos(p f_i) in 2 i + 1, f_i = 1e4^(-2 i / width): [rows, width]."""
  angle = np.arange(rows)[:, None] * 1e4 ** (-np.arange(0, width, 2) / width)
  table = np.stack([np.sin(angle), np.cos(angle)], -1).reshape(rows, -1)
  return table[:, :width].astype(np.float32)


class Embed(nn.Module):
  """Dense to D, layer norm, ReLU, dense to D."""

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = Dense(self.width, name="up")(x)
    h = Norm(name="norm")(h, None, train=False)
    return Dense(self.width, name="out")(nn.relu(h))


class PostNorm(nn.Module):
  """x <- norm(x + attention(x)); x <- norm(x + W relu(V x)), of one width throughout."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    norm = lambda name, a: Norm(name=name)(a, None, train=False)
    q, k, v = split_heads(Dense(3 * width, name="qkv")(x), self.heads)
    read = attend(q, k, v, None).reshape(x.shape)
    x = norm("norm1", x + Dense(width, name="read")(read))
    up = nn.relu(Dense(width, name="up")(x))
    return norm("norm2", x + Dense(width, name="down")(up))


class Skeleton(nn.Module):
  r"""x [B, T, P, J, C], persons and joints in C coordinates, -> [B, 2 hidden].

  h = [max_t f(W mean_k e_k(x_k) + position), max_j g(V mean_k d_k(x_k))], k over joint, bone and motion
  (`skeleton_streams`): e_k of a token a frame, d_k of one a joint and person (`Embed`), f and g layers of
  `PostNorm` without dropout. Absent persons are zeros, and read as such.

  x may be a `core.Sequence`: the valid frames of a row are resized to `frames`, here and in training.

  Args:
    hidden: width throughout, default 64 (the paper has 1,024).
    layers: of each Transformer, default 1 (the paper's).
    heads: default 1 (the paper's).
    frames: T of the tokens; default None, that of the arrays (the paper has 64).
    parents: of each joint, counted from 0; default those of the 25 joints of NTU RGB+D.

  Raises:
    ValueError: hidden that is no multiple of heads, another rank or number of joints than parents.
  """

  reads_lengths = True

  hidden: int = 64
  layers: int = 1
  heads: int = 1
  frames: int | None = None
  parents: tuple[int, ...] = NTU_PARENTS

  @property
  def features(self) -> int:
    """Output width."""
    return 2 * self.hidden

  def setup(self):
    """An embedding for each stream and branch, a map and layers for each branch."""
    if self.hidden % self.heads:
      raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
    pairs = [(k, b) for k in STREAMS for b in BRANCHES]
    self.embeddings = {f"{k}_{b}": Embed(self.hidden) for k, b in pairs}
    self.joined = {b: Dense(self.hidden, use_bias=False) for b in BRANCHES}
    depth = range(self.layers)
    self.blocks = {f"{b}{i}": PostNorm(self.heads) for b in BRANCHES for i in depth}

  def __call__(self, x: Any, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train  # rows never meet, and nothing is drawn
    streams = self.streams(whole_frames(x, self.frames))
    each = [self.embed(k, v) for k, v in sorted(streams.items())]
    return self.encode({b: self.joined[b](sum(e[b] for e in each) / len(each)) for b in BRANCHES})

  def streams(self, x: jax.Array) -> dict[str, jax.Array]:
    """Joint, bone and motion. Raises ValueError for what is no such skeleton."""
    if x.ndim != 5 or x.shape[3] != len(self.parents):
      raise ValueError(
        f"a skeleton is [B, T, persons, {len(self.parents)} joints, coordinates], got shape "
        f"{list(x.shape)}; other joints take encoders.Skeleton(parents=...)"
      )
    return skeleton_streams(x, self.parents)

  def embed(self, stream: str, x: jax.Array) -> dict[str, jax.Array]:
    """{branch: tokens [B, n, hidden]} of one stream."""
    tokens = zip(BRANCHES, skeleton_tokens(x))
    return {b: self.embeddings[f"{stream}_{b}"](v) for b, v in tokens}

  def encode(self, tokens: Mapping[str, jax.Array]) -> jax.Array:
    """[B, 2 hidden] of tokens of whatever stream, or of all."""
    found = []
    for b in BRANCHES:
      h = tokens[b]
      if b == "temporal":
        h = h + jnp.asarray(interleaved_positions(*h.shape[1:]), h.dtype)[None]
      for i in range(self.layers):
        h = self.blocks[f"{b}{i}"](h)
      found.append(entry_at(h, jnp.argmax))
    return jnp.concatenate(found, -1)

  def apart_and_joined(
    self, apart: Mapping[str, jax.Array], x: jax.Array
  ) -> tuple[dict[str, jax.Array], jax.Array]:
    """({stream: [B, 2 hidden]}, [B, 2 hidden]) in one pass: each stream alone, and all of x together.

    Args:
      apart: {stream: a skeleton of its own [B, T, P, J, C]}, of which that stream is read.
      x: [B, T, P, J, C].
    """
    names, rows, whole = sorted(apart), x.shape[0], self.streams(x)
    pairs = {k: jnp.concatenate([self.streams(apart[k])[k], whole[k]]) for k in names}
    each = [self.embed(k, v) for k, v in pairs.items()]  # rows apart, then rows of all together
    tokens = {}
    for b in BRANCHES:
      joined = self.joined[b](sum(e[b][rows:] for e in each) / len(each))
      tokens[b] = jnp.concatenate([*(e[b][:rows] for e in each), joined])
    parts = jnp.split(self.encode(tokens), len(each) + 1)
    return dict(zip(names, parts)), parts[-1]
