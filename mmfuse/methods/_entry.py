"""A row of the index: how a method is built, what it is and where it comes from."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mmfuse import train
from mmfuse.core import Method
from mmfuse.methods import _papers
from mmfuse.methods._made import Build
from mmfuse.names import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION

ALL_TASKS = (CLASSIFICATION, MULTILABEL, REGRESSION)  # with a label a row
WITH_MAPS = (*ALL_TASKS, SEGMENTATION)  # and with a label a place
LABELLED = (CLASSIFICATION, MULTILABEL)
CLASSES = (CLASSIFICATION,)
# What a builder may need to know beside the model and the optimiser, each a keyword argument.
FACTS = ("task", "modality", "learning_rate", "likelihood")


class Entry(NamedTuple):
  """A row of the index; `@Entry` over a builder makes a row of your own.

  Called as `entry(model, learning_rate=0.03, *, tx=None, **hyper)`, where `tx` replaces the
  optimiser that all rows share, `train.sgd(learning_rate)`.
  """

  build: Build  # (model, tx, *, what it needs, **hyper) -> Method
  # baseline | modulator | weighting | aggregator | objective | forward | data | schedule | head
  kind: str = "own"
  family: str = "own"  # the package in `mmfuse/methods/`
  # parity | equations | reconstructed | baseline: what it was checked against
  fidelity: str = "own"
  paper: str = ""  # authors, venue, year; or what a row without one is
  file: str = ""  # where it stands, from `mmfuse/` on
  cite: str = ""  # BibTeX
  needs: tuple[str, ...] = ()  # some of `FACTS`; with "modality" it is a row per modality
  grid: Mapping[str, tuple] = MappingProxyType({})  # the hyper-parameter that `--tune 9` searches
  tasks: tuple[str, ...] = ALL_TASKS  # those it is defined for, some of `names.TASKS`
  rates: tuple[float, ...] | None = None  # the three to search, where they are not everybody's
  reads_validation: bool = False  # validation rows also steer its training, not its selection alone
  complete_rows: bool = False  # it learns from rows that have all modalities, and from no other
  by_name: bool = False  # `all` leaves it out: it is no method, but what methods are measured by
  alias_of: str = ""  # another name of that row, which is trained and shown once

  @property
  def per_modality(self) -> bool:
    """Whether it is a row per modality."""
    return "modality" in self.needs

  def __call__(
    self, model: Any, learning_rate: float = 0.03, *, tx: Any = None, **hyper: Any
  ) -> Method:
    if "learning_rate" in self.needs:
      hyper["learning_rate"] = learning_rate
    return self.build(model, train.sgd(learning_rate) if tx is None else tx, **hyper)


def of_rate(build: Callable[..., Method]) -> Entry:
  """The entry of a bare `build(model, learning_rate, **hyper)`, whose optimiser is its own affair."""

  @functools.wraps(build)  # whose signature says which options there are
  def on_rate(model, tx, *, learning_rate, **hyper) -> Method:
    del tx
    return build(model, learning_rate, **hyper)

  return Entry(on_rate, needs=("learning_rate",))


def row(
  build: Build,
  kind: str,
  fidelity: str,
  key: str = "",
  grid: Mapping[str, tuple] | None = None,
  *,
  about: str = "",
  as_in: bool = False,
  of: Callable[..., Any] | None = None,
  **more: Any,
) -> Entry:
  """An entry of ours; the index adds its family.

  Args:
    build, kind, fidelity, grid: as in `Entry`.
    key: of its paper in papers.bib; "" for none.
    about: what a row without a paper is.
    as_in: it is a part or a baseline of that paper, or its form there, not what the paper proposes.
    of: what the file is named for, default the builder.
    more: other fields of `Entry`.
  """
  module = (build if of is None else of).__module__
  file = module.removeprefix("mmfuse.").replace(".", "/") + ".py"
  paper = ("as in " if as_in else "") + _papers.short(key) if key else about
  cite = _papers.bibtex(key) if key else ""
  return Entry(build, kind, "", fidelity, paper, file, cite, grid=grid or {}, **more)
