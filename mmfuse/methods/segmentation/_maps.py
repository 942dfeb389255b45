"""Class activation maps: how they are normalised, compared, and shown beside Grad-CAM and Grad-CAM++.

As in the code released with Patel and Dolz, Medical Image Analysis 77, 2022 (`utils/CAM_utils.py`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.encoders._pool import entry_at

EPS = 1e-8  # of the normalisation
NORM_EPS = 1e-12  # added to every place before the norm of a map, and to a standard deviation


def standardised(x: jax.Array) -> jax.Array:
  """(x - mean) / (std + 1e-12) of each row and channel of x [B, H, W, C]; std unbiased, a constant is 0."""
  # Less its first place a constant is 0 to the last bit, whatever its mean is rounded to.
  x = x.astype(jnp.float32)
  x = x - x[:, :1, :1]
  x = x - x.mean((1, 2), keepdims=True)
  places = max(x.shape[1] * x.shape[2] - 1, 1)
  std = jnp.sqrt(jnp.square(x).sum((1, 2), keepdims=True) / places)
  return x / (std + NORM_EPS)


def max_normalised(maps: jax.Array) -> jax.Array:
  r"""N(c) = relu(r - min r - 1e-8) / (max r - min r + 1e-8), r = relu(c), over H, W of each row and class.

  maps: c [B, H, W, C]. In [0, 1], and the same of a map times a positive number, up to the 1e-8.
  """
  r = jax.nn.relu(maps.astype(jnp.float32))
  flat = r.reshape(r.shape[0], -1, r.shape[-1])
  least, most = (entry_at(flat, where)[:, None, None] for where in (jnp.argmin, jnp.argmax))
  return jax.nn.relu(r - least - EPS) / (most - least + EPS)


def unit_map(p: jax.Array) -> jax.Array:
  """p / ||p + 1e-12||_F of each row of p [B, H, W]; all zero stays so, with a finite gradient."""
  size = jnp.sqrt(jnp.square(p + NORM_EPS).sum((1, 2), keepdims=True))
  return p / size


def map_distances(p: jax.Array, q: jax.Array) -> jax.Array:
  """[B]: the mean over H, W of (p / ||p + 1e-12||_F - q / ||q + 1e-12||_F)^2 of maps [B, H, W]."""
  return jnp.square(unit_map(p) - unit_map(q)).mean((1, 2))


def pooled(maps: jax.Array) -> jax.Array:
  """Logits [B, C] of maps [B, H, W, C]: their mean over H, W."""
  return maps.astype(jnp.float32).mean((1, 2))


def shown(maps: Any, size: tuple[int, int]) -> Any:
  """relu(maps [B, H, W]) enlarged to `size` with the corners kept, then (x - min) / (max - min + 1e-8).

  This and Grad-CAM take arrays of NumPy as well, whose float64 they keep.
  """
  big = _enlarged(_enlarged(_relu(maps), size[1]).swapaxes(1, 2), size[0]).swapaxes(1, 2)
  least = big.min((1, 2), keepdims=True)
  return (big - least) / (big.max((1, 2), keepdims=True) - least + EPS)


def _relu(x: Any) -> Any:
  return x * (x > 0)


def _enlarged(x: Any, size: int) -> Any:
  """Linear interpolation along the last axis, whose ends stay where they are."""
  old = x.shape[-1]
  place = np.linspace(0.0, old - 1.0, size) if size > 1 else np.zeros(1)
  weight = np.maximum(1.0 - np.abs(np.arange(old)[:, None] - place[None]), 0.0).astype(x.dtype)
  return (x.reshape(-1, old) @ weight).reshape(*x.shape[:-1], size)


def grad_cam(activations: Any, gradients: Any) -> Any:
  r"""\sum_c w_c a_c [B, H, W], w_c the mean over H, W of g_c (Selvaraju et al., ICCV 2017).

  Args:
    activations: a [B, H, W, C] of the last feature layer.
    gradients: g alike, of the score of a class.
  """
  return (activations * gradients.mean((1, 2), keepdims=True)).sum(-1)


def grad_cam_pp(activations: Any, gradients: Any) -> Any:
  r"""\sum_c w_c a_c, w_c = \sum_{HW} alpha relu(g) (Grad-CAM++, Chattopadhay et al., WACV 2018).

  alpha = g^2 / (2 g^2 + \sum_{HW} (a g^3) + 1e-8), which may pass near 0: take float64 where that
  matters. The released code multiplies g by exp(score), which `shown` takes out again.

  Args:
    activations, gradients: as in `grad_cam`.
  """
  square = gradients * gradients
  total = (activations * gradients * square).sum((1, 2), keepdims=True)
  alpha = square / (2 * square + total + EPS)
  weight = (alpha * _relu(gradients)).sum((1, 2), keepdims=True)
  return (activations * weight).sum(-1)
