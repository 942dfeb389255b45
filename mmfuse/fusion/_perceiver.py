"""Latent fusion: a few learned latents read the tokens of all modalities.

Jaegle et al.: Perceiver: General Perception with Iterative Attention, ICML 2021; for several
modalities at once: Liang et al., High-Modality Multimodal Transformer (HighMMT), TMLR 2023.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.encoders._dense import Dense
from mmfuse.fusion._attention import Block, check_counts, check_width
from mmfuse.fusion._features import sequences, within


def fourier(length: jax.Array, steps: int, bands: int) -> jax.Array:
  """[B, T, 1 + 2 bands]: p, sin(pi f p), cos(pi f p); p even in [-1, 1], f even in [1, L / 2].

  length: L [B] of T steps; a row of one step is at p = 0, and f is never below 1.
  """
  whole = jnp.maximum(length, 1).astype(jnp.float32)[:, None]
  p = 2 * jnp.arange(steps, dtype=jnp.float32)[None] / jnp.maximum(whole - 1, 1) - 1
  p = jnp.where(whole > 1, p, 0.0)[..., None]
  share = jnp.linspace(0, 1, bands)[None]
  f = 1 + (jnp.maximum(whole / 2, 1) - 1) * share
  angles = jnp.pi * p * f[:, None]
  return jnp.concatenate([p, jnp.sin(angles), jnp.cos(angles)], -1)


class Perceiver(nn.Module):
  """Z += cross(Z, [x_1; ...; x_M]), self-attention on Z [N, E], logits = W mean norm(Z) + b.

  `(features {m: [B, D_m] or [B, T_m, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits
  [B, C], None)`; [B, D] is a sequence of one step. Tokens x_m[t] = P_m [h_m[t]; fourier(t)] + e_m;
  the sources pad the tokens of all modalities to one width where here P_m maps them. Pre-norm
  blocks, GELU, 4 E hidden; one cross-attention, then `layers` of self-attention. Absent modalities
  are not attended to; with nobody the latents alone speak. Any M >= 1. From the papers' equations.

  Args:
    latents: N, default 16, drawn N(0, 0.02^2) as the Perceiver's; the papers use hundreds on long
      inputs. Defaults are ours, small.
    width: E, default 64.
    heads: of the attention, default 4.
    layers: of self-attention, default 2.
    bands: frequencies of fourier(t), default 4.

  Raises:
    ValueError: a width that is no multiple of heads, or a count below 1.
  """

  reads_steps = True  # of encoders that keep them (pool="none"); other features are one step

  latents: int = 16
  width: int = 64
  heads: int = 4
  layers: int = 2
  bands: int = 4

  def __post_init__(self):
    check_width(self.width, self.heads)
    check_counts(latents=self.latents, layers=self.layers, bands=self.bands)
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    normal, tokens, allowed = nn.initializers.normal(0.02), [], []
    for m, h in sequences(features, mask).items():
      rows, steps = h.values.shape[:2]
      place = fourier(h.length, steps, self.bands).astype(h.values.dtype)
      which = self.param(f"modality_{m}", normal, (1, 1, self.width))
      dense = Dense(self.width, name=f"project_{m}")
      tokens.append(dense(jnp.concatenate([h.values, place], -1)) + which)
      allowed.append(within(h))
    z = self.param("latents", normal, (1, self.latents, self.width))
    z = jnp.broadcast_to(z, (rows, self.latents, self.width))
    present = jnp.concatenate(allowed, 1)[:, None, :]
    z = Block(self.heads, name="cross")(z, present, jnp.concatenate(tokens, 1))
    everybody = jnp.ones((1, 1, self.latents), bool)
    for i in range(self.layers):
      z = Block(self.heads, name=f"block{i}")(z, everybody)
    return nn.Dense(num_classes, name="out")(nn.LayerNorm(name="norm")(z).mean(1)), None
