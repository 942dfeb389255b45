"""One run, or several as one program: phases, epochs, validation, logs, checkpoints."""

import functools
import time
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import metrics as metrics_lib
from mmfuse.core import LAST, Batch, Phase, State
from mmfuse.train import _evaluate, _programs
from mmfuse.train import _identity as identity_lib
from mmfuse.train._checkpoint import Checkpointer
from mmfuse.train._feed import Feed, PhaseKeys, clock_at, seen_rows
from mmfuse.train._initial import initial
from mmfuse.train._optimizer import set_learning_rate
from mmfuse.train._plan import Plan
from mmfuse.train._result import RunLog
from mmfuse.train._validation import Validation

DIAGNOSES = 10  # of a phase: one costs two to three steps, and a short epoch has sixteen


class Stage(NamedTuple):
  """A phase as this run goes through it."""

  number: int
  phase: Phase
  keys: PhaseKeys
  epochs: int
  metric: metrics_lib.Metric
  select: str  # LAST = it is not validated


class Epoch(NamedTuple):
  """What an epoch left behind, on the host."""

  number: int  # within its phase
  rows: np.ndarray  # [N, B] or [N, S, B]
  finite: np.ndarray  # bool [N] or [N, S]: what the guard saw
  entry: dict[str, Any]  # everything logged, leaves [] or [S]
  seconds: tuple[float, float]  # a step: of the program, of the hook


def _rule_state(opt: Any) -> dict[str, Any]:
  """What the rule decided last: small leaves under a field named `weights` or `coefficients`."""
  out = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(opt)[0]:
    names = [str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", "")))) for p in path]
    for field in ("weights", "coefficients"):
      if field in names and leaf.size <= 1024:
        out["/".join(["rule", *names[names.index(field) :]])] = leaf
  return out


def _structure(state: State) -> int:
  """A number that differs where paths, shapes or dtypes of the state do."""
  leaves = jax.tree_util.tree_flatten_with_path(state)[0]
  text = ";".join(f"{jax.tree_util.keystr(p)} {x.shape} {x.dtype}" for p, x in leaves)
  return zlib.crc32(text.encode())


def _copied(state: State) -> tuple[Any, Any]:
  """What selection keeps, in buffers that no later step is given to overwrite."""
  return jax.tree.map(jnp.copy, (state.params, state.stats))


class Group:
  """One run, or several as one vmapped program."""

  def __init__(self, plan: Plan, runs: list[tuple[int, float | None]]):
    self.plan, self.runs, self.loop = plan, runs, plan.loop
    self.feed = Feed(plan, [seed for seed, _ in runs])
    self.logs = [RunLog(seed, rate) for seed, rate in runs]
    self.arrays = plan.place(_evaluate.to_batch(plan.data.train))
    self.validation = Validation(plan)
    self.itself: dict[str, Any] = {}  # what the checkpoints of this run say of themselves

  def initial(self) -> State:
    """The state(s) to begin from, with the rates of the runs."""
    plan = self.plan
    # Not jitted as a whole: its slow part is the model's, shared by all.
    init = functools.partial(initial, plan.method, num_rows=plan.num_rows)
    state = (jax.vmap(init, (0, None)) if plan.stacked else init)(
      self.feed.key(0), self._example(self.arrays)
    )
    given = [rate for _, rate in self.runs if rate is not None]
    if given:
      rate = np.asarray(given, np.float32) if plan.stacked else np.float32(given[0])
      state = state._replace(opt=set_learning_rate(state.opt, rate))
    return plan.place(state)

  def _example(self, arrays: Batch) -> Batch:
    """The first rows, as many as a step of the first phase has: what `init` reads shapes off."""
    size = self.plan.batch_size[self.plan.method.phases[0].name]
    return jax.tree.map(lambda x: x[:size], arrays)

  def run(self, folder: str | None, seconds: float, keep_final: bool) -> tuple[list[RunLog], State]:
    """Trains through all phases, from the checkpoint in `folder` where there is one."""
    state, (first, start) = self.initial(), (0, 0)
    best = _copied(state)
    keeper = None if folder is None else Checkpointer(folder, seconds)
    if keeper is not None:
      self.itself = self._identity(state)
      state, best, (first, start) = self._restored(keeper, state, best)
    phases = self.plan.method.phases
    for number in range(first, len(phases)):
      stage = self.stage(number)
      state, best = self._phase(stage, state, best, start if number == first else 0, keeper)
    if keeper is not None:
      if keep_final and first < len(phases):  # else it is there already
        self._save(keeper, state, best, len(phases), 0)
      keeper.close()
    return self.logs, state

  # One phase, one epoch.

  def stage(self, number: int) -> Stage:
    """Phase `number`; its own metric and selection go before those of the task."""
    plan, phase = self.plan, self.plan.method.phases[number]
    own = None if phase.metric is None else phase.metric.scores[0].name
    return Stage(
      number,
      phase,
      self.feed.phase_keys(number),
      plan.epochs[phase.name],
      phase.metric or plan.metric,
      phase.select or own or plan.select,
    )

  def _phase(self, stage: Stage, state: State, best, start: int, keeper):
    """-> (the state with the best parameters, these); from epoch `start`."""
    if start == 0:
      for log in self.logs:
        log.enter(stage.phase.name)
      if not self._stopped():
        state = self.begin(stage, state)
      best = _copied(state)
    for number in range(start, stage.epochs):
      if self._stopped():
        break
      live = [log for log in self.logs if not log.stopped]
      state, epoch = self._epoch(stage, state, number)
      better = self._log(stage, epoch)
      which = jnp.asarray(better if self.plan.stacked else better[0])
      best = _programs.pick(which, (state.params, state.stats), best)
      self._tell(stage, live)
      if keeper is not None and keeper.due():
        self._save(keeper, state, best, stage.number, number + 1)
    return state._replace(params=best[0], stats=best[1]), best

  def _stopped(self) -> bool:
    return all(log.stopped for log in self.logs)

  def begin(self, stage: Stage, state: State) -> State:
    """The state after the phase's `begin`."""
    hook = stage.phase.begin
    if hook is None:
      return state
    # In buffers of its own, since the steps donate them: a teacher may be the parameters themselves.
    hour = self.feed.hour(stage.phase)
    return self.plan.place(hook(state, self.plan.splits, stage.keys.begin, hour))

  def fed(self, stage: Stage, state: State, epoch: int) -> _programs.Fed:
    """What the programs of an epoch read."""
    keys = stage.keys
    key = keys.at(keys.rows, epoch)
    rows, keep = self.feed.rows(stage.number, stage.phase, state, key, epoch)
    clock = clock_at(epoch, rows.shape[0], stage.epochs)
    return _programs.Fed(self.arrays, rows, keep, keys.steps, clock)

  def steps(self, stage: Stage, state: State, fed: _programs.Fed):
    """(state, metrics [N, ...]) after an epoch's steps; donates `state`."""
    fixed = (stage.phase.step, self.plan.mesh, self.plan.stacked)
    self.loop = _programs.choose_loop(self.loop, fixed, state, fed)
    return _programs.run_epoch(self.loop, fixed, state, fed)

  def _epoch(self, stage: Stage, state: State, number: int) -> tuple[State, Epoch]:
    """Steps, hook, validation and diagnosis of an epoch."""
    fed = self.fed(stage, state, number)
    began, count = time.perf_counter(), fed.rows.shape[0]
    state, metrics = self.steps(stage, state, fed)
    finite = np.asarray(jax.device_get(metrics["finite"]))  # waits for the epoch
    spent, hooked = (time.perf_counter() - began) / count, 0.0
    if stage.phase.epoch_end is not None:
      began = time.perf_counter()
      key = stage.keys.at(stage.keys.end, number)
      hour = self.feed.hour(stage.phase, number + 1, count)
      state = self.plan.place(stage.phase.epoch_end(state, self.plan.splits, key, hour))
      hooked = (time.perf_counter() - began) / count
    entry = {**self._entry(stage, state, metrics), **self._diagnosis(stage, state, fed, number)}
    return state, Epoch(number, fed.rows, finite, jax.device_get(entry), (spent, hooked))

  # What is logged.

  def _entry(self, stage: Stage, state: State, metrics) -> dict[str, Any]:
    """What is logged of every epoch: leaves [] or [S]."""
    plan = self.plan
    seen = _evaluate.seen(state)
    entry = {k: v.mean(0) for k, v in metrics.items() if k != "finite"}
    if self.validation.batches is not None and stage.select != LAST:
      predict = stage.phase.predict or plan.method.predict
      entry["validation"] = self.validation.scores(
        predict, stage.metric, stage.select, seen, self.loop
      )
    return entry | _rule_state(state.opt.get(stage.phase.name))

  def _diagnosis(
    self, stage: Stage, state: State, fed: _programs.Fed, number: int
  ) -> dict[str, Any]:
    """Of the gradients on the first batch of an epoch that is one of DIAGNOSES, else nothing."""
    diagnose = self.plan.method.functions.get("diagnose") if self.plan.diagnose else None
    if diagnose is None or number % -(-stage.epochs // DIAGNOSES):
      return {}
    key = stage.keys.at(stage.keys.diagnosis, number)
    kept = jax.tree.map(lambda x: x[0], fed.keep)
    first = fed._replace(rows=fed.rows[0], keep=kept, key=key)
    return _programs.run_diagnosis(diagnose, self.plan.stacked, _evaluate.seen(state), first)

  def _log(self, stage: Stage, epoch: Epoch) -> np.ndarray:
    """Appends to each run's log -> which runs got better, bool [S]."""
    plan, better = self.plan, np.zeros(len(self.logs), bool)
    for i, log in enumerate(self.logs):
      if log.stopped:  # while other seeds of the same program go on
        continue
      mine = jax.tree.map(lambda x, i=i: x[i], epoch.entry) if plan.stacked else dict(epoch.entry)
      finite = epoch.finite[:, i] if plan.stacked else epoch.finite
      if not finite.all():
        log.diverge(epoch.number, int(np.argmin(finite)) + epoch.number * epoch.rows.shape[0])
      scores, judged = self.validation.judge(
        mine.pop("validation", None), stage.metric, stage.select
      )
      better[i] = log.append(
        stage.phase.name,
        epoch.number,
        mine,
        scores,
        judged,
        epoch.seconds,
        seen_rows(epoch.rows, len(self.logs)),
        plan.patience,
      )
    return better

  def _tell(self, stage: Stage, live: list[RunLog]) -> None:
    """Hands the latest entry of each run that was under way to `fit(on_epoch=)`."""
    if self.plan.on_epoch is None:
      return
    for log in live:
      who = {"seed": log.seed, "learning_rate": log.learning_rate, "epochs": stage.epochs}
      self.plan.on_epoch({**who, **log.history[-1]})

  # Checkpoints.

  def _restored(self, keeper: Checkpointer, state: State, best):
    """(state, best, (phase, epoch) to go on from) of the newest checkpoint; as given without one."""
    template = {"state": state._asdict(), "best": list(best)}
    found = keeper.restore(template, functools.partial(self._check, keeper))
    if found is None:
      return state, best, (0, 0)
    arrays, meta = found
    self.logs = [RunLog.from_json(entry) for entry in meta["logs"]]
    return State(**arrays["state"]), tuple(arrays["best"]), tuple(meta["position"])

  def _save(self, keeper: Checkpointer, state: State, best, phase: int, epoch: int) -> None:
    keeper.save(
      phase * 1_000_000 + epoch,
      {"state": state._asdict(), "best": list(best)},
      {
        "position": [phase, epoch],
        "logs": [log.to_json() for log in self.logs],
        "identity": self.itself,
      },
    )

  def _check(self, keeper: Checkpointer, meta: dict) -> None:
    if changed := identity_lib.differing(meta["identity"], self.itself):
      raise ValueError(
        f"the checkpoint in {keeper.folder} belongs to another run: {', '.join(changed)} "
        "differ; use another folder or remove it"
      )

  def _identity(self, state: State) -> dict:
    """What tells this run from others, in another process too; `state` as `initial` made it."""
    plan = self.plan
    one = jax.eval_shape(lambda s: jax.tree.map(lambda x: x[0], s) if plan.stacked else s, state)
    example = jax.eval_shape(self._example, self.arrays)
    return {
      "runs": [[s, None if r is None else float(r)] for s, r in self.runs],
      "model or optimiser": _structure(state),
      "epochs": plan.epochs,
      "batch_size": plan.batch_size,
      "select": plan.select,
      "patience": plan.patience,
      "data": getattr(plan.data, "fingerprint", ""),
      identity_lib.METHOD: identity_lib.method_digest(plan.method, one, example),
      identity_lib.INITIAL: identity_lib.marks(state),
    }
