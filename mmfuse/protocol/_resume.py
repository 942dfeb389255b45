"""What a continued comparison shows besides the rows that its command names."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from mmfuse.protocol._config import Compare
from mmfuse.protocol._own import Own
from mmfuse.protocol._rows import Row, make_rows, method_words
from mmfuse.protocol._search import Search
from mmfuse.protocol._store import FORMAT, read_json, read_own


def with_earlier(cfg: Compare, folder: pathlib.Path, own: Own) -> tuple[Compare, list[str]]:
  """The configuration with all methods of the run in `folder`, and notes on those left out.

  A method of the user's own is left out where its file has changed or is gone, or where it came from
  Python and is not given again.

  Args:
    cfg: the configuration of the command, with the methods that it names.
    folder: where the run is continued; nothing is added unless `cfg.resume`.
    own: the code that the user brings now.
  """
  path = folder / "run.json"
  old = read_json(path) if cfg.resume and path.is_file() else {}
  if old.get("format") != FORMAT:
    return cfg, []
  named, notes = method_words(cfg), []
  for word in old["methods"]:
    if word in named:
      continue
    if word in own.lacking(old["sources"]):
      notes.append(f"{word} of the run is not shown: it came from Python, and is not given now")
    elif word in own and not _unchanged(own, word, old["sources"].get(word)):
      notes.append(f"{word} of the run is not shown: its file has changed or is gone")
    else:
      named.append(word)
  return dataclasses.replace(cfg, methods=tuple(sorted(named, key=_order(old["methods"])))), notes


def _order(words: list[str]):
  """As in the run; what is new comes first, as it was named."""
  return lambda word: words.index(word) if word in words else -1


def _unchanged(own: Own, word: str, was: str | None) -> bool:
  try:
    return own.digest(word) == was
  except OSError:
    return False


def named_rows(cfg: Compare, modalities: Iterable[str], task: str, own: Own) -> set[str]:
  """The names of the rows that the command itself asks for, those that cannot run among them."""
  rows, unavailable = make_rows(dataclasses.replace(cfg, set=()), modalities, task, own)
  return {*unavailable, *(r.name for r in rows)}


def finished(row: Row, searches: Mapping[Any, Search]) -> dict[Any, dict] | None:
  """{fold: choice} of a row whose choices are all on disk, which they are once its runs are."""
  paths = {fold: s.store.choice_path(row.slug, fold) for fold, s in searches.items()}
  if not all(p.is_file() for p in paths.values()):
    return None
  return {fold: read_own(p, searches[fold].about(row)) for fold, p in paths.items()}


def note(shown: Iterable[str], missing: Iterable[str]) -> list[str]:
  """What is said of the rows that were not named."""
  shown, missing = ", ".join(shown), ", ".join(missing)
  said = [f"not named now, but complete in the run: {shown}"] if shown else []
  return said + ([f"not named now, and not complete in the run: {missing}"] if missing else [])
