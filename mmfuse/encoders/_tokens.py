"""Any modality as a sequence of tokens: what a Transformer of images, vectors or words reads."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.core import Sequence
from mmfuse.encoders._sequence import as_array, length_of, steps

SEGMENTS = 8  # of a vector
GRID = 4  # patches along either side of an image
STEPS = 32  # tokens of a sequence


def as_tokens(x: Any) -> Any:
  """x of any kind, cut into tokens: [B, T, C], or a `core.Sequence` of them where x is one.

  Vectors [B, D]: at most 8 segments of equal width; [B] is one token. Images [B, H, W, C]: at most 4
  x 4 patches of equal size, row by row. Sequences [B, T, C]: their steps; of frames [B, T, H, W, C] each
  is one; where there are more than 32, neighbours stand side by side in one token, whose last one a
  row's end may cut. What does not divide is filled up with zeros. Nothing is lost and nothing learnt;
  the numbers are ours. Raises TypeError for integers, which `Tokens` embeds.
  """
  values = x.values if isinstance(x, Sequence) else x
  if not jnp.issubdtype(values.dtype, jnp.floating):
    raise TypeError(f"tokens are cut from floats, got dtype {values.dtype}; integers need `Tokens`")
  if isinstance(x, Sequence) or values.ndim not in (1, 2, 4):
    return _grouped(x)
  return _patches(values) if values.ndim == 4 else _segments(values)


def _filled(x: jax.Array, axis: int, size: int) -> jax.Array:
  """x with zeros after the end of an axis, up to a multiple of `size`."""
  after = [(0, -x.shape[axis] % size if a == axis else 0) for a in range(x.ndim)]
  return jnp.pad(x, after)


def _segments(x: jax.Array) -> jax.Array:
  x = x.reshape(x.shape[0], -1)
  size = math.ceil(x.shape[1] / SEGMENTS)
  return _filled(x, 1, size).reshape(x.shape[0], -1, size)


def _patches(x: jax.Array) -> jax.Array:
  high, wide = (math.ceil(n / GRID) for n in x.shape[1:3])
  x = _filled(_filled(x, 1, high), 2, wide)
  rows, height, width, channels = x.shape
  x = x.reshape(rows, height // high, high, width // wide, wide, channels)
  return jnp.swapaxes(x, 2, 3).reshape(rows, -1, high * wide * channels)


def _grouped(x: Any) -> Any:
  values, _ = steps(x)
  values = values.reshape(*values.shape[:2], -1)
  size = math.ceil(values.shape[1] / STEPS)
  values = _filled(values, 1, size).reshape(values.shape[0], -1, size * values.shape[2])
  length = length_of(x)
  return values if length is None else Sequence(values, -(-length // size))


class Tokens(nn.Module):
  """`as_tokens` as the first stage of a `Chain`; integers are embedded first, [B, L, width].

  Negative integers are padding: zeros, and nothing where they end a row. Those from `vocabulary` on
  share one extra row, "unknown", as in `Embedding`.

  Args:
    vocabulary: how many there are of integers; default None, for floats.
    width: of an embedding, default 64.

  Raises:
    TypeError: integers without a vocabulary.
  """

  reads_lengths = True

  vocabulary: int | None = None
  width: int = 64

  @nn.compact
  def __call__(self, x: Any, mask: jax.Array, *, train: bool) -> Any:
    del mask, train  # rows never meet
    return as_tokens(x if self.vocabulary is None else self._embedded(x))

  def _embedded(self, x: Any) -> Sequence:
    size, normal = (self.vocabulary or 0) + 1, nn.initializers.normal(1.0)
    table = self.param("table", normal, (size, self.width))
    whole = as_array(x)
    x = x if isinstance(x, Sequence) else whole.reshape(whole.shape[0], -1)
    tokens, valid = steps(x)
    valid = valid & (tokens >= 0)
    h = jnp.take(table, jnp.clip(tokens, 0, size - 1), axis=0, mode="clip")
    h = jnp.where(valid[..., None], h, jnp.zeros((), h.dtype))
    place = jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.int32)
    return Sequence(h, jnp.max(jnp.where(valid, place[None], 0), 1))
