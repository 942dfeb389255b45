"""`fit`: the one loop. It owns jit, seeds, mesh, donation, selection, checkpoints and logging."""

import functools
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmfuse import metrics as metrics_lib
from mmfuse import tasks
from mmfuse.core import LAST, Batch, Clock, Method, Phase, State
from mmfuse.train import _budget as budget_lib
from mmfuse.train import _evaluate, _selection
from mmfuse.train import _identity as identity_lib
from mmfuse.train._cache import enable_compilation_cache, release_programs
from mmfuse.train._checkpoint import Checkpointer
from mmfuse.train._dependence import contains_primitive
from mmfuse.train._initial import check_signatures, initial
from mmfuse.train._optimizer import set_learning_rate
from mmfuse.train._result import Result, RunLog


class Plan(NamedTuple):
  """What all runs of one `fit` share."""

  method: Method
  data: Any
  metric: metrics_lib.Metric
  select: str
  epochs: dict[str, int]
  batch_size: dict[str, int]
  patience: int | None
  mesh: Mesh | None
  loop: str
  stacked: bool  # several runs at once, state leaves [S, ...]
  diagnose: bool
  on_epoch: Callable[[dict], None] | None


# Compiled pieces. The step is a static argument: a second `fit` of a method compiles nothing.


def _take(arrays: Batch, rows, keep) -> Batch:
  """The rows of a batch and what a step keeps of them; -1 is padding: weight 0, nothing present."""
  real = rows >= 0
  batch = jax.tree.map(lambda x: x[jnp.maximum(rows, 0)], arrays)
  return batch._replace(
    weight=jnp.where(real, batch.weight, 0.0),
    mask={m: v & real for m, v in batch.mask.items()},
    keep=keep,
  )


def _step(step, mesh, stacked, state, arrays, rows, keep, key, clock):
  """One optimisation step on given rows; `stacked`: rows [S, B], keys [S], states [S, ...]."""

  def one(state, rows, keep, key):
    batch = _take(arrays, rows, keep)
    if mesh is not None:
      batch = jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))
    state, metrics = step(state, batch, jax.random.fold_in(key, clock.step), clock)
    return state, metrics if "finite" in metrics else {**metrics, "finite": _finite(metrics)}

  return (jax.vmap(one) if stacked else one)(state, rows, keep, key)


def _finite(metrics: dict) -> jax.Array:
  """What the guard watches where a step does not say it itself."""
  finite = [jnp.isfinite(v).all() for v in jax.tree.leaves(metrics)]
  return jnp.stack([jnp.array(True), *finite]).all()


@functools.partial(jax.jit, static_argnames=("step", "mesh", "stacked"), donate_argnames=("state",))
def _step_jit(step, mesh, stacked, state, arrays, rows, keep, key, clock):
  return _step(step, mesh, stacked, state, arrays, rows, keep, key, clock)


@functools.partial(jax.jit, static_argnames=("step", "mesh", "stacked"), donate_argnames=("state",))
def _epoch_jit(step, mesh, stacked, state, arrays, rows, keep, key, clock):
  """A whole epoch in one call: rows [N, B] or [N, S, B] -> metrics [N, ...]."""

  def body(carry, now):
    state, done = carry
    time_ = clock._replace(step=clock.step + done, batch=done)
    index, kept = now
    state, metrics = _step(step, mesh, stacked, state, arrays, index, kept, key, time_)
    return (state, done + 1), metrics

  (state, _), metrics = jax.lax.scan(body, (state, jnp.zeros((), jnp.int32)), (rows, keep))
  return state, metrics


@functools.partial(jax.jit, static_argnames=("diagnose", "stacked"))
def _diagnose_jit(diagnose, stacked, state, arrays, rows, keep, key, clock):
  one = lambda s, r, k, q: diagnose(s, _take(arrays, r, k), q, clock)
  return (jax.vmap(one) if stacked else one)(state, rows, keep, key)


@jax.jit
def _pick(better, new, old):
  """Where a run got better, its new parameters; better is [] or [S]."""

  def one(n, o):
    return jnp.where(better.reshape(better.shape + (1,) * (n.ndim - better.ndim)), n, o)

  return jax.tree.map(one, new, old)


def _order(seed: int, phase: int, epoch: int, rows: int, batch_size: int) -> np.ndarray:
  """The epoch's batches [N, B]: a function of (seed, phase, epoch), the same for every method.

  Every row once, N = ceil(rows / B). Rows are spread evenly over the batches and each ends in
  padding (-1): one last batch of a row or two would take a whole step at the full rate.
  """
  shuffled = np.random.default_rng([seed, phase, epoch]).permutation(rows).astype(np.int32)
  parts = np.array_split(shuffled, -(-rows // batch_size))
  return np.stack([np.pad(p, (0, batch_size - len(p)), constant_values=-1) for p in parts])


def _seen_rows(rows: np.ndarray, runs: int) -> int:
  """How many rows each of the runs saw in the batches [N, (S,) B], padding not counted."""
  return int((np.asarray(rows) >= 0).sum()) // (runs if rows.ndim == 3 else 1)


def _rule_state(opt: Any) -> dict[str, Any]:
  """What the rule decided last: small leaves under a field named `weights` or `coefficients`."""
  out = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(opt)[0]:
    names = [str(getattr(p, "name", getattr(p, "key", getattr(p, "idx", "")))) for p in path]
    for field in ("weights", "coefficients"):
      if field in names and leaf.size <= 1024:
        out["/".join(["rule", *names[names.index(field) :]])] = leaf
  return out


def fit(
  method: Method,
  data: Any,
  *,
  epochs: int | Mapping[str, int] | None = None,
  steps: int | None = None,
  batch_size: int | Mapping[str, int] | None = None,
  seeds: int | Sequence[int] = 1,
  learning_rate: float | Sequence[float] | None = None,
  select: str | None = None,
  patience: int | None = None,
  mesh: Mesh | None = None,
  checkpoint_dir: str | None = None,
  checkpoint_seconds: float = 15.0,
  loop: str = "auto",
  together: bool | None = None,
  diagnose: bool = True,
  on_epoch: Callable[[dict], None] | None = None,
) -> Result:
  """Trains a method on a split data set and keeps, per seed, the first best epoch by validation.

  Args:
    method: any `core.Method`.
    data: `data.Splits`; only `train` and `validation` are read, never `test`.
    epochs: per phase, or one number shared out by `Phase.share`; None = by the number of training
      rows (`train.budget`).
    steps: instead of epochs: at least so many optimisation steps.
    batch_size: rows a step, or {phase: rows}; None as for `epochs`. Every epoch sees every row:
      its batches are of equal size to one row, filled up with rows of weight 0.
    seeds: a count (0..n-1) or the seeds themselves. A seed fixes initialisation and batch order,
      the same for every method.
    learning_rate: overrides the rate kept in the optimiser's state; one, or one per seed. Compiles
      nothing.
    select: validation metric of the fused head; None = the primary score of the task; "mean/accuracy"
      or "worst/accuracy": over the subsets of modalities that validation rows have, each judged on
      the rows with some of it; "accuracy@audio": of that modality's head; "last" = none, the last
      epoch's parameters are kept. A phase's own `select` goes before it. Epochs that tie are told
      apart by the validation loss, then the earlier one is kept.
    patience: stop a run after so many epochs without improvement.
    mesh: a mesh with a `data` axis; the batch is split over it, everything else replicated.
    checkpoint_dir: where to keep checkpoints; a run found there is continued.
    checkpoint_seconds: least time between two checkpoints.
    loop: "scan" (an epoch per call), "python" (a step per call), or "auto": scan unless XLA:CPU
      would run convolutions inside it, which is several times slower there.
    together: run the seeds as one `vmap`; None = on accelerators, where the method allows it.
    diagnose: per epoch, cosine, conflict and norms of per-modality gradients on one batch.
    on_epoch: called with the latest log entry of each run.

  Raises:
    ValueError: numbers that are not positive, an empty split, a batch that a mesh cannot split.
  """
  enable_compilation_cache()
  if threading.current_thread() is threading.main_thread():  # elsewhere others may be training
    release_programs()
  seeds = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
  several = isinstance(learning_rate, (Sequence, np.ndarray))
  rates: list[Any] = list(learning_rate) if several else [learning_rate] * len(seeds)  # type: ignore[arg-type]
  if not seeds:
    raise ValueError("seeds must name at least one run")
  if len(rates) != len(seeds):
    raise ValueError(
      f"{len(rates)} learning rates for {len(seeds)} seeds; give one, or one per seed"
    )
  if any(r is not None and not 0 < r < float("inf") for r in rates):
    raise ValueError(f"learning_rate must be positive and finite, got {learning_rate}")
  hosted = any(f is not None for p in method.phases for f in (p.begin, p.epoch_end, p.rows))
  if together is None:
    together = jax.default_backend() != "cpu"
  stacked = together and not hosted and len(seeds) > 1
  if loop not in ("auto", "scan", "python"):
    raise ValueError(f"unknown loop {loop!r}; expected auto, scan or python")
  plan = make_plan(
    method,
    data,
    epochs=epochs,
    steps=steps,
    batch_size=batch_size,
    select=select,
    patience=patience,
    mesh=mesh,
    loop=loop,
    stacked=stacked,
    diagnose=diagnose,
    on_epoch=on_epoch,
  )
  runs = list(zip(seeds, rates))
  groups = [runs] if stacked else [[r] for r in runs]
  logs, states = [], []
  for i, group in enumerate(groups):
    folder = None if checkpoint_dir is None else f"{checkpoint_dir}/{i}"
    log, state = Group(plan, group).run(folder, checkpoint_seconds, keep_final=len(groups) > 1)
    logs += log
    states.append(state if stacked else jax.tree.map(lambda x: x[None], state))
  joined = states[0] if len(states) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *states)
  scores = plan.metric.scores
  return Result(joined, tuple(logs), plan.select, tuple(sorted(data.train.mask)), scores)


def make_plan(
  method: Method,
  data: Any,
  *,
  epochs: Any,
  batch_size: Any,
  steps: int | None = None,
  select: str | None = None,
  patience: int | None = None,
  mesh: Mesh | None = None,
  loop: str = "auto",
  stacked: bool = False,
  diagnose: bool = False,
  on_epoch: Callable[[dict], None] | None = None,
) -> Plan:
  """What all runs share, checked."""
  check_signatures(method)
  rows = len(next(iter(data.train.mask.values())))
  if rows == 0:
    raise ValueError("the training split is empty")
  judging = any((p.select or select) != LAST for p in method.phases)
  if judging and data.validation is not None and not _evaluate.judged(data.validation).any():
    raise ValueError(
      "no validation row has a known label and a weight above 0: there is nothing to "
      "select an epoch by; give some, or select='last'"
    )
  for phase in method.phases:
    _selection.check(phase.select or select, data.validation)
  usual = budget_lib.budget(rows, batch_size if isinstance(batch_size, int) else None)
  batch_size = usual.batch_size if batch_size is None else batch_size
  epochs = usual.epochs if epochs is None else epochs
  sizes = {p.name: min(_per_phase(batch_size, p, "batch_size"), rows) for p in method.phases}
  devices = 1 if mesh is None else mesh.shape["data"]
  for name, size in sizes.items():
    if size % devices:
      raise ValueError(f"batch_size {size} of phase {name!r} does not split over {devices} devices")
  return Plan(
    method,
    data,
    tasks.metric_of(data),
    select or tasks.get(data.task).primary,
    _budget(method, epochs, steps, rows, sizes),
    sizes,
    patience,
    mesh,
    loop,
    stacked,
    diagnose,
    on_epoch,
  )


def _per_phase(value: Any, phase: Phase, what: str) -> int:
  if isinstance(value, Mapping):
    if phase.name not in value:
      raise ValueError(f"{what} names no value for phase {phase.name!r}; given: {', '.join(value)}")
    value = value[phase.name]
  if value != value or value < 1:
    raise ValueError(f"{what} must be at least 1, got {value}")
  return int(value)


def _budget(
  method: Method, epochs: Any, steps: int | None, rows: int, sizes: dict
) -> dict[str, int]:
  if steps is not None:
    if steps < 1:
      raise ValueError(f"steps must be at least 1, got {steps}")
    size = sizes[method.phases[-1].name]
    epochs = -(-steps // budget_lib.steps_per_epoch(rows, size))
  if isinstance(epochs, Mapping):
    return {p.name: _per_phase(epochs, p, "epochs") for p in method.phases}
  total = _per_phase(epochs, method.phases[-1], "epochs")
  # Cumulative shares are rounded, so that the phases add up to the budget.
  out, before = {}, 0.0
  for p in method.phases:
    out[p.name] = max(1, round(total * (before + p.share)) - round(total * before))
    before += p.share
  for _ in range(sum(out.values()) - max(len(out), round(total * before))):
    out[max(out, key=out.__getitem__)] -= 1  # what a small share was raised to one epoch by
  return out


def _structure(state: State) -> int:
  """A number that differs where paths, shapes or dtypes of the state do."""
  leaves = jax.tree_util.tree_flatten_with_path(state)[0]
  text = ";".join(f"{jax.tree_util.keystr(p)} {x.shape} {x.dtype}" for p, x in leaves)
  return zlib.crc32(text.encode())


class PhaseKeys(NamedTuple):
  """A key for each kind of draw of a phase, [] or [S]."""

  steps: Any  # folded with the step by the step
  begin: Any
  rows: Any  # folded with the epoch, as the two below
  end: Any
  diagnosis: Any

  def at(self, key, epoch: int):
    """`key` of one epoch."""
    fold = lambda k: jax.random.fold_in(k, epoch)
    return jax.vmap(fold)(key) if key.ndim else fold(key)


class Group:
  """One run, or several as one vmapped program."""

  def __init__(self, plan: Plan, runs: list[tuple[int, float | None]]):
    self.plan, self.runs, self.loop = plan, runs, plan.loop
    self.seeds = [s for s, _ in runs]
    self.rates = [r for _, r in runs]
    keys = [jax.random.key(s) for s in self.seeds]
    self.key = jnp.stack(keys) if plan.stacked else keys[0]
    self.logs = [RunLog(seed, rate) for seed, rate in runs]
    self.arrays = self._place(_evaluate.to_batch(plan.data.train))
    validation = plan.data.validation
    self.validation = (
      None if validation is None else self._place(_evaluate.padded_batches(validation, 512))
    )
    self.subsets: _selection.SubsetViews | None = None  # made where something is selected over them
    self.absent = frozenset() if validation is None else _evaluate.absent(validation)
    self.keep = _evaluate.keep_all(plan.data.train.mask)
    self.itself: dict[str, Any] = {}  # what the checkpoints of this run say of themselves

  def _place(self, host):
    """Arrays on the device(s), replicated over a mesh; copies, which alone may be donated."""
    if self.plan.mesh is None:
      return jax.tree.map(jnp.array, host)
    everywhere = NamedSharding(self.plan.mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(jnp.array(x), everywhere), host)

  def _own(self, state: State) -> State:
    """What a hook returned, in buffers of its own: a teacher may be the parameters themselves."""
    return self._place(state)

  def keys(self, number: int):
    """The key of initialisation (0) or of a phase (from 1), [S] where runs are stacked."""
    fold = lambda key: jax.random.fold_in(key, number)
    return jax.vmap(fold)(self.key) if self.plan.stacked else fold(self.key)

  def phase_keys(self, number: int) -> "PhaseKeys":
    """The streams of phase `number`: no two draws of a phase share one."""
    split = lambda key: tuple(jax.random.split(key, 5))
    key = self.keys(number + 1)
    return PhaseKeys(*(jax.vmap(split)(key) if self.plan.stacked else split(key)))

  def initial(self) -> State:
    plan = self.plan
    size = plan.batch_size[plan.method.phases[0].name]
    example = jax.tree.map(lambda x: x[:size], self.arrays)
    num_rows = self.arrays.weight.shape[0]
    # Not jitted as a whole: its slow part is the model's, shared by all.
    init = functools.partial(initial, plan.method, num_rows=num_rows)
    state = (jax.vmap(init, (0, None)) if plan.stacked else init)(self.keys(0), example)
    given = [r for r in self.rates if r is not None]
    if given:
      rate = np.asarray(given, np.float32) if plan.stacked else np.float32(given[0])
      state = state._replace(opt=set_learning_rate(state.opt, rate))
    return self._place(state)

  def run(self, folder: str | None, seconds: float, keep_final: bool):
    """Trains through all phases -> (logs, state)."""
    state = self.initial()
    best = jax.tree.map(jnp.copy, (state.params, state.stats))
    position = [0, 0]
    keeper = None if folder is None else Checkpointer(folder, seconds)
    if keeper is not None:
      self.itself = self._identity(state)
      check = functools.partial(self._check, folder)
      found = keeper.restore({"state": state._asdict(), "best": list(best)}, check)
      if found is not None:
        arrays, meta = found
        state, best = State(**arrays["state"]), tuple(arrays["best"])
        position = meta["position"]
        self.logs = [RunLog.from_json(entry) for entry in meta["logs"]]
    phases = list(enumerate(self.plan.method.phases))
    for number, phase in phases[position[0] :]:
      start = position[1] if number == position[0] else 0
      state, best = self._phase(number, phase, state, best, start, keeper)
    if keeper is not None:
      if keep_final and position[0] < len(phases):  # else it is there already
        self._save(keeper, state, best, len(phases), 0)
      keeper.close()
    return self.logs, state

  def _check(self, folder, meta: dict) -> None:
    if changed := identity_lib.differing(meta["identity"], self.itself):
      raise ValueError(
        f"the checkpoint in {folder} belongs to another run: {', '.join(changed)} "
        "differ; use another folder or remove it"
      )

  def _identity(self, state: State) -> dict:
    """What tells this run from others, in another process too; `state` as `initial` made it."""
    plan = self.plan
    one = jax.eval_shape(lambda s: jax.tree.map(lambda x: x[0], s) if plan.stacked else s, state)
    size = plan.batch_size[plan.method.phases[0].name]
    example = jax.eval_shape(lambda a: jax.tree.map(lambda x: x[:size], a), self.arrays)
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

  def _save(self, keeper, state, best, phase: int, epoch: int) -> None:
    keeper.save(
      phase * 1_000_000 + epoch,
      {"state": state._asdict(), "best": list(best)},
      {
        "position": [phase, epoch],
        "logs": [log.to_json() for log in self.logs],
        "identity": self.itself,
      },
    )

  def _phase(self, number, phase: Phase, state, best, start: int, keeper):
    plan = self.plan
    splits = {"train": plan.data.train, "validation": plan.data.validation}
    keys = self.phase_keys(number)
    predict = phase.predict or plan.method.predict
    metric = phase.metric or plan.metric
    own = None if phase.metric is None else phase.metric.scores[0].name
    select = phase.select or own or plan.select
    total = plan.epochs[phase.name]
    if start == 0:
      for log in self.logs:
        log.enter(phase.name)
      if phase.begin is not None and not all(log.stopped for log in self.logs):
        state = self._own(phase.begin(state, splits, keys.begin, self.hour(phase)))
      best = jax.tree.map(jnp.copy, (state.params, state.stats))
    for epoch in range(start, total):
      if all(log.stopped for log in self.logs):
        break
      live = [log for log in self.logs if not log.stopped]
      rows, keep = self.rows(number, phase, state, keys.at(keys.rows, epoch), epoch, splits)
      count = rows.shape[0]
      clock = Clock(*(jnp.int32(v) for v in (epoch * count, epoch, 0, count, total)))
      began = time.perf_counter()
      state, metrics = self.epoch(phase, state, rows, keep, keys.steps, clock)
      finite = np.asarray(jax.device_get(metrics["finite"]))  # waits for the epoch
      spent = (time.perf_counter() - began) / rows.shape[0]
      hooked = 0.0
      if phase.epoch_end is not None:
        began = time.perf_counter()
        state = self._own(
          phase.epoch_end(
            state, splits, keys.at(keys.end, epoch), self.hour(phase, epoch + 1, count)
          )
        )
        hooked = (time.perf_counter() - began) / rows.shape[0]
      validate = None if select == LAST else predict
      entries = self._entries(
        validate,
        metric,
        _selection.parse(select),
        state,
        metrics,
        rows,
        keep,
        keys.at(keys.diagnosis, epoch),
        clock,
        phase.name,
      )
      better = self._log(phase, epoch, metric, select, entries, finite, (spent, hooked), rows)
      which = jnp.asarray(better if plan.stacked else better[0])
      best = _pick(which, (state.params, state.stats), best)
      if plan.on_epoch is not None:
        for log in live:
          plan.on_epoch(
            {
              "seed": log.seed,
              "learning_rate": log.learning_rate,
              "epochs": total,
              **log.history[-1],
            }
          )
      if keeper is not None and keeper.due():
        self._save(keeper, state, best, number, epoch + 1)
    return state._replace(params=best[0], stats=best[1]), best

  def hour(self, phase: Phase, epoch: int = 0, batches: int | None = None) -> Clock:
    """The clock of a hook: Python ints, `epoch` of the phase's are done."""
    if batches is None:
      rows, size = self.arrays.weight.shape[0], self.plan.batch_size[phase.name]
      batches = budget_lib.steps_per_epoch(rows, size)
    numbers: Any = (epoch * batches, epoch, 0, batches, self.plan.epochs[phase.name])
    return Clock(*numbers)

  def rows(self, number, phase, state, key, epoch, splits):
    """-> rows [N, B] (or [N, S, B]) and what is kept of them, of the same shape, or None = all."""
    size = self.plan.batch_size[phase.name]
    if phase.rows is None:
      count = self.arrays.weight.shape[0]
      orders = [_order(s, number, epoch, count, size) for s in self.seeds]
      return (np.stack(orders, 1) if self.plan.stacked else orders[0]), None
    index, keep = phase.rows(state, splits, key, self.hour(phase, epoch))
    index = np.asarray(index)
    if index.size == 0:
      raise ValueError(f"phase {phase.name!r} chose no rows for epoch {epoch}")
    keep = {
      m: np.ones(index.shape, bool) if keep is None else np.asarray(keep[m])
      for m in sorted(self.plan.data.train.mask)
    }
    if index.ndim == 2:  # batches in an order of its own
      return index.astype(np.int32), keep
    order = _order(self.seeds[0], number, epoch, len(index), min(size, len(index)))
    rows = np.where(order < 0, -1, index[order]).astype(np.int32)
    return rows, {m: k[order] for m, k in keep.items()}

  def epoch(self, phase, state, rows, keep, key, clock):
    plan = self.plan
    fixed = (phase.step, plan.mesh, plan.stacked)
    if self.loop == "auto":
      slow = jax.default_backend() == "cpu" and _has_conv(
        *fixed, jax.tree.map(jax.typeof, (state, self.arrays, rows, keep, key, clock))
      )
      self.loop = "python" if slow else "scan"
    if self.loop == "scan":
      return _epoch_jit(*fixed, state, self.arrays, rows, keep, key, clock)
    collected = []
    for i in range(rows.shape[0]):
      now = clock._replace(step=clock.step + i, batch=jnp.int32(i))
      kept = jax.tree.map(lambda x, i=i: x[i], keep)
      state, metrics = _step_jit(*fixed, state, self.arrays, rows[i], kept, key, now)
      collected.append(metrics)
    return state, jax.tree.map(lambda *x: jnp.stack(x), *collected)

  def _validated(self, predict, metric, selection, state):
    """{head: {score: value}} on the validation rows, over subsets too where they are selected by."""
    plan = self.plan
    looped = self.loop == "python" and not plan.stacked
    if selection.over:
      if self.subsets is None:
        self.subsets = _selection.SubsetViews(plan.data.validation, self._place)
      return self.subsets.scores(predict, metric, state, looped=looped, stacked=plan.stacked)
    whole = functools.partial(_evaluate.scan_batches, stacked=plan.stacked)
    run: Callable[..., Any] = _evaluate.loop_batches if looped else whole
    return run(predict, metric, state, self.validation, self.keep)

  def _entries(
    self, predict, metric, selection, state, metrics, rows, keep, key, clock, phase: str
  ):
    """Everything logged of this epoch, on the host: leaves [] or [S]. `predict` None: not validated."""
    plan = self.plan
    seen = _evaluate.seen(state)
    entry = {k: v.mean(0) for k, v in metrics.items() if k != "finite"}
    if self.validation is not None and predict is not None:
      entry["validation"] = self._validated(predict, metric, selection, seen)
    if plan.diagnose and "diagnose" in plan.method.functions:
      kept = jax.tree.map(lambda x: x[0], keep)
      entry |= _diagnose_jit(
        plan.method.functions["diagnose"],
        plan.stacked,
        seen,
        self.arrays,
        rows[0],
        kept,
        key,
        clock,
      )
    entry |= _rule_state(state.opt.get(phase))
    return jax.device_get(entry)

  def _log(self, phase, epoch, metric, select, entries, finite, spent, rows) -> np.ndarray:
    """Appends to each run's log -> which runs got better, bool [S]."""
    plan, better = self.plan, np.zeros(len(self.logs), bool)
    for i, log in enumerate(self.logs):
      if log.stopped:  # while other seeds of the same program go on
        continue
      mine = jax.tree.map(lambda x, i=i: x[i], entries) if self.plan.stacked else dict(entries)
      ok = finite[:, i] if self.plan.stacked else finite
      if not ok.all():
        log.diverge(epoch, int(np.argmin(ok)) + epoch * rows.shape[0])
      scores = mine.pop("validation", None)
      score = loss = None
      if scores is not None:
        # A modality that no validation row has is judged on nothing; NaN stays for what diverged.
        scores = {h: dict.fromkeys(v) if h in self.absent else v for h, v in scores.items()}
        score, loss = _selection.judge(select, scores, metric, tasks.get(plan.data.task).loss)
      better[i] = log.append(
        phase.name,
        epoch,
        mine,
        scores,
        (score, loss),
        spent,
        _seen_rows(rows, len(self.logs)),
        self.plan.patience,
      )
    return better


@functools.lru_cache(maxsize=256)
def _conv_cache(step, mesh, stacked, shapes, treedef):
  state, arrays, rows, keep, key, clock = jax.tree.unflatten(treedef, shapes)
  traced = _epoch_jit.trace(step, mesh, stacked, state, arrays, rows, keep, key, clock)
  return contains_primitive(traced.jaxpr, "conv_general_dilated")


def _has_conv(step, mesh, stacked, abstract) -> bool:
  shapes, treedef = jax.tree.flatten(abstract)
  return _conv_cache(step, mesh, stacked, tuple(shapes), treedef)
