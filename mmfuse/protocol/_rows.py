"""From names to rows: which methods are compared, with which trials."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse import methods, report, train
from mmfuse.core import Method
from mmfuse.names import GENERATION, RETRIEVAL, TASKS, closest
from mmfuse.protocol._config import (
  Compare,
  UsageError,
  digest,
  parse_settings,
  split_words,
)
from mmfuse.protocol._generation import likelihoods
from mmfuse.protocol._names import file_name
from mmfuse.protocol._own import Own

OUTWARDS = 3.0  # factor from an outermost rate to the next one
MOST_OUTWARDS = 2  # how often a search is extended


@dataclasses.dataclass(frozen=True)
class Trial:
  """One point of a row's search."""

  rate: float
  hyper: tuple[tuple[str, Any], ...] = ()  # sorted items, so that a trial can be a key


@dataclasses.dataclass(frozen=True, eq=False)  # hashed by identity: entries hold dicts
class Row:
  """A line of the table."""

  name: str  # as in results.jsonl: "joint", "unimodal/accel", "loss_share"
  entry: methods.Entry
  fixed: dict[str, Any]  # keyword arguments of the builder
  source: str = ""  # digest of the user's file, "" for ours

  @property
  def slug(self) -> str:
    """The name as a file name, another one for every name."""
    return file_name(self.name)

  def build(self, cfg: Compare, model: Any, trial: Trial) -> Method:
    """The method at a point of the search, on the optimiser all rows share."""
    options = {**self.fixed, **dict(trial.hyper)}
    return self.entry(model, trial.rate, tx=shared_optimizer(cfg, trial.rate), **options)

  def trials(self, cfg: Compare) -> list[Trial]:
    """The points that the search begins with, an equal number for every row."""
    own = None if cfg.tune == 1 or cfg.rates else self.entry.rates
    rates = cfg.first_rates if own is None else own
    if cfg.tune != 9:
      return [Trial(r) for r in rates]
    free = {k: v for k, v in self.entry.grid.items() if k not in self.fixed}
    if not free:  # as many trials, within the same range
      return [Trial(float(f"{r:.6g}")) for r in np.geomspace(rates[0], rates[-1], 9)]
    ((name, values),) = free.items()
    return [Trial(r, ((name, v),)) for v, r in itertools.product(values, rates)]

  def outwards(self, cfg: Compare, trials: list[Trial], chosen: Trial) -> Trial | None:
    """The next point beyond an outermost rate; None where the user named the rates."""
    rates = sorted({t.rate for t in trials if t.hyper == chosen.hyper})
    if cfg.rates or cfg.tune == 1 or len(rates) < 2 or chosen.rate not in (rates[0], rates[-1]):
      return None
    factor = OUTWARDS if chosen.rate == rates[-1] else 1.0 / OUTWARDS
    return Trial(float(f"{chosen.rate * factor:.6g}"), chosen.hyper)

  def config(self, cfg: Compare) -> dict:
    """What decides this row's numbers, whatever other rows there are."""
    numeric = {k: v for k, v in cfg.numeric().items() if k not in ("methods", "set")}
    return {"method": self.name, "fixed": self.fixed, "source": self.source, **numeric}


def shared_optimizer(cfg: Compare, rate: float):
  """The same optimiser for every row."""
  make = train.adam if cfg.optimizer == "adam" else train.sgd
  return make(rate, weight_decay=cfg.weight_decay, schedule=cfg.schedule)


def _entry(spec: str, own: Own) -> tuple[str, methods.Entry, str]:
  """A word of `--methods` -> (name, entry, digest of its source)."""
  if spec not in own:
    if spec not in methods.METHODS:
      raise UsageError(
        f"unknown method {spec!r}; {closest(spec, (*methods.METHODS, *methods.FAMILY_NAMES))}"
      )
    return spec, methods.METHODS[spec], ""
  found = own.load(spec)
  name = spec.rpartition(":")[2]
  if isinstance(found, methods.Entry):
    _check_entry(spec, found)
    return name, found, own.digest(spec)
  if not callable(found):
    raise UsageError(
      f"{spec!r} is a {type(found).__name__}, expected a builder (model, learning_rate) -> Method"
    )
  entry = methods.of_rate(found)._replace(file=spec, tasks=TASKS)
  return name, entry, own.digest(spec)


def _check_entry(spec: str, entry: methods.Entry) -> None:
  """Every row gets as many trials (three rates, three values of one hyper-parameter), and facts."""
  unknown = sorted(set(entry.needs) - set(methods.FACTS))
  if unknown:
    raise UsageError(
      f"{spec!r} needs {unknown[0]!r}, but builders are told only {', '.join(methods.FACTS)}"
    )
  if entry.rates is not None and len(entry.rates) != 3:
    raise UsageError(f"{spec!r} has {len(entry.rates)} rates, every row tries 3")
  if entry.grid and [len(v) for v in entry.grid.values()] != [3]:
    raise UsageError(
      f"the grid of {spec!r} must be one name with three values, got {dict(entry.grid)}"
    )


def method_words(cfg: Compare) -> list[str]:
  """`--methods` with `all`, `default` and the names of families spelt out, each word once."""
  words = []
  for word in split_words(cfg.methods):
    if word == "heads":  # `joint` is the one of --fusion
      words += ["joint", *(name for name in methods.HEADS if name != cfg.fusion)]
    elif word == "all" or word in methods.FAMILY_NAMES:  # under one fusion; `heads` are the fusions
      words += [
        name
        for name, entry in methods.METHODS.items()
        if word in ("all", entry.family)
        and not (name in methods.HEADS or entry.by_name or entry.alias_of)
      ]
    elif word == "default":
      usual = methods.SMOKE if cfg.smoke else methods.DEFAULT
      words += list(methods.DEFAULT_OF.get(cfg.task or "", usual))
    else:
      words.append(word)
  if not words:
    raise UsageError("--methods names no method")
  return list(dict.fromkeys(_aliases(words).get(word, word) for word in words))


def _aliases(words: Iterable[str]) -> dict[str, str]:
  """{word: the row that it is another name of}."""
  found = {w: methods.METHODS[w].alias_of for w in words if w in methods.METHODS}
  return {word: name for word, name in found.items() if name}


def alias_notes(cfg: Compare) -> list[str]:
  """What is said of a row that was asked for by another name."""
  return [
    f"{word} is {methods.METHODS[word].paper}: trained and shown once, as {name}"
    for word, name in _aliases(split_words(cfg.methods)).items()
  ]


def optimiser_notes(cfg: Compare, own: Own) -> list[str]:
  """What is said of bare builders where the table's optimiser is not the default they know."""
  asked, usual = (
    (c.optimizer or "sgd", c.weight_decay, c.schedule) for c in (cfg, Compare(methods=cfg.methods))
  )
  bare = [w for w in method_words(cfg) if w in own and not isinstance(own.load(w), methods.Entry)]
  if asked == usual or not bare:
    return []
  return [
    f"{', '.join(bare)}: a builder (model, learning_rate) brings its own optimiser; --optimizer, "
    "--weight-decay and --schedule reach it as a methods.Entry alone"
  ]


def make_rows(
  cfg: Compare, modalities: Iterable[str], task: str, own: Own = Own()
) -> tuple[list[Row], dict[str, str]]:
  """-> (rows, {name: reason} of rows that cannot run on such data); `own`: what the user brings."""
  settings = parse_settings(cfg.set)
  rows: list[Row] = []
  unavailable: dict[str, str] = {}
  for word in method_words(cfg):
    name, entry, source = _entry(word, own)
    fixed = settings.pop(name, {})
    _check_settings(name, entry, fixed)
    fixed = {**fixed, "task": task} if "task" in entry.needs else fixed
    if "likelihood" in entry.needs:
      fixed = {**fixed, "likelihood": likelihoods(cfg, tuple(sorted(modalities)))}
    if name == report.LINEAR:
      raise UsageError(
        f"a method cannot be called {name!r}, which is a line of every table; rename yours"
      )
    if any(r.name == name for r in rows):
      raise UsageError(f"two methods are called {name!r}; rename yours")
    if task not in entry.tasks:
      unavailable[name] = _undefined(entry, task)
    elif entry.rates is not None and cfg.optimizer == "adam" and not source:
      unavailable[name] = (
        "its own learning rates are those of plain gradients; needs --optimizer sgd"
      )
    elif entry.per_modality:
      rows += [
        Row(f"{name}/{m}", entry, {**fixed, "modality": m}, source) for m in sorted(modalities)
      ]
    else:
      rows.append(Row(name, entry, fixed, source))
  for name in settings:
    raise UsageError(
      f"--set names {name!r}, which is not among the methods; "
      f"{closest(name, [r.name for r in rows])}"
    )
  return rows, unavailable


def _undefined(entry: methods.Entry, task: str) -> str:
  """Why a row is not defined for a task."""
  if task == RETRIEVAL:
    return "it gives no features of its modalities in one space, which retrieval compares"
  these = "which generation does not read" if task == GENERATION else f"these are {task}"
  needed = [t for t in entry.tasks if t not in (GENERATION, RETRIEVAL)]
  return f"needs {' or '.join(needed)} labels, {these}" if needed else f"is for {entry.tasks[0]}"


def present(rows: list[Row], splits: Mapping[Any, Any], unavailable: dict[str, str]) -> list[Row]:
  """The rows without those of a modality that some part lacks, whose reasons go to `unavailable`.

  A single modality that no row of a part has cannot be trained, chosen or judged there.
  """
  kept = []
  for row in rows:
    lacking = _lacking(row.fixed["modality"], splits) if row.entry.per_modality else None
    if lacking is None:
      kept.append(row)
    else:
      unavailable[row.name] = lacking
  return kept


def _lacking(modality: str, splits: Mapping[Any, Any]) -> str | None:
  """`b is in no test row`, of the first fold and part where that is so."""
  for fold, s in splits.items():
    for part, of in ((s.train, "training"), (s.validation, "validation"), (s.test, "test")):
      known = np.ones(len(part.index), bool) if part.labelled is None else part.labelled
      if not (part.mask[modality] & known).any():
        with_label = "" if known.all() else " with a label"
        where = "" if fold is None else f" of fold {fold}"
        return f"{modality} is in no {of} row{with_label}{where}"
  return None


def _check_settings(name: str, entry: methods.Entry, fixed: dict) -> None:
  """An option that a builder does not have is refused before anything runs."""
  known = [
    p
    for p, v in inspect.signature(entry.build).parameters.items()
    if p not in ("model", "tx", *methods.FACTS) and v.kind not in (v.VAR_KEYWORD, v.VAR_POSITIONAL)
  ]
  for option in fixed:
    if option not in known:
      hint = closest(option, known) if known else "it has none"
      raise UsageError(f"method {name!r} has no option {option!r}; {hint}")


def config_hash(config: dict) -> str:
  """Sixteen hex digits of what decides a row's numbers."""
  return digest(config)
