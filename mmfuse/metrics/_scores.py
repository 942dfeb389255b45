"""What a number means: its direction and its unit, known here and nowhere else."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Score(NamedTuple):
  """The passport of a number."""

  name: str  # in records and options: "macro_f1"
  larger_is_better: bool = True  # which of two numbers a selection keeps
  share: bool = False  # lies in [0, 1] and is shown in percent
  words: str = ""  # in tables; "" = the name

  @property
  def sign(self) -> int:
    """1 where more is better, else -1: `sign * value` is what is maximised."""
    return 1 if self.larger_is_better else -1


SCORES = {
  s.name: s
  for s in (
    Score("accuracy", share=True),
    Score("balanced_accuracy", share=True, words="balanced accuracy"),
    Score("macro_f1", share=True, words="macro-F1"),
    Score("micro_f1", share=True, words="micro-F1"),
    Score("subset_accuracy", share=True, words="subset accuracy"),
    Score("auroc", share=True),
    Score("average_precision", share=True),
    Score("nll", larger_is_better=False, words="negative log likelihood"),
    Score("ece", larger_is_better=False, share=True),
    Score("r2", words="R²"),
    Score("mae", larger_is_better=False),
    Score("rmse", larger_is_better=False),
    Score("pearson"),
    Score("miou", share=True, words="mIoU"),
    Score("miou_at_half", share=True, words="mIoU at .5"),
    Score("dice", share=True, words="Dice"),
    Score("foreground_iou", share=True, words="IoU of the second class"),
    Score("pixel_accuracy", share=True, words="pixel accuracy"),
  )
}


def score(name: str) -> Score:
  """The passport of `name`; of one that is not ours, a plain number of which more is better."""
  return SCORES.get(name, Score(name))


def scores(*names: str) -> tuple[Score, ...]:
  """Those of several names of ours. Raises KeyError for another one."""
  return tuple(SCORES[name] for name in names)


def described(scores: Iterable[Score]) -> dict[str, dict[str, Any]]:
  """{name: passport as plain data} of those that `score` does not know by name: what records keep."""
  return {s.name: s._asdict() for s in scores if s != score(s.name)}
