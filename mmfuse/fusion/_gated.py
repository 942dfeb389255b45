"""Fusions in which one modality acts on the others: gated and FiLM."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def leader(features: Mapping[str, jax.Array], name: str | None) -> tuple[str, list[str]]:
  """(the modality that acts, the sorted others); None = the first in sorted order."""
  names = sorted(features)
  if name is not None and name not in names:
    raise ValueError(f"modality {name!r} not in features; available: {', '.join(names)}")
  first = names[0] if name is None else name
  return first, [m for m in names if m != first]


def _others(features, others):
  return jnp.concatenate([features[m] for m in others], -1)


class _Led(nn.Module):
  by: str | None = None

  def restrict(self, modalities: Sequence[str]) -> nn.Module:
    """The same fusion among `modalities`: led by the first of them if the leader is not there."""
    return self if self.by is None or self.by in modalities else self.clone(by=None)


class Gated(_Led):
  """logits = (sigmoid(A h_x + a) * (C [h_y; ...] + c)) W + b, gated by x over all others y.

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  by: the modality x (default: the first in sorted order; the authors offer both); width: of the
  product, 512 as the authors. Where x is absent the gate is fully open (1); where all y are absent
  the learned c is gated; a modality alone passes through C and W ungated. The gated head of Peng et
  al., Balanced Multimodal Learning via On-the-fly Gradient Modulation, CVPR 2022, for any M >= 1.
  """

  width: int = 512

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    x, others = leader(features, self.by)
    hidden = nn.Dense(self.width, name="project")(_others(features, others or [x]))
    if others:
      gate = nn.sigmoid(nn.Dense(self.width, name="gate")(features[x]))
      hidden = hidden * jnp.where(mask[x].reshape(-1, 1), gate, jnp.ones((), gate.dtype))
    return nn.Dense(num_classes, name="out")(hidden), None


class FiLM(_Led):
  """logits = (gamma * [h_y; ...] + beta) W + b, [gamma; beta] = A h_x + a: x conditions the others.

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  by: the modality x (default: the first in sorted order). gamma has no identity offset, as in the
  authors' code. Where x is absent the others pass unchanged (gamma = 1, beta = 0); where y is
  absent its beta remains; a modality alone passes unchanged. Perez et al., FiLM: Visual Reasoning
  with a General Conditioning Layer, AAAI 2018; this head: Peng et al., Balanced Multimodal Learning
  via On-the-fly Gradient Modulation, CVPR 2022, for any M >= 1 and any D_m.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del train
    x, others = leader(features, self.by)
    hidden = _others(features, others or [x])
    if others:
      film = nn.Dense(2 * hidden.shape[-1], name="film")(features[x])
      gamma, beta = jnp.split(film, 2, -1)
      present = mask[x].reshape(-1, 1)
      hidden = jnp.where(present, gamma * hidden + beta, hidden)
    return nn.Dense(num_classes, name="out")(hidden), None
