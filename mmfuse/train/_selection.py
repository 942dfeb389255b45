"""What a phase is selected by: a score, of a head, or over all subsets of modalities."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmfuse import masks
from mmfuse import metrics as metrics_lib
from mmfuse.train import _evaluate
from mmfuse.tree import FUSED

OVER = ("mean", "worst")  # of the subsets that a row has, before a slash
Scores = Mapping[str, Mapping[str, Any]]


class Selection(NamedTuple):
  """A parsed `select`: "accuracy", "mean/accuracy", "worst/accuracy", "accuracy@audio"."""

  score: str  # its name in the metric
  over: str = ""  # "mean" | "worst" over subsets; "" = the data as they are
  head: str = FUSED  # or a modality's own

  @property
  def key(self) -> str:
    """What the score is called among those of its head."""
    return f"{self.over}/{self.score}" if self.over else self.score


def parse(select: str) -> Selection:
  """The parts of a `select`; over subsets it is always the fused head that is judged."""
  over, slash, score = select.partition("/")
  if slash and over in OVER:
    return Selection(score, over)
  score, at, head = select.partition("@")
  return Selection(score, head=head) if at else Selection(select)


def passport(score: str, metric: metrics_lib.Metric) -> metrics_lib.Score:
  """Direction and unit of a score of `metric`."""
  return {s.name: s for s in metric.scores}.get(score, metrics_lib.score(score))


def subsets_of(split: Any) -> list[tuple[str, ...]]:
  """The subsets of modalities that some judged row has, in the tables' order.

  Raises ValueError for more than `masks.MOST_SUBSETS` modalities.
  """
  names, judged = sorted(split.mask), _evaluate.judged(split)
  if len(names) > masks.MOST_SUBSETS:
    raise ValueError(
      f"all subsets of at most {masks.MOST_SUBSETS} modalities are scored, these are {len(names)}"
    )
  has = lambda subset: np.all([np.asarray(split.mask[m]) for m in subset], axis=0) & judged
  return [subset for subset in masks.combinations(names) if has(subset).any()]


def check(select: str | None, validation: Any) -> None:
  """Raises ValueError, before anything is trained, where subsets are asked for and cannot be had."""
  if select and parse(select).over and validation is not None and not subsets_of(validation):
    raise ValueError(f"cannot select by {select!r}: no validation row has a modality and a label")


class SubsetViews:
  """The validation rows as they are, and with each subset of modalities that some of them have."""

  def __init__(self, split: Any, place: Any):
    views = [_evaluate.View(split.mask)]
    views += [_evaluate.subset_view(split, s, covered=True) for s in subsets_of(split)]
    stacked, self.place = _evaluate.stack_views(split, views)
    self.views = place(stacked)

  def scores(self, predict, metric, state, *, looped: bool, stacked: bool) -> dict:
    """{head: {score: value}}, the fused head's with "mean/<score>" and "worst/<score>" beside each."""
    run = _evaluate.loop_views if looped else _evaluate.scan_views
    options = {} if looped else {"stacked": stacked}
    found = run(predict, metric, state, self.views, **options)
    whole, *each = [found[i] for i in self.place]
    if FUSED not in whole:
      return whole
    over = _over([scores[FUSED] for scores in each], metric)
    return {**whole, FUSED: {**whole[FUSED], **over}}


def _over(each: Sequence[Mapping[str, Any]], metric: metrics_lib.Metric) -> dict[str, Any]:
  """{"mean/<score>", "worst/<score>": value [] or [S]} of the scores of several subsets."""
  out: dict[str, Any] = {}
  for name in each[0]:
    values = np.stack([np.asarray(scores[name]) for scores in each])
    worst = np.min if passport(name, metric).larger_is_better else np.max
    out |= {f"mean/{name}": values.mean(0), f"worst/{name}": worst(values, axis=0)}
  return out


def judge(
  select: str, scores: Scores, metric: metrics_lib.Metric, loss: str | None
) -> tuple[float, float]:
  """(score, loss) of validated scores: the larger score is better, ties go to the smaller loss.

  Raises ValueError for a head or a score that is not there, and for a head without rows.
  """
  wanted = parse(select)
  if FUSED not in scores and wanted.head == FUSED:
    raise ValueError(
      "nothing to select by: the prediction has no fused logits; give the "
      "phase a `predict` that sets them"
    )
  if wanted.head not in scores or wanted.key not in scores[wanted.head]:
    known = sorted(scores.get(FUSED, scores).keys())
    said = f"heads: {', '.join(sorted(scores))}; " if wanted.head not in scores else ""
    raise ValueError(f"cannot select by {select!r}; {said}this task has: {', '.join(known)}")
  mine = scores[wanted.head]
  if mine[wanted.key] is None:
    raise ValueError(f"cannot select by {select!r}: no validation row has {wanted.head}")
  sign = 1 if passport(wanted.score, metric).larger_is_better else -1
  tie = 0.0 if loss is None else mine.get(f"mean/{loss}" if wanted.over else loss, 0.0)
  return float(mine[wanted.key]) * sign, float(tie)
