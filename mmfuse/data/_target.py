"""Regression targets: standardised inside training, reported in the file's own unit."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
  """y = (label - mean) / std per output; mean, std float64 [R] of the training rows."""

  mean: np.ndarray
  std: np.ndarray  # never 0: a constant target has 1

  @classmethod
  def fit(cls, label: np.ndarray) -> "Target":
    """Moments of training labels `[N]` or `[N, R]`, in float64."""
    flat = np.asarray(label, np.float64).reshape(len(label), -1)
    mean, std = flat.mean(0), flat.std(0)
    constant = std <= 1e-12 * np.abs(mean)  # rounding of equal numbers
    return cls(mean, np.where(constant | (std == 0), 1.0, std))

  def apply(self, label: np.ndarray) -> np.ndarray:
    """Labels `[N]` or `[N, R]` as what is learnt, float32."""
    flat = np.asarray(label, np.float64).reshape(len(label), -1)
    return ((flat - self.mean) / self.std).astype(np.float32).reshape(label.shape)

  def restore(self, predicted: np.ndarray) -> np.ndarray:
    """Predictions `[N, R]` in the unit of the labels, float64."""
    return np.asarray(predicted, np.float64) * self.std + self.mean

  def to_json(self) -> dict[str, list[float]]:
    """Plain numbers, read back exactly by `from_json`."""
    return {"mean": self.mean.tolist(), "std": self.std.tolist()}

  @classmethod
  def from_json(cls, raw: dict[str, list[float]]) -> "Target":
    """The target that `to_json` wrote."""
    return cls(np.asarray(raw["mean"], np.float64), np.asarray(raw["std"], np.float64))
