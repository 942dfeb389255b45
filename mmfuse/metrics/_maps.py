"""Running metrics of a segmentation: mIoU, Dice, likelihood, with a threshold where there are two classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse.core import label_weight
from mmfuse.masks import MOST_SUBSETS
from mmfuse.metrics._metric import Metric, heads_of
from mmfuse.metrics._scores import scores
from mmfuse.metrics._segmentation import check_absent, iou_of
from mmfuse.names import VOID
from mmfuse.tree import FUSED

# Thresholds of z_1 - z_0, a grid that holds 0 exactly, which is a probability of .5.
LOW, STEPS, PER_UNIT = -6.0, 97, 8
GRID = LOW + np.arange(STEPS) / PER_UNIT
HALF = int(np.argmin(np.abs(GRID)))

MIOU, AT_HALF, DICE, FOREGROUND, PIXELS, NLL = scores(
  "miou", "miou_at_half", "dice", "foreground_iou", "pixel_accuracy", "nll"
)


class MapSums(NamedTuple):
  """What `segmentation` adds up of a head."""

  # two classes: [2^M, 2, STEPS + 1] weight of places by the modalities a row has, class and how many
  # thresholds their z_1 - z_0 exceeds; else confusion [1, C, C]
  counts: jax.Array
  nll: jax.Array  # weighted sum of -log softmax[label], in nats
  broken: jax.Array  # how many places that count had logits that are not finite


def case_of(mask: Mapping[str, Any]) -> Any:
  """int32 [B]: which of the 2^M sets of modalities a row has, sum_i 2^i; 0 where there are more than 6."""
  names = sorted(mask)
  if len(names) > MOST_SUBSETS:
    return jnp.zeros(mask[names[0]].shape, jnp.int32)
  return sum((mask[m].astype(jnp.int32) << i for i, m in enumerate(names)), jnp.int32(0))


def _above(counts: Any) -> tuple[np.ndarray, np.ndarray]:
  """([..., STEPS] of counts [..., STEPS + 1]: the weight above each threshold; [..., 1], of all)."""
  counts = np.asarray(counts, np.float64)
  return counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:], counts.sum(-1, keepdims=True)


def _confusion(counts: Any, place: np.ndarray) -> np.ndarray:
  """Confusion [2, 2] of counts [S, 2, STEPS + 1] where set s calls 1 what exceeds GRID[place[s]]."""
  above, total = _above(counts)
  said = np.take_along_axis(above, place[:, None, None], -1).sum(0)
  return np.concatenate([total.sum(0) - said, said], -1)


def _best(counts: Any, absent: str) -> np.ndarray:
  """int [S]: of each set the place in GRID with the largest mIoU, ties to the one nearest .5."""
  above, total = _above(counts)
  table = np.stack([total - above, above], -1)  # [S, 2, STEPS, 2]: truth, threshold, said
  score = iou_of(np.moveaxis(table, 2, 1), absent)  # [S, STEPS]
  order = np.argsort(np.abs(np.arange(STEPS) - HALF), kind="stable")
  best = order[np.argmax(np.nan_to_num(score, nan=-1.0)[:, order], -1)]
  return np.where(total.sum((1, 2)) > 0, best, -1)


@dataclasses.dataclass(frozen=True)
class _Compute:
  """`Metric.compute`; equal whatever the thresholds, so that compiled evaluations are found again."""

  num_classes: int
  absent: str
  # {head: int [S], places in GRID}; None: those that are best for what is being scored
  places: Any = dataclasses.field(default=None, compare=False)

  def __call__(self, sums: Mapping[str, MapSums]) -> dict[str, dict[str, Any]]:
    on_host = jax.tree.map(np.asarray, dict(sums))
    return {head: self._scores(head, own) for head, own in on_host.items()}

  def _scores(self, head: str, sums: MapSums) -> dict[str, np.float32]:
    two = self.num_classes == 2
    table = self._table(head, sums.counts) if two else sums.counts[0].astype(np.float64)
    right, total = table.diagonal(), table.sum()
    both = table.sum(0) + table.sum(1)
    dice = np.where(both > 0, 2 * right / np.where(both > 0, both, 1.0), np.nan)
    found = {
      MIOU.name: iou_of(table, self.absent),
      DICE.name: np.nanmean(dice) if (both > 0).any() else np.nan,
      PIXELS.name: right.sum() / total if total > 0 else np.nan,
      NLL.name: float(sums.nll) / total if total > 0 else np.nan,
    }
    if two:
      half = _confusion(sums.counts, np.full(len(sums.counts), HALF))
      found |= {
        AT_HALF.name: iou_of(half, self.absent),
        FOREGROUND.name: right[1] / max(both[1] - right[1], 1e-30) if both[1] > 0 else 0.0,
      }
    wrong = sums.broken > 0 or total == 0
    return {k: np.float32(np.nan if wrong else v) for k, v in found.items()}

  def _table(self, head: str, counts: Any) -> np.ndarray:
    place = _best(counts, self.absent) if self.places is None else self.places.get(head)
    if place is None:  # a head that was not there when thresholds were chosen
      place = np.full(len(counts), HALF)
    return _confusion(counts, np.where(place < 0, HALF, place))


def _fit(metric: Metric, sums: Mapping[str, MapSums]) -> Metric:
  """`Metric.fit`: of each set of modalities the threshold that was best; of unseen ones that of all."""
  compute: Any = metric.compute
  if compute.num_classes != 2:
    return metric
  places = {}
  for head, own in sums.items():
    counts = np.asarray(own.counts)
    own_best, of_all = _best(counts, compute.absent), _best(counts.sum(0)[None], compute.absent)[0]
    places[head] = np.where(own_best < 0, HALF if of_all < 0 else of_all, own_best)
  return metric._replace(compute=dataclasses.replace(compute, places=places))


def segmentation(num_classes: int, *, absent: str = "zero", void: int = VOID) -> Metric:
  r"""mIoU, Dice, pixel accuracy and likelihood of every head; logits [B, H, W, C], label int [B, H, W].

  With N the confusion over all places that count: miou = mean_c N_cc / (N_c. + N_.c - N_cc), dice = mean_c
  2 N_cc / (N_c. + N_.c). Where there are two classes, class 1 is said where p_1 exceeds a threshold, one
  for each head and set of modalities that a row has: the one of best mIoU in what is scored, until `fit`
  has taken those of validation rows; miou_at_half is that of .5, and foreground_iou the IoU of class 1.
  Else a class is said by arg max. A head of one modality is judged in the rows that have it.

  Args:
    num_classes: C, at least 2.
    absent: what a class counts that neither occurs nor is said, see `mean_iou`; default "zero".
    void: the label of places that do not count, default -1.

  Raises:
    ValueError: fewer than two classes, an unknown `absent`.
  """
  check_absent(absent)
  if num_classes < 2:
    raise ValueError(f"a segmentation has at least 2 classes, got {num_classes}")
  two = num_classes == 2

  def init(outputs):
    shape = (2**MOST_SUBSETS, 2, STEPS + 1) if two else (1, num_classes, num_classes)
    zero = jnp.zeros((), jnp.float32)
    return {h: MapSums(jnp.zeros(shape, jnp.float32), zero, zero) for h in heads_of(outputs)}

  def one(sums, z, label, weight, case):
    if z.shape[-1] != num_classes or z.ndim != label.ndim + 1:
      raise ValueError(
        f"the metric expects logits [B, H, W, {num_classes}] of labels {list(label.shape)}, "
        f"got {list(z.shape)}"
      )
    known = (label != void) & (weight > 0)[:, None, None]
    finite = jnp.isfinite(z).all(-1)
    used = known & finite
    z = jnp.where(used[..., None], z.astype(jnp.float32), 0.0)
    label = jnp.where(used, label, 0)
    weight = jnp.where(used, weight[:, None, None], 0.0).astype(jnp.float32)
    own = jnp.take_along_axis(jax.nn.log_softmax(z), label[..., None], -1)[..., 0]
    if two:
      over = jnp.ceil((z[..., 1] - z[..., 0] - LOW) * PER_UNIT).astype(jnp.int32)
      at = (jnp.broadcast_to(case[:, None, None], label.shape), label, jnp.clip(over, 0, STEPS))
    else:
      at = (jnp.zeros_like(label), label, jnp.argmax(z, -1))
    # A batch first: added one by one, places beyond 2^24 in a bin would be lost in float32.
    return MapSums(
      sums.counts + jnp.zeros_like(sums.counts).at[at].add(weight),
      sums.nll - jnp.sum(weight * own),
      sums.broken + jnp.sum(known & ~finite, dtype=jnp.float32),
    )

  def update(sums, outputs, batch):
    known, out = label_weight(batch), {}
    case = case_of(batch.mask)
    for head, z in heads_of(outputs).items():
      own = head in batch.mask
      weight = jnp.where(batch.mask[head], known, 0.0) if own else known
      out[head] = one(sums[head], z, batch.label, weight, jnp.zeros_like(case) if own else case)
    return out

  scores = (MIOU, DICE, PIXELS, NLL, *((AT_HALF, FOREGROUND) if two else ()))
  return Metric(init, update, _Compute(num_classes, absent), scores, _fit)


def thresholds(metric: Metric, head: str = FUSED) -> np.ndarray | None:
  """[2^M] thresholds of z_1 - z_0 that `fit` took, by `case_of`; None where there are none."""
  places = getattr(metric.compute, "places", None)
  return None if places is None or head not in places else GRID[places[head]]


def class_maps(
  logits: Any, mask: Mapping[str, Any], limits: np.ndarray | None = None
) -> np.ndarray:
  """int32 [N, H, W], the class of every place.

  Args:
    logits: [N, H, W, C].
    mask: {m: bool [N]}, the modalities that a row has.
    limits: of two classes: what z_1 - z_0 must exceed [2^M], by `case_of`; None: arg max.
  """
  z = np.asarray(logits)
  if limits is None or z.shape[-1] != 2:
    return z.argmax(-1).astype(np.int32)
  limit = limits[np.asarray(case_of({m: np.asarray(v) for m, v in mask.items()}))]
  return (z[..., 1] - z[..., 0] > limit[:, None, None]).astype(np.int32)
