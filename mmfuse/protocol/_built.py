"""Where rows become methods: each is built once for a split's model, and kept."""

import dataclasses
from typing import Any

from mmfuse.core import Method, Unavailable
from mmfuse.protocol._config import Compare, UsageError, parse_settings
from mmfuse.protocol._rows import Row, Trial


class Built:
  """The methods of rows on one model."""

  def __init__(self, cfg: Compare, model: Any):
    self.cfg, self.model = cfg, model
    self._methods: dict[tuple[str, Trial], Method] = {}
    self._first: dict[tuple[str, Any], Trial] = {}  # (row, hyper-parameters): what was built first

  def at(self, row: Row, trial: Trial) -> Method:
    """The method at a point of a row's search."""
    key = (row.name, trial)
    if key not in self._methods:
      self._methods[key] = row.build(self.cfg, self.model, trial)
    return self._methods[key]

  def first(self, row: Row, trial: Trial) -> tuple[Method, float]:
    """(the method of whichever rate was asked for first with such hyper-parameters, that rate).

    It serves the others too, where a run's state shows its rate and so can be given another one.
    """
    found = self._first.get((row.name, trial.hyper), trial)
    method = self.at(row, found)
    self._first[row.name, trial.hyper] = found
    return method, found.rate


def defined(built: Built, rows: list[Row], unavailable: dict[str, str]) -> list[Row]:
  """The rows that are defined for the model; the reasons of the others go to `unavailable`.

  A value of `--set` that a rule refuses is bad input. Any other error is the row's own: training
  builds it again, and reports it as that row's failure.

  Args:
    built: where the methods are built and kept.
    rows: those asked for.
    unavailable: {row: reason}, which grows.
  """
  cfg = built.cfg
  kept: list[Row] = []
  notes: list[str] = []
  for row in rows:
    try:
      phases = len(built.first(row, row.trials(cfg)[0])[0].phases)
    except Unavailable as error:
      unavailable[row.name] = str(error)
      continue
    except Exception as error:
      _check_set(built, row, error)
    else:
      notes += _many_phases(row, phases, cfg.sizes[0])
    kept.append(row)
  for said in notes:
    print(f"note: {said}")
  return kept


def _check_set(built: Built, row: Row, error: Exception) -> None:
  """Raises UsageError where a row fails that would be built without what `--set` says of it."""
  cfg, name = built.cfg, row.name.split("/")[0]
  named = parse_settings(cfg.set).get(name, {})
  if not named or not isinstance(error, TypeError | ValueError):
    return
  plain = {k: v for k, v in row.fixed.items() if k not in named}
  try:
    dataclasses.replace(row, fixed=plain).build(cfg, built.model, row.trials(cfg)[0])
  except Unavailable:
    pass  # it must be told something: what it was told is what is wrong
  except (TypeError, ValueError):
    return  # it fails whatever its settings are
  raise UsageError(f"--set {name}: {error}") from error


def _many_phases(row: Row, phases: int, epochs: int) -> list[str]:
  if phases <= epochs:
    return []
  return [
    f"{row.name} has {phases} phases of at least one epoch each and so sees more than {epochs}; "
    f"it is compared fairly from --epochs {phases} on"
  ]
