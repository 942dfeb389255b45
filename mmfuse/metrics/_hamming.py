"""Ranking by Hamming distance: codes packed into words, distances counted by `lax.population_count`."""

import jax
import jax.numpy as jnp
import numpy as np


def pack_bits(codes: np.ndarray) -> np.ndarray:
  """Bits [N, L] (what is above 0 is 1) in unsigned integers [N, W]: one bit each, 1/32 of float32.

  The widest of uint32, uint16 and uint8 that L fills; a last byte is filled up with zeros.

  Raises ValueError for what is not [N, L] with L >= 1.
  """
  codes = np.asarray(codes)
  if codes.ndim != 2 or not codes.shape[1]:
    raise ValueError(f"codes are [N, L] of at least one bit, got {list(codes.shape)}")
  found = np.packbits(codes > 0, axis=1)
  width = next(w for w in (4, 2, 1) if found.shape[1] % w == 0)
  return np.ascontiguousarray(found).view(f"u{width}")


@jax.jit
def _distances(query: jax.Array, database: jax.Array) -> jax.Array:
  """[Q, D]: how many bits of [Q, W] and [D, W] differ, in the narrowest integers that hold it."""
  most = 8 * query.dtype.itemsize * query.shape[1]
  dtype = jnp.uint8 if most < 256 else jnp.uint16
  total = jnp.zeros((query.shape[0], database.shape[0]), dtype)
  for word in range(query.shape[1]):
    different = query[:, word, None] ^ database[None, :, word]
    total += jax.lax.population_count(different).astype(dtype)
  return total


def hamming_distances(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """[Q, D] of packed codes [Q, W] and [D, W]: the number of bits that differ.

  Raises ValueError for codes that were not packed alike.
  """
  if query.dtype != database.dtype or query.shape[1:] != database.shape[1:]:
    said = [f"{x.dtype} {list(x.shape)}" for x in (query, database)]
    raise ValueError(f"codes must be packed alike (pack_bits), got {said[0]} and {said[1]}")
  return np.asarray(_distances(query, database))


def hamming_ranking(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """int [Q, D]: database rows by distance from packed codes, nearest first, ties by index.

  Distances are small integers, which a stable sort of numpy ranks in linear time.
  """
  return np.argsort(hamming_distances(query, database), axis=1, kind="stable")
