"""`--missing`: rates chosen over subsets, tables of missing modalities, and what records say of both."""

import dataclasses
import hashlib
import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse import data, masks, report, tasks, train
from mmfuse.names import closest
from mmfuse.protocol._config import Compare, UsageError
from mmfuse.train import judged as judged_rows
from mmfuse.train import parse_select
from mmfuse.tree import FUSED

SEED = 0  # of all tables: they are drawn once, and the same for every row and seed
RATES = tuple(round(0.1 * i, 1) for i in range(1, 10))
TRAIN, TEST = 0, 1  # streams of their own
Table = Mapping[str, np.ndarray]  # {modality: bool [rows]}, True = present


def configured(cfg: Compare, modalities: tuple[str, ...], task: str) -> Compare:
  """The configuration with the score that all rows are selected by, and the rates of the curve.

  Raises UsageError for data that have no subsets to speak of, or too many, an unknown modality and
  a score that is not over subsets.
  """
  if not cfg.missing:
    return cfg
  if tasks.get(task).collected is not None:
    raise UsageError(
      f"--missing scores subsets of modalities, and {task} has no prediction from one"
    )
  if len(modalities) < 2:
    raise UsageError("--missing compares subsets of modalities, and these data have one modality")
  if len(modalities) > masks.MOST_SUBSETS:
    raise UsageError(
      f"--missing scores all subsets of at most {masks.MOST_SUBSETS} modalities, these are "
      f"{len(modalities)}; choose some with --modalities"
    )
  if cfg.missing_kind not in (masks.EVEN, *modalities):
    raise UsageError(
      f"--missing-kind has no modality {cfg.missing_kind!r}; "
      f"{closest(cfg.missing_kind, [masks.EVEN, *modalities])}"
    )
  wanted = parse_select(cfg.select or tasks.get(task).primary)
  if wanted.head != FUSED:
    raise UsageError(f"--missing selects over subsets of modalities, not by {cfg.select!r}")
  return dataclasses.replace(
    cfg,
    select=wanted._replace(over=wanted.over or "mean").key,
    missing_rate=tuple(sorted(set(cfg.missing_rate))) or RATES,
  )


def check_select(select: str, modalities: tuple[str, ...], scores: list[str], task: str) -> None:
  """Raises UsageError for a score or a head that is not there."""
  wanted = parse_select(select)
  if wanted.score not in scores:
    raise UsageError(
      f"--select has no metric {wanted.score!r} for {task}; available: {', '.join(scores)}"
    )
  if tasks.get(task).collected is not None and select != wanted.score:
    raise UsageError(f"--select {select}: {task} is judged as a whole; take {wanted.score}")
  if wanted.head not in (FUSED, *modalities):
    raise UsageError(
      f"--select has no modality {wanted.head!r}; {closest(wanted.head, modalities)}"
    )
  if wanted.over and len(modalities) > masks.MOST_SUBSETS:
    raise UsageError(
      f"--select {select}: all subsets of at most {masks.MOST_SUBSETS} modalities are scored, "
      f"these are {len(modalities)}"
    )


def split(cfg: Compare, table: data.Table, fold: int | None, **options: Any) -> data.Splits:
  """The splits, their training rows less what `--missing-train` takes, before they are standardised.

  Args:
    cfg: the configuration.
    table: the data.
    fold: which of `cfg.folds`, None without folds.
    options: of `Table.splits`.
  """
  splits = table.splits(fold=fold, folds=cfg.folds, **options)
  if not cfg.missing or cfg.missing_train is None:
    return splits
  lost = _draw(cfg, splits.train, fold, TRAIN, cfg.missing_train)
  index, left = splits.train.index, masks.without(splits.train.mask, lost)
  changed = {m: v.copy() for m, v in table.mask.items()}
  for m, v in left.items():
    changed[m][index] = v
  less = dataclasses.replace(table, mask=changed).splits(fold=fold, folds=cfg.folds, **options)
  gone = sum(int((~v).sum()) for v in lost.values())
  said = (
    f"--missing-train: {gone} of {len(index)} training rows lose a modality ({cfg.missing_kind})"
  )
  return dataclasses.replace(less, notes=(*less.notes, said))


def _draw(cfg: Compare, part: Any, fold: int | None, stream: int, rate: float) -> Table:
  seed = [SEED, stream, 0 if fold is None else 1 + fold, round(1e6 * rate)]
  return masks.missing_table(seed, len(part.index), rate, list(part.mask), cfg.missing_kind)


def tables_of(cfg: Compare, splits: Mapping[Any, data.Splits]) -> dict[str, Table]:
  """{"test/0.1" (with "fold2/" before it): table} of all tables of a comparison; {} without `--missing`."""
  found: dict[str, Table] = {}
  for fold, s in splits.items() if cfg.missing else ():
    where = "" if fold is None else f"fold{fold}/"
    if cfg.missing_train is not None:
      rate = cfg.missing_train
      found[f"{where}train/{rate:g}"] = _draw(cfg, s.train, fold, TRAIN, rate)
    found |= {f"{where}test/{rate:g}": t for rate, t in of_test(cfg, s, fold).items()}
  return found


def of_test(cfg: Compare, splits: data.Splits, fold: int | None) -> dict[float, Table]:
  """{rate: table of the test rows}; {} without `--missing`."""
  rates = cfg.missing_rate if cfg.missing else ()
  return {rate: _draw(cfg, splits.test, fold, TEST, rate) for rate in rates}


def said(cfg: Compare) -> dict[str, Any]:
  """What the report is told."""
  if not cfg.missing:
    return {}
  return {"missing": {"kind": cfg.missing_kind, "select": cfg.select, "train": cfg.missing_train}}


def codes(table: Table) -> np.ndarray:
  """int16 [rows]: 0 = complete, i = the i-th modality (sorted, from 1) is lost."""
  lost = np.stack([~table[m] for m in sorted(table)])
  return (lost * np.arange(1, len(lost) + 1)[:, None]).sum(0).astype(np.int16)


def described(cfg: Compare, modalities: tuple[str, ...], tables: Mapping[str, Table]) -> dict:
  """What run.json says of the tables: how they were drawn, and the sha256 of each."""
  if not cfg.missing:
    return {}
  hashes = {
    n: hashlib.sha256(codes(t).astype("<i2").tobytes()).hexdigest() for n, t in tables.items()
  }
  rule = {"kind": cfg.missing_kind, "seed": SEED, "modalities": list(modalities)}
  return {"missing": {**rule, "tables": hashes}}


def save(folder: pathlib.Path, tables: Mapping[str, Table]) -> None:
  """missing_tables.npz: a table as `codes`, and the modalities they count; nothing without tables."""
  if not tables:
    return
  content = io.BytesIO()
  names = np.asarray(sorted(next(iter(tables.values()))))
  np.savez_compressed(content, modalities=names, **{n: codes(t) for n, t in tables.items()})  # type: ignore[arg-type]
  report.write_whole(folder / "missing_tables.npz", content.getvalue())


class Questions:
  """The views of the test rows that a record asks for, all scored in one compiled call."""

  def __init__(
    self,
    test: Any,
    subsets: list[tuple[str, ...]],
    judged: tuple[str, ...],
    tables: Mapping[float, Table],
  ):
    names, counted = tuple(sorted(test.mask)), judged_rows(test)
    self.names, self.few = names, len(names) <= masks.MOST_SUBSETS
    self.views: dict[Any, train.View] = {
      ("whole", s): train.subset_view(test, s) for s in dict.fromkeys([*subsets, names])
    }
    self.rows: dict[tuple[str, ...], int] = {}
    for s in masks.combinations(names) if self.few else ():
      view = train.subset_view(test, s, covered=True)
      self.rows[s] = int((np.asarray(view.counts) & counted).sum())
      if set(s) <= set(judged) and _has(test, s, counted):
        self.views["covered", s] = view
    self.rates = list(tables)
    for rate, table in tables.items():
      self.views["rate", rate] = train.View(masks.without(test.mask, table))

  def ask(self, method, state, test, metric) -> dict[Any, dict[str, dict[str, float]]]:
    """{what: scores}; {} keys are those of `views`."""
    found = train.evaluate_views(method, state, test, list(self.views.values()), metric=metric)
    return dict(zip(self.views, found))

  def subsets(self, answers: Mapping[Any, Any], score: str) -> list[dict[str, Any]]:
    """The field `subsets` of a record: null where no row has all of a subset, or the run diverged."""
    get = lambda s: answers.get(("covered", s), {}).get(FUSED, {}).get(score)
    return [{"modalities": list(s), "score": get(s), "rows": n} for s, n in self.rows.items()]

  def curve(self, answers: Mapping[Any, Any], score: str) -> list[dict[str, Any]]:
    """The field `missing_rates` of a record."""
    get = lambda rate: answers.get(("rate", rate), {}).get(FUSED, {}).get(score)
    return [{"rate": rate, "score": get(rate)} for rate in self.rates]

  def every(self, judged: tuple[str, ...]) -> bool:
    """Whether some row has each subset of `judged`: without, a Shapley value is not defined."""
    return all(("covered", s) in self.views for s in masks.combinations(judged))


def _has(split: Any, subset: tuple[str, ...], counted: np.ndarray) -> bool:
  return bool((np.all([split.mask[m] for m in subset], axis=0) & counted).any())
