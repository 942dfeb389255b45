"""Train and choose, on training and validation rows only: equal trials, then more seeds."""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from mmfuse import train
from mmfuse.core import Method
from mmfuse.protocol._config import Compare, cores, digest
from mmfuse.protocol._rows import Row, Trial, make_model
from mmfuse.protocol._store import Store, read_json, write_json

TIE = 0.002  # validation means closer than this tie; the smaller learning rate wins


class Diverged(RuntimeError):
  """No trial of a row has a usable epoch."""


@dataclasses.dataclass
class Search:
  """Everything about training rows on one split (fold) of the data; it never holds test rows."""

  cfg: Compare
  store: Store
  splits: Any  # without test
  fold: int | None
  progress: Callable[[Row, int | None, dict], None]
  versions: dict  # kept with every run

  def __post_init__(self):
    if self.splits.test is not None:
      raise ValueError("a search must not hold test rows; pass splits.without_test()")
    self.model = make_model(self.splits, self.cfg.fusion)
    self._methods: dict[Any, Method] = {}
    self._traced: dict[Any, bool] = {}
    self._compiled: set[int] = set()
    self._stop = threading.Event()

  @property
  def seeds(self) -> list[int]:
    return list(range(self.cfg.seeds))

  def method(self, row: Row, trial: Trial) -> Method:
    """One Method per row and hyper-parameters where the rate is traced, else one per rate."""
    key: Any = (row.name, trial.hyper)
    if key not in self._methods:
      self._methods[key] = row.build(self.cfg, self.model, trial)
    method = self._methods[key]
    if key not in self._traced:
      self._traced[key] = train.has_learning_rate(self.template(method).opt)
    if self._traced[key]:
      return method
    key = (row.name, trial)
    if key not in self._methods:
      self._methods[key] = row.build(self.cfg, self.model, trial)
    return self._methods[key]

  def template(self, method: Method) -> Any:
    """The shapes of a method's state."""
    batch = train.to_batch(self.splits.train)
    example = jax.tree.map(lambda x: x[:2], batch)
    return jax.eval_shape(method.init, jax.random.key(0), example)

  def traced_rate(self, row: Row, trial: Trial) -> bool:
    """Whether the learning rate lives in the optimiser's state."""
    self.method(row, trial)
    return self._traced[row.name, trial.hyper]

  def path(self, row: Row, seed: int, trial: Trial, suffix: str):
    """Where a run of this split is kept."""
    hyper = "" if not trial.hyper else "-" + "-".join(f"{k}{v}" for k, v in trial.hyper)
    return self.store.run_path(row.slug, self.fold, seed, f"lr{trial.rate:.6g}{hyper}", suffix)

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
    return [
      train.RunLog.from_json(read_json(self.path(row, s, t, ".json"))["log"]) for s, t in wanted
    ]

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
        self._stop.set()  # the runs under way end at their next epoch
        pool.shutdown(cancel_futures=True)
        self._stop.clear()
        raise
    self._compiled |= programs

  def _epoch(self, row: Row, entry: dict, compiled: threading.Event | None) -> None:
    if self._stop.is_set():
      raise KeyboardInterrupt
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
      train.save_weights(self._ready(self.path(row, seed, trial, ".safetensors")), result.state(i))
      write_json(
        self.path(row, seed, trial, ".json"),
        {
          "row": row.name,
          "seed": seed,
          "rate": trial.rate,
          "hyper": dict(trial.hyper),
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
    """The row's search and final runs -> its choice, written before any test row is read."""
    trials = row.trials(self.cfg)
    seeds = self.seeds[: self.cfg.trial_seeds]
    wanted = [(s, t) for t in trials for s in seeds]
    logs = dict(zip([(t, s) for s, t in wanted], self.runs(row, wanted)))
    means = [float(np.mean([_score(logs[t, s]) for s in seeds])) for t in trials]
    best = max(means)
    if best == -np.inf:
      raise Diverged("every trial diverged (non-finite loss or gradient)")
    tied = [t for t, v in zip(trials, means) if v >= best - TIE]
    chosen = min(tied, key=lambda t: (t.rate, trials.index(t)))
    self.runs(row, [(s, chosen) for s in self.seeds[self.cfg.trial_seeds :]])
    rates = sorted({t.rate for t in trials})
    finite = [v for v in means if v > -np.inf]
    choice = {
      "learning_rate": chosen.rate,
      "hyper": dict(chosen.hyper),
      "rates": rates,
      "edge": _on_edge(chosen, trials),
      "spread": max(finite) - min(finite),
      "trials": [
        {
          "learning_rate": t.rate,
          "hyper": dict(t.hyper),
          "seed": s,
          "validation": _finite(_score(logs[t, s])),
          "diverged_at": logs[t, s].diverged_at,
        }
        for t in trials
        for s in seeds
      ],
      "config": digest(row.config(self.cfg)),
    }
    write_json(self.store.choice_path(row.slug, self.fold), choice)
    return choice

  def chosen(self, choice: dict) -> Trial:
    """The trial a choice names."""
    return Trial(choice["learning_rate"], tuple(sorted(choice["hyper"].items())))


def _on_edge(chosen: Trial, trials: list[Trial]) -> bool:
  """Whether a chosen value, rate or hyper-parameter, is the first or last of those tried."""
  point = lambda t: {"": t.rate, **dict(t.hyper)}
  axes = {name: sorted({point(t)[name] for t in trials}) for name in point(chosen)}
  return any(len(v) > 1 and point(chosen)[k] in (v[0], v[-1]) for k, v in axes.items())


def _score(log: train.RunLog) -> float:
  return -np.inf if log.best is None else log.best


def _finite(value: float) -> float | None:
  return value if np.isfinite(value) else None
