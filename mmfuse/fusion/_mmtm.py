"""MMTM: every modality's features are gated channel by channel by what all of them say."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Mmtm(nn.Module):
  r"""logits = [g_1 * h_1; ...; g_M * h_M] W + b, g_m = 2 sigmoid(E_m relu(S [h_1; ...; h_M] + s) + e_m).

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], None)`.
  ratio: the squeeze S has max(1, 2 sum_m D_m / ratio) outputs, default 4. Features are vectors, so
  the average over space that precedes the squeeze is done by the encoders. Absent rows come in as
  zeros and stay so; any M >= 1 (the paper: two; one modality gates itself, as squeeze-excitation).

  `batch_stats` hold the running mean over training steps of each gate (over the rows that have the
  modality), {"gate": {m: [D_m]}, "steps": {m: scalar}}, and "held" {m: 0 or 1}: where 1, training
  replaces the gate by that mean, as the method `greedy` asks. Prediction never does.

  Joze, Shaban, Iuzzolino, Koishida: MMTM: Multimodal Transfer Module for CNN Fusion, CVPR 2020: the
  factor 2 is of the paper, the ReLU and the width of the squeeze are of the authors' module, which
  leaves the 2 out. The linear head is ours.
  """

  ratio: float = 4.0

  def __post_init__(self):
    if not self.ratio > 0:
      raise ValueError(f"ratio must be above 0, got {self.ratio}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    names = sorted(features)
    joint = jnp.concatenate([features[m] for m in names], -1)
    width = max(1, int(2 * joint.shape[-1] / self.ratio))
    squeezed = nn.relu(nn.Dense(width, name="squeeze")(joint))
    running = self.variable("batch_stats", "running", lambda: _no_gates(features))
    kept, gated = running.value, {}
    moved: dict[str, dict] = {"gate": {}, "steps": {}, "held": {}}
    for m in names:
      gate = 2 * nn.sigmoid(nn.Dense(features[m].shape[-1], name=f"excite_{m}")(squeezed))
      mean, steps, held = (kept[k][m] for k in ("gate", "steps", "held"))
      moved["gate"][m], moved["steps"][m] = _move(mean, steps, gate, mask[m])
      moved["held"][m] = held
      if train:
        gate = jnp.where(held > 0, mean.astype(gate.dtype)[None, :], gate)
      gated[m] = gate * features[m]
    if train and not self.is_initializing():
      running.value = moved
    return nn.Dense(num_classes, name="out")(jnp.concatenate([gated[m] for m in names], -1)), None


def _no_gates(features):
  """Running means before any step: a gate of 1, which passes the features as they are."""
  names = sorted(features)
  return {
    "gate": {m: jnp.ones(features[m].shape[-1], jnp.float32) for m in names},
    "steps": {m: jnp.zeros((), jnp.float32) for m in names},
    "held": {m: jnp.zeros((), jnp.float32) for m in names},
  }


def _move(mean, steps, gate, present):
  """The plain mean over steps of the gate's mean over present rows; unmoved without any."""
  gate = jax.lax.stop_gradient(gate).astype(jnp.float32)
  count = present.sum().astype(jnp.float32)
  now = jnp.where(present[:, None], gate, 0.0).sum(0) / jnp.maximum(count, 1.0)
  here = (count > 0).astype(jnp.float32)
  return mean + here * (now - mean) / (steps + 1), steps + here
