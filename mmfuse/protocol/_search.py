"""Train and choose, on training and validation rows only: equal trials, then more seeds."""

import contextlib
import dataclasses
import functools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from mmfuse import train
from mmfuse.core import Method
from mmfuse.protocol._built import Built
from mmfuse.protocol._config import Compare, cores, digest
from mmfuse.protocol._generation import Judges
from mmfuse.protocol._model import make_model
from mmfuse.protocol._names import trial_name
from mmfuse.protocol._rows import MOST_OUTWARDS, Row, Trial
from mmfuse.protocol._store import ForeignFile, Store, read_own, write_json
from mmfuse.protocol._tried import Tried, best_trial, on_edge, score_of


class Stopped(RuntimeError):
  """A run was ended because another one failed or was interrupted."""


@dataclasses.dataclass
class Search:
  """Everything about training rows on one split (fold) of the data; it never holds test rows.

  Args:
    cfg: the configuration, filled in.
    store: where runs and choices are kept.
    splits: the data without test rows; others are a ValueError.
    fold: which fold they are, None of one split.
    progress: called after every epoch of every run, `(row, fold, entry)`.
    versions: kept with every run.
    built: where the methods of rows are built and kept; default None, one for a model of these data.
  """

  cfg: Compare
  store: Store
  splits: Any  # without test
  fold: int | None
  progress: Callable[[Row, int | None, dict], None]
  versions: dict
  built: dataclasses.InitVar[Built | None] = None

  def __post_init__(self, built: Built | None):
    if self.splits.test is not None:
      raise ValueError("a search must not hold test rows; pass splits.sealed()")
    self._built = built or Built(self.cfg, make_model(self.splits, self.cfg.fusion))
    self._traced: dict[Any, bool] = {}
    self._compiled: set[int] = set()
    self._stop = threading.Event()
    self._judges: Judges | None = None

  @property
  def judges(self) -> Judges:
    """Classifiers of real training rows, which say what is seen in generated ones."""
    if self._judges is None:
      self._judges = Judges(self.splits, self._built.model, 1 if self.cfg.smoke else None)
    return self._judges

  @property
  def seeds(self) -> list[int]:
    return list(range(self.cfg.seeds))

  def method(self, row: Row, trial: Trial) -> Method:
    """One Method per row and hyper-parameters where the rate is traced, else one per rate."""
    method, rate = self._built.first(row, trial)
    key = row.name, trial.hyper
    if key not in self._traced:  # what the first trial's state shows is what any other's would
      state = self._init(method)(jax.random.key(0), self._example())
      self._traced[key] = train.has_learning_rate(state.opt, rate)
    return method if self._traced[key] else self._built.at(row, trial)

  def template(self, method: Method) -> Any:
    """The shapes of a method's state."""
    return jax.eval_shape(self._init(method), jax.random.key(0), self._example())

  def _init(self, method: Method) -> Callable[..., Any]:
    rows = len(self.splits.train.index)
    return functools.partial(train.initial, method, num_rows=rows)

  def _example(self) -> Any:
    return jax.tree.map(lambda x: x[:2], train.to_batch(self.splits.train))

  def traced_rate(self, row: Row, trial: Trial) -> bool:
    """Whether the learning rate lives in the optimiser's state."""
    self.method(row, trial)
    return self._traced[row.name, trial.hyper]

  def path(self, row: Row, seed: int, trial: Trial, suffix: str):
    """Where a run of this split is kept."""
    return self.store.run_path(
      row.slug, self.fold, seed, trial_name(trial.rate, trial.hyper), suffix
    )

  def about(self, row: Row) -> dict[str, Any]:
    """What every file of a row on this split says of itself."""
    return {
      "row": row.name,
      "fold": self.fold,
      "config": digest(row.config(self.cfg)),
      "data": self.splits.fingerprint,
    }

  def identity(self, row: Row, seed: int, trial: Trial) -> dict[str, Any]:
    """What the files of a run say of themselves: names of files are for people."""
    return {**self.about(row), "seed": seed, "rate": trial.rate, "hyper": dict(trial.hyper)}

  def saved(self, row: Row, seed: int, trial: Trial) -> dict:
    """The file of a finished run. Raises ForeignFile for one of another configuration."""
    return read_own(self.path(row, seed, trial, ".json"), self.identity(row, seed, trial))

  def check(self, row: Row) -> None:
    """Raises ForeignFile where a file among the row's runs is not one of them."""
    about = self.about(row)
    for path in self.store.run_files(row.slug, self.fold):
      found = read_own(path, about)
      trial = Trial(found["rate"], _items(found["hyper"]))
      if path != self.path(row, found["seed"], trial, ".json"):
        raise ForeignFile(f"{str(path)!r} was renamed: it is the run of another seed or trial")

  def load_weights(self, row: Row, seed: int, trial: Trial, template: Any) -> Any:
    """The state of a finished run. Raises ForeignFile for weights of another one."""
    path = self.path(row, seed, trial, ".safetensors")
    try:
      return train.load_weights(path, template, _as_text(self.identity(row, seed, trial)))
    except ValueError as error:
      raise ForeignFile(str(error)) from error

  def runs(self, row: Row, wanted: list[tuple[int, Trial]]) -> list[train.RunLog]:
    """Several runs; on an accelerator those of one program go together."""
    missing = [(s, t) for s, t in wanted if not self.path(row, s, t, ".json").exists()]
    if jax.default_backend() == "cpu":
      groups = [[run] for run in missing]
    else:
      by_program: dict[int, list] = {}
      for seed, trial in missing:
        by_program.setdefault(id(self.method(row, trial)), []).append((seed, trial))
      groups = list(by_program.values())
    self._train_all(row, groups)
    return [train.RunLog.from_json(self.saved(row, s, t)["log"]) for s, t in wanted]

  def _train_all(self, row: Row, groups: list[list[tuple[int, Trial]]]) -> None:
    """One run per core at a time: a small step keeps one core busy. The numbers do not see it."""
    if jax.default_backend() != "cpu" or len(groups) < 2 or cores() < 2:
      for group in groups:
        self._train(row, group)
      return
    compiled = threading.Event()  # by the first run, in its first epoch; the others wait for it
    programs = {id(self.method(row, group[0][1])) for group in groups}
    if programs <= self._compiled:
      compiled.set()

    def train_one(group):
      if group is not groups[0]:
        compiled.wait()
      try:
        self._train(row, group, compiled)
      finally:
        compiled.set()

    with ThreadPoolExecutor(cores()) as pool:
      waiting = [pool.submit(train_one, group) for group in groups]
      try:
        for future in waiting:
          future.result()
      except BaseException:
        with self.stopping():
          pool.shutdown(cancel_futures=True)
        raise
    self._compiled |= programs

  @contextlib.contextmanager
  def stopping(self) -> Iterator[None]:
    """Within it, the runs under way end at their next epoch."""
    self._stop.set()
    try:
      yield
    finally:
      self._stop.clear()

  def train_first(self, row: Row) -> None:
    """The first run of a row's search, and with it the row's programs."""
    seed, trial = self.seeds[0], row.trials(self.cfg)[0]
    if not self.path(row, seed, trial, ".json").exists():
      self._train(row, [(seed, trial)])
      self._compiled.add(id(self.method(row, trial)))

  def _epoch(self, row: Row, entry: dict, compiled: threading.Event | None) -> None:
    if self._stop.is_set():
      raise Stopped
    if compiled is not None:
      compiled.set()
    self.progress(row, self.fold, entry)

  def _train(
    self, row: Row, group: list[tuple[int, Trial]], compiled: threading.Event | None = None
  ) -> None:
    cfg, (seed, trial) = self.cfg, group[0]
    method = self.method(row, trial)
    checkpoint = self.path(row, seed, trial, ".checkpoint")
    result = train.fit(
      method,
      self.splits,
      epochs=cfg.epochs,
      batch_size=cfg.batch_size,
      seeds=[s for s, _ in group],
      learning_rate=[t.rate for _, t in group] if self.traced_rate(row, trial) else None,
      select=cfg.select,
      patience=cfg.patience,
      checkpoint_dir=str(checkpoint),
      checkpoint_seconds=cfg.checkpoint_seconds,
      on_epoch=lambda entry: self._epoch(row, entry, compiled),
    )
    for i, (seed, trial) in enumerate(group):
      identity = self.identity(row, seed, trial)
      weights = self._ready(self.path(row, seed, trial, ".safetensors"))
      train.save_weights(weights, result.state(i), _as_text(identity))
      write_json(
        self.path(row, seed, trial, ".json"),
        {
          **identity,
          "metric": result.metric,
          "log": result.logs[i].to_json(),
          "versions": self.versions,
        },
      )
    train.remove_checkpoints(checkpoint)

  @staticmethod
  def _ready(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

  def choose(self, row: Row) -> dict:
    """The row's search and final runs -> its choice, written before any test row is read.

    Three rates; while the best is an outermost one, the next one outwards, at most twice. Ties of
    the mean validation score go to the smaller mean validation loss, then to the smaller rate.
    """
    trials = row.trials(self.cfg)
    seeds = self.seeds[: self.cfg.trial_seeds]
    found = self._try(row, trials, seeds)
    chosen = best_trial(found)
    for _ in range(MOST_OUTWARDS):
      further = row.outwards(self.cfg, list(found), chosen) if on_edge(chosen, found) else None
      if further is None:
        break
      found |= self._try(row, [further], seeds)
      chosen = best_trial(found)
    self.runs(row, [(s, chosen) for s in self.seeds[self.cfg.trial_seeds :]])
    finite = [t.score for t in found.values() if t.score > -np.inf]
    choice = {
      "learning_rate": chosen.rate,
      "hyper": dict(chosen.hyper),
      "rates": sorted({t.rate for t in found}),
      "edge": on_edge(chosen, found),
      "spread": max(finite) - min(finite),
      "trials": [
        {
          "learning_rate": t.rate,
          "hyper": dict(t.hyper),
          "seed": s,
          "validation": _finite(score_of(log)),
          "validation_loss": log.best_loss,
          "diverged_at": log.diverged_at,
        }
        for t, tried in found.items()
        for s, log in zip(seeds, tried.logs)
      ],
      **self.about(row),
    }
    write_json(self.store.choice_path(row.slug, self.fold), choice)
    return choice

  def _try(self, row: Row, trials: list[Trial], seeds: list[int]) -> dict[Trial, Tried]:
    """{trial: how it went}, in the order given."""
    logs = iter(self.runs(row, [(s, t) for t in trials for s in seeds]))
    return {t: Tried.of([next(logs) for _ in seeds]) for t in trials}

  def chosen(self, choice: dict) -> Trial:
    """The trial a choice names."""
    return Trial(choice["learning_rate"], _items(choice["hyper"]))


def _items(hyper: dict) -> tuple[tuple[str, Any], ...]:
  """The hyper-parameters of a file as a trial has them: lists were tuples."""
  return tuple(sorted((k, _as_tuple(v)) for k, v in hyper.items()))


def _as_tuple(value: Any) -> Any:
  return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _as_text(identity: dict) -> dict[str, str]:
  return {k: json.dumps(v, sort_keys=True) for k, v in identity.items()}


def _finite(value: float) -> float | None:
  return value if np.isfinite(value) else None
