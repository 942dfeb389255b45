"""Standardisation from training rows only, and from present rows only."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse.data import _sequences
from mmfuse.data._error import DataError, closest

_CHUNK = 4096  # rows per float64 temporary, so that a large image set is never copied whole
_CONSTANT = {4: 1e-7, 8: 1e-13}  # {bytes of a float: relative spread that is rounding, not signal}
_OFFSET = 1e4  # means of more standard deviations are not subtracted in float32
STANDARD, UNIT, RAW = SCALES = ("standard", "unit", "raw")


def _moments(x: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation `[C]` over every axis but the last, in float64, two passes.

  Of a sequence, over the valid steps.
  """
  chunks = lambda: _sequences.blocks(x, rows, _CHUNK)
  over = lambda c: tuple(range(c.ndim - 1))
  total, count = np.zeros(_sequences.values_of(x).shape[-1]), 0
  for c in chunks():
    total += c.sum(over(c), dtype=np.float64)
    count += c.size // c.shape[-1]
  mean = total / count
  variance = sum(np.square(c - mean).sum(over(c)) for c in chunks()) / count
  return mean, np.sqrt(variance)


def _extent(x: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The least value and the range over all axes, each `[C]`, of the valid steps of a sequence."""
  least, most = np.inf, -np.inf
  for c in _sequences.blocks(x, rows, _CHUNK):
    least, most = min(least, float(c.min())), max(most, float(c.max()))
  channels = _sequences.values_of(x).shape[-1]
  return np.full(channels, least), np.full(channels, most - least)


def _check_scale(scale: Mapping[str, str], inputs: Mapping[str, Any]) -> None:
  for m, kind in sorted(scale.items()):
    if m not in inputs:
      raise DataError(f"scale names {m!r}, which is no modality{closest(m, inputs)}")
    if kind not in SCALES:
      raise DataError(f"the scale of {m!r} must be {', '.join(SCALES[:2])} or {RAW}, got {kind!r}")
    if _sequences.values_of(inputs[m]).dtype.kind != "f":
      raise DataError(f"modality {m!r} holds tokens, which have no scale")


@dataclasses.dataclass(frozen=True, eq=False)
class Scaler:
  """Per-modality `(x - mean) / std`, and 0 where a row is absent.

  Of a modality in `unit`, mean is the least and std the range of its training values, one pair for all
  its columns, and what lies outside is clipped to [0, 1]; raw values have mean 0 and std 1.
  Else rank 2 is scaled per column, higher ranks per channel (the last axis). Integer modalities are not
  in `mean` and pass untouched. A constant column has std 1. A `core.Sequence` is scaled by its valid
  steps and 0 after its end. float64 is cast to float32 after standardisation, when nothing is lost.
  """

  mean: dict[str, np.ndarray]  # {modality: float64 [C]}, C = size of the last axis
  std: dict[str, np.ndarray]  # {modality: float64 [C]}, never 0
  modalities: tuple[str, ...]  # all modalities, the untouched ones too
  unit: tuple[str, ...] = ()  # modalities in [0, 1]

  @classmethod
  def fit(
    cls,
    inputs: Mapping[str, Any],
    mask: Mapping[str, np.ndarray],
    rows: np.ndarray,
    scale: Mapping[str, str] | None = None,
  ) -> "Scaler":
    """Moments over the training `rows` (int `[n]`) in which a modality is present.

    Args:
      inputs: {modality: `[N, ..., C]` or a sequence of them}.
      mask: {modality: bool `[N]`}, True = present.
      rows: the training rows; no other row is read.
      scale: {modality: "standard", "unit" or "raw"}; default standard.

    Raises:
      DataError: a scale of no modality, of tokens, or that is none.
    """
    scale = dict(scale or {})
    _check_scale(scale, inputs)
    mean, std = {}, {}
    for m in sorted(inputs):
      x = _sequences.values_of(inputs[m])
      if x.dtype.kind != "f":
        continue
      present = rows[mask[m][rows]]
      mu, sigma = np.zeros(x.shape[-1]), np.ones(x.shape[-1])
      if len(present) and scale.get(m) == UNIT:
        mu, sigma = _extent(inputs[m], present)
      elif len(present) and scale.get(m) != RAW:
        mu, sigma = _moments(inputs[m], present)
      mean[m] = mu
      std[m] = np.where(sigma <= _CONSTANT[x.dtype.itemsize] * np.abs(mu), 1.0, sigma)
    return cls(
      mean, std, tuple(sorted(inputs)), tuple(m for m in sorted(scale) if scale[m] == UNIT)
    )

  def apply(self, inputs: Mapping[str, Any], mask: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Standardised copies, {modality: float32 `[N, ..., C]` or a sequence}; absent rows are 0.

    Raises DataError for a modality, or a number of channels, other than those of the training rows,
    and where a present row overflows.
    """
    out = {}
    for m, given in sorted(inputs.items()):
      if m not in self.modalities:
        raise DataError(f"modality {m!r} was not in the training data{closest(m, self.modalities)}")
      x, keep = _sequences.values_of(given), mask[m]
      if m in self.mean and x.shape[-1:] != self.mean[m].shape:
        raise DataError(
          f"modality {m!r} has {x.shape[-1]} channels, the training data had {len(self.mean[m])}"
        )
      if _sequences.is_sequence(given):
        keep = _sequences.valid_steps(np.where(mask[m], given.length, 0), x.shape[1])
      out[m] = self._scale(m, x, keep) if m in self.mean else np.array(x)
      if m in self.unit:
        out[m] = out[m].clip(0.0, 1.0)
      out[m][~keep] = 0
      if _sequences.is_sequence(given):
        out[m] = _sequences.sequence(out[m], np.where(mask[m], given.length, 0))
    return out

  def _scale(self, m: str, x: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """float32 of (x - mean) / std; what `keep` [N] or [N, T] leaves out is garbage."""
    near = (np.abs(self.mean[m]) <= _OFFSET * self.std[m]).all()
    narrow = [np.float32] if x.dtype == np.float32 and near else []
    for dtype in (*narrow, np.float64):  # x - mean may overflow in float32 alone
      mean, std = self.mean[m].astype(dtype), self.std[m].astype(dtype)
      out = np.empty(x.shape, np.float32)
      with np.errstate(all="ignore"):  # absent rows may hold anything
        for i in range(0, len(x), _CHUNK):
          out[i : i + _CHUNK] = (x[i : i + _CHUNK] - mean) / std
      wrong = ~(np.isfinite(out).reshape(*keep.shape, -1).all(-1) | ~keep)
      if not wrong.any():
        return out
    row = int(np.argmax(wrong.reshape(len(wrong), -1).any(1)))
    raise DataError(
      f"modality {m!r} is too large for float32 once standardised, first at row {row} of a split"
    )

  def notes(self, scale: Mapping[str, str] | None) -> list[str]:
    """What was asked for instead of standardising, in words."""
    said = {
      RAW: lambda m: "as it is",
      UNIT: lambda m: (
        f"{self.mean[m][0]:.4g}..{self.mean[m][0] + self.std[m][0]:.4g} of the training rows "
        "becomes 0..1, what lies outside is clipped"
      ),
    }
    return [f"scale of {m}: {said[s](m)}" for m, s in sorted((scale or {}).items()) if s in said]

  def to_json(self) -> str:
    """A string that `from_json` reads back exactly; it travels with a run."""
    return json.dumps(
      {
        "modalities": list(self.modalities),
        "mean": {m: v.tolist() for m, v in sorted(self.mean.items())},
        "std": {m: v.tolist() for m, v in sorted(self.std.items())},
        "unit": list(self.unit),
      }
    )

  @classmethod
  def from_json(cls, text: str) -> "Scaler":
    """The scaler that `to_json` wrote."""
    raw = json.loads(text)
    read = lambda part: {m: np.asarray(v, np.float64) for m, v in part.items()}
    unit = tuple(raw.get("unit", ()))  # runs written before have none
    return cls(read(raw["mean"]), read(raw["std"]), tuple(raw["modalities"]), unit)
