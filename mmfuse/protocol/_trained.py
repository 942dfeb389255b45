"""The rows of a comparison, one after the other: none of them takes the others down."""

import itertools
import pathlib
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

from mmfuse import train
from mmfuse.core import Unavailable
from mmfuse.protocol import _baselines, _resume
from mmfuse.protocol._ahead import Ahead
from mmfuse.protocol._progress import Progress
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.protocol._store import ForeignFile, Store
from mmfuse.protocol._tried import Diverged

REASON = 500  # characters of a failed row's reason beside the row


def earlier_rows(
  rows: list[Row], named: set[str], searches: Mapping[Any, Search]
) -> tuple[dict[Row, dict], list[str]]:
  """-> ({row: {fold: choice}} of complete rows that are not named, notes on them); checks all files."""
  for search in searches.values():
    for row in rows:
      search.check(row)
  others = {row: _resume.finished(row, searches) for row in rows if row.name not in named}
  kept = {row: choices for row, choices in others.items() if choices is not None}
  missing = [row.name for row, choices in others.items() if choices is None]
  return kept, _resume.note([row.name for row in kept], missing)


def train_rows(
  rows: list[Row], searches: Mapping[Any, Search], unavailable: dict[str, str], progress: Progress
) -> tuple[dict[Row, dict], bool]:
  """-> ({row: {fold: choice}} of complete rows, interrupted).

  Args:
    rows: in the order of training.
    searches: {fold: search}.
    unavailable: {row: why it has no choice}, which grows.
    progress: what a terminal shows.
  """
  done: dict[Row, dict] = {}
  folder = next(iter(searches.values())).store.folder
  with progress, Ahead(next(iter(searches.values()))) as ahead:
    for row, following in itertools.zip_longest(rows, rows[1:]):
      try:
        ahead.wait()
        train.release_programs()  # between rows no thread trains
        ahead.begin(following)
        done[row] = {fold: search.choose(row) for fold, search in searches.items()}
        progress.row_done(row)
      except KeyboardInterrupt:
        return done, True
      except ForeignFile:
        raise
      except (Diverged, Unavailable) as error:
        unavailable[row.name] = str(error)
        progress.row_done(row, f"n/a: {error}")
      except Exception as error:  # a row never takes the run down
        unavailable[row.name] = failure(folder, row, error)
        progress.row_done(row, "failed")
  return done, False


def fit_lines(store: Store, searches: Mapping[Any, Search]) -> dict[Any, list[_baselines.Line]]:
  """The linear baselines of every split, without test rows; {} where a report has their scores."""
  if _baselines.kept(store.folder) is not None:
    return {}
  began = time.perf_counter()
  failed = lambda line, error: failure(store.folder, line, error)
  found = {fold: _baselines.fit_lines(s.splits, failed) for fold, s in searches.items()}
  first = next(iter(searches))
  if found[first]:
    print(_baselines.said(found[first], searches[first].splits.task, began))
  return found


def failure(folder: pathlib.Path, row: Row | _baselines.Line, error: Exception) -> str:
  """The reason beside the row, on one line; errors.log has all of it, and the traceback."""
  reason = " ".join(str(error).split())
  if len(reason) > REASON:
    reason = f"{reason[:REASON].rsplit(' ', 1)[0]} ... (all of it is in errors.log)"
  reason = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
  log = folder / "errors.log"
  with log.open("a") as file:
    file.write(f"--- {row.name}\n{''.join(traceback.format_exception(error))}\n")
  print(f"{row.name} failed ({reason}); see {log}", file=sys.stderr)
  return f"failed: {reason}"
