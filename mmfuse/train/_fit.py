"""`fit`: the one loop. It owns jit, seeds, mesh, donation, selection, checkpoints and logging.

A plan (`_plan`) says what is to be done, a group (`_run`) does it for one run or for several as one
program, is fed by `_feed` and calls `_programs`. Nothing of it changes the process of the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mmfuse import tasks
from mmfuse.core import Method
from mmfuse.train._cache import warn_if_full
from mmfuse.train._collect import judge_run
from mmfuse.train._plan import make_plan
from mmfuse.train._result import Result
from mmfuse.train._run import Group


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

  It changes nothing outside itself. In a program of your own that trains many methods you may want
  what the command line does: `train.enable_compilation_cache()` once, and between methods
  `train.release_programs()`.

  Args:
    method: any `core.Method`.
    data: `data.Splits`; only `train` and `validation` are read, never `test`.
    epochs: per phase, or one number shared out by `Phase.share`; None = by the number of training
      rows (`train.budget`).
    steps: instead of epochs: at least so many optimisation steps.
    batch_size: rows a step, or {phase: rows}; None as for `epochs`. Every epoch sees every row:
      its batches are of equal size to one row, filled up with rows of weight 0.
    seeds: a count (0..n-1) or the seeds themselves. A seed fixes initialisation and batch order,
      the same for every method. Default 1.
    learning_rate: overrides the rate kept in the optimiser's state; one, or one per seed. Compiles
      nothing. None = the method's own.
    select: validation metric of the fused head; None = the primary score of the task (where that is one
      of whole parts, as in retrieval, it is computed once, at the end of a run); "mean/accuracy"
      or "worst/accuracy": over the subsets of modalities that validation rows have, each judged on
      the rows with some of it; "accuracy@audio": of that modality's head; "last" = none, the last
      epoch's parameters are kept. A phase's own `select` goes before it. Epochs that tie are told
      apart by the validation loss, then the earlier one is kept.
    patience: stop a run after so many epochs without improvement; None = never.
    mesh: a mesh with a `data` axis; the batch is split over it, everything else replicated.
      None = one device.
    checkpoint_dir: where to keep checkpoints; a run found there is continued. None = nowhere.
    checkpoint_seconds: least time between two checkpoints; default 15.
    loop: "scan" (an epoch per call), "python" (a step per call), or "auto" (default): scan unless XLA:CPU
      would run convolutions inside it, which is several times slower there.
    together: run the seeds as one `vmap`; None = on accelerators, where the method allows it.
    diagnose: in ten epochs of a phase, evenly spread, cosine, conflict and norms of per-modality gradients
      on one batch (default); in every one of short phases.
    on_epoch: called with the latest log entry of each run, a dict; None = nobody is told.

  Raises:
    ValueError: numbers that are not positive, an empty split, a batch that a mesh cannot split, an
      unknown loop, nothing to select by, a checkpoint of another run.
    TypeError: an `init` or a hook that does not take what it is called with.
  """
  warn_if_full()
  runs = _runs(seeds, learning_rate)
  stacked = len(runs) > 1 and _together(method, together)
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
  groups = [runs] if stacked else [[r] for r in runs]
  logs, states = [], []
  for i, group in enumerate(groups):
    folder = None if checkpoint_dir is None else f"{checkpoint_dir}/{i}"
    log, state = Group(plan, group).run(folder, checkpoint_seconds, keep_final=len(groups) > 1)
    logs += log
    states.append(state if stacked else jax.tree.map(lambda x: x[None], state))
  joined = states[0] if len(states) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *states)
  task, chosen_by = tasks.get(data.task), plan.select
  if task.collected is not None:
    chosen_by = select or task.primary
    for i, run in enumerate(logs):
      judge_run(method, jax.tree.map(lambda x, i=i: x[i], joined), data, run, chosen_by)
  scores = plan.metric.scores
  return Result(joined, tuple(logs), chosen_by, tuple(sorted(data.train.mask)), scores)


def _runs(
  seeds: int | Sequence[int], learning_rate: float | Sequence[float] | None
) -> list[tuple[int, float | None]]:
  """[(seed, rate)] of each run."""
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
  return list(zip(seeds, rates))


def _together(method: Method, asked: bool | None) -> bool:
  """Whether seeds run as one `vmap`: hooks run on the host, for one run at a time."""
  hosted = any(f is not None for p in method.phases for f in (p.begin, p.epoch_end, p.rows))
  return not hosted and (jax.default_backend() != "cpu" if asked is None else asked)
