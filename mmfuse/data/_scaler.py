"""Standardisation from training rows only, and from present rows only."""

import dataclasses
import json
from collections.abc import Mapping

import numpy as np

from mmfuse.data._error import DataError, closest

_CHUNK = 4096  # rows per float64 temporary, so that a large image set is never copied whole
_CONSTANT = 1e-7  # relative spread below float32 resolution: rounding, not signal


def _moments(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation `[C]` over every axis but the last, in float64, two passes."""
  axes = tuple(range(x.ndim - 1))
  chunks = [rows[i : i + _CHUNK] for i in range(0, len(rows), _CHUNK)]
  count = len(rows) * int(np.prod(x.shape[1:-1], dtype=np.int64))
  mean = sum(x[c].sum(axes, dtype=np.float64) for c in chunks) / count
  variance = sum(np.square(x[c] - mean).sum(axes) for c in chunks) / count
  return mean, np.sqrt(variance)


@dataclasses.dataclass(frozen=True, eq=False)
class Scaler:
  """Per-modality `(x - mean) / std`, and 0 where a row is absent.

  Rank 2 is scaled per column, higher ranks per channel (the last axis). Integer modalities are not
  in `mean` and pass untouched. A constant column has std 1.
  """

  mean: dict[str, np.ndarray]  # {modality: float32 [C]}, C = size of the last axis
  std: dict[str, np.ndarray]  # {modality: float32 [C]}, never 0
  modalities: tuple[str, ...]  # all modalities, the untouched ones too

  @classmethod
  def fit(
    cls, inputs: Mapping[str, np.ndarray], mask: Mapping[str, np.ndarray], rows: np.ndarray
  ) -> "Scaler":
    """Moments over the training `rows` (int `[n]`) in which a modality is present.

    Args:
      inputs: {modality: `[N, ..., C]`}.
      mask: {modality: bool `[N]`}, True = present.
      rows: the training rows; no other row is read.
    """
    mean, std = {}, {}
    for m in sorted(inputs):
      x = inputs[m]
      if x.dtype.kind != "f":
        continue
      present = rows[mask[m][rows]]
      mu, sigma = np.zeros(x.shape[-1]), np.ones(x.shape[-1])
      if len(present):
        mu, sigma = _moments(x, present)
      mean[m] = mu.astype(np.float32)
      std[m] = np.where(sigma <= _CONSTANT * np.abs(mu), 1.0, sigma).astype(np.float32)
    return cls(mean, std, tuple(sorted(inputs)))

  def apply(
    self, inputs: Mapping[str, np.ndarray], mask: Mapping[str, np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Standardised copies, {modality: float32 `[N, ..., C]`}; absent rows are exactly 0.

    Raises DataError for a modality, or a number of channels, other than those of the training rows,
    and where a present row overflows.
    """
    out = {}
    for m, x in sorted(inputs.items()):
      if m not in self.modalities:
        raise DataError(
          f"modality {m!r} was not in the training data{closest(m, self.modalities)}"
        )
      if m in self.mean and x.shape[-1:] != self.mean[m].shape:
        raise DataError(
          f"modality {m!r} has {x.shape[-1]} channels, the training data had {len(self.mean[m])}"
        )
      out[m] = self._scale(m, x) if m in self.mean else np.array(x)
      out[m][~mask[m]] = 0
      finite = np.isfinite(out[m]).reshape(len(x), -1).all(1)
      if not finite.all():
        raise DataError(
          f"modality {m!r} is too large for float32 once standardised, first at row "
          f"{int(np.argmin(finite))} of a split"
        )
    return out

  def _scale(self, m: str, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):  # absent rows may hold anything
      out = x - self.mean[m]
      out /= self.std[m]
    return out

  def to_json(self) -> str:
    """A string that `from_json` reads back exactly; it travels with a run."""
    return json.dumps(
      {
        "modalities": list(self.modalities),
        "mean": {m: v.tolist() for m, v in sorted(self.mean.items())},
        "std": {m: v.tolist() for m, v in sorted(self.std.items())},
      }
    )

  @classmethod
  def from_json(cls, text: str) -> "Scaler":
    """The scaler that `to_json` wrote."""
    raw = json.loads(text)
    read = lambda part: {m: np.asarray(v, np.float32) for m, v in part.items()}
    return cls(read(raw["mean"]), read(raw["std"]), tuple(raw["modalities"]))
