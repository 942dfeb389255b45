"""Modality dropout: while training, rows lose some of their modalities.

Dropped are features, after all encoders ran, so that the encoders' own statistics see every row. With
Bernoulli draws it is ModDrop: Neverova, Wolf, Taylor and Nebout, ModDrop: Adaptive Multi-modal Gesture
Recognition, TPAMI 2016.
"""

import dataclasses
from typing import Any

import optax

from mmfuse import fusion, masks, objectives, train
from mmfuse.core import Batch, Method


@dataclasses.dataclass(frozen=True)
class Drop:
  """`perturb` of `train.supervised`: features and mask of a step, less what is drawn.

  rate None: one of the non-empty subsets of what a row has, uniformly; else each modality goes with
  that probability, and a row that would lose all keeps what it had.
  """

  modalities: tuple[str, ...]
  rate: float | None = None

  def __call__(self, features, batch: Batch, key, clock):
    del clock
    mask = {m: batch.mask[m] for m in self.modalities}
    if self.rate is None:
      kept = masks.sample_subset(key, mask)
    else:
      kept = masks.sample_bernoulli(key, mask, self.rate)
    return masks.fill(features, kept), batch._replace(mask=kept)


def _dropped(model: Any, tx, fill: str, rate: float | None) -> Method:
  names = tuple(sorted(model.modalities))
  filled = fusion.Fill(model, fill) if fill != "skip" else model
  return train.supervised(filled, objectives.fused, tx, perturb=Drop(names, rate))


def dropout(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  fill: str = "skip",
) -> Method:
  """CE(fused) on a non-empty subset of each row's modalities, all subsets equally likely.

  Any number of modalities, labels of any task.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    fill: what stands in for a dropped modality, in training and prediction: "skip" (default), "zero",
      "mean", "token"; see `fusion.Fill`.

  Raises:
    ValueError: an unknown fill.
  """
  return _dropped(model, tx, fill, None)


def moddrop(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  drop: float = 0.5,
  fill: str = "skip",
) -> Method:
  """CE(fused) with each modality of a row dropped with probability `drop`, never all of them.

  A row that would lose everything keeps what it had. Any number of modalities, labels of any task.

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    drop: in [0, 1), default .5 (ours).
    fill: as in `dropout`.

  Raises:
    ValueError: a probability outside [0, 1), an unknown fill.
  """
  if not 0 <= drop < 1:
    raise ValueError(f"drop must lie in [0, 1), got {drop}")
  return _dropped(model, tx, fill, drop)
