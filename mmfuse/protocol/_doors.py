"""The doors of a comparison: which table it is about, and a configuration without open ends."""

import dataclasses
from typing import Any

from mmfuse import data, methods, tasks, train
from mmfuse.protocol._config import Compare, UsageError, split_words
from mmfuse.protocol._model import encoder_choices
from mmfuse.protocol._own import Own
from mmfuse.protocol._rows import method_words
from mmfuse.report._format import plural

SMOKE_ROWS = 96
SETS = ("all", "default", *methods.FAMILY_NAMES)  # words that bring several methods


def load_table(cfg: Compare, table: data.Table | None = None) -> data.Table:
  """The table a comparison is about; a smoke run takes a twin with few rows and random content.

  `table`: one from Python instead of what `cfg.data` names, default None.
  """
  options: dict[str, Any] = {} if cfg.train_size is None else {"train_size": cfg.train_size}
  built_in = data.DATASETS.get(cfg.data) if table is None else None
  if cfg.smoke and built_in is not None and "fake" in built_in.options:
    options = {"fake": True}  # its files are the user's to bring; a smoke run needs none
  table = data.load(
    cfg.data if table is None else table,
    task=cfg.task,
    encoders=encoder_choices(cfg),
    modalities=split_words(cfg.modalities) if cfg.modalities else None,
    ignore=split_words(cfg.ignore) if cfg.ignore else None,
    drop_empty=cfg.drop_empty,
    data_dir=cfg.data_dir,
    **options,
  )
  if not cfg.smoke:
    return table
  few = data.fake(table, rows=max(SMOKE_ROWS, 8 * table.num_outputs))
  return dataclasses.replace(few, name=table.name)


def smoke_of(cfg: Compare) -> Compare:
  """A smoke run: one epoch, two seeds, no search."""
  if not cfg.smoke:
    return cfg
  return dataclasses.replace(
    cfg,
    epochs=1,
    seeds=min(cfg.seeds, 2),
    tune=1,
    rates=(),
    batch_size=min(cfg.batch_size or 16, 16),
    folds=None if cfg.folds is None else 3,
  )


def budgeted(cfg: Compare, rows: int, task: str) -> tuple[Compare, list[str]]:
  """The configuration with optimiser, batch and epochs filled in, and notes on them.

  Args:
    cfg: the configuration.
    rows: training rows.
    task: whose defaults go before those of the number of rows.
  """
  usual = tasks.get(task)
  optimizer: Any = cfg.optimizer or usual.optimizer
  chosen = (
    []
    if cfg.optimizer or optimizer == "sgd"
    else [f"optimiser: {optimizer}, the default of {task}"]
  )
  cfg = dataclasses.replace(cfg, optimizer=optimizer)
  found = train.budget(rows, cfg.batch_size or usual.batch_size, cfg.epochs)
  said = (
    f"{plural(found.epochs, 'epoch')} of {plural(found.epoch_steps, 'step')} "
    f"({found.batch_size} rows each): {plural(found.steps, 'step')} a run"
  )
  notes = [said] if None in (cfg.batch_size, cfg.epochs) else []
  if found.epoch_steps < train.FEW_STEPS:
    notes = [f"{said}; an epoch of {rows} training rows has fewer than {train.FEW_STEPS} steps"]
  elif found.steps < train.LEAST_STEPS:
    notes = [f"{said}, fewer than the {train.LEAST_STEPS} of the default"]
  return dataclasses.replace(cfg, batch_size=found.batch_size, epochs=found.epochs), [
    *chosen,
    *notes,
  ]


def with_own(cfg: Compare, own: Own) -> Compare:
  """The configuration that names all methods from Python, those it does not name yet last.

  Raises UsageError for one that is called as a method that `all`, `heads` or `default` brings.
  """
  if not own.given:
    return cfg
  words = split_words(cfg.methods)
  sets = tuple(w for w in words if w in SETS)
  brought = method_words(dataclasses.replace(cfg, methods=sets)) if sets else []
  twice = [name for name in own.given if name in (*SETS, *brought)]
  if twice:
    raise UsageError(f"two methods are called {twice[0]!r}; rename yours")
  return dataclasses.replace(cfg, methods=(*words, *(n for n in own.given if n not in words)))
