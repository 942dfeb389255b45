"""How long does XLA take to compile the step of each method, over that of `joint`?

Command: python -m experiments.bench.compile            (some minutes on 2 cores)
         python -m experiments.bench.compile --methods moco mmpareto --model conv1d
         python -m experiments.bench.compile --smoke
Every row of the index on one small model, cold: nothing from the cache on disk, traces forgotten. Of each
phase `jit(step).lower(...)` (tracing) and `.compile()`; a row with several phases has their sum, and the
least of its rounds. "CPU s" is the processor time of both, over all threads: the ratio over `joint` is one
of those, for other processes move it less. `joint` is measured first and last; the least of both counts.
Results: experiments/results/compile.md and compile.json.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from experiments import _common
from experiments.bench import method_overhead
from mmfuse import methods, train
from mmfuse.core import Clock, Unavailable


@dataclasses.dataclass(frozen=True)
class Config:
  methods: tuple[str, ...] = ()
  """Default: every row of the index."""
  model: Literal["mlp", "conv1d"] = "mlp"
  """Two MLP encoders, or the Conv1D pair of watch_imu; features of 32 or 64, a linear head."""
  batch_size: int = 32
  classes: int = 4
  rounds: int = 1
  smoke: bool = False


@contextlib.contextmanager
def cold() -> Iterator[None]:
  """Programs are compiled, not read from disk."""
  before = jax.config.jax_enable_compilation_cache
  jax.config.update("jax_enable_compilation_cache", False)
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)


def seconds(name: str, model: Any, batch: Any) -> dict[str, float]:
  """{"trace", "compile", "cpu", "phases"} of a method: seconds, summed over its phases."""
  method = methods.METHODS[name](model)
  state = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), batch)
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  key = jax.random.key(1)
  row = {"trace": 0.0, "compile": 0.0, "cpu": 0.0, "phases": len(method.phases)}
  for phase in method.phases:
    jax.clear_caches()
    began, spent = time.perf_counter(), time.process_time()
    lowered = jax.jit(phase.step, donate_argnums=0).lower(state, batch, key, clock)
    traced = time.perf_counter()
    lowered.compile()
    row["trace"] += traced - began
    row["compile"] += time.perf_counter() - traced
    row["cpu"] += time.process_time() - spent
  return row


def _cpu(row: dict[str, float]) -> float:
  return row["cpu"]


def least(rounds: int, name: str, model: Any, batch: Any) -> dict[str, float]:
  """The round that took least."""
  return min((seconds(name, model, batch) for _ in range(rounds)), key=_cpu)


def measure(cfg: Config) -> dict[str, Any]:
  """{"rows": {method: seconds and the ratio over joint}, "unavailable": {method: reason}}."""
  model, batch = method_overhead.build(
    method_overhead.Config(
      model=cfg.model, batch_size=cfg.batch_size, classes=cfg.classes, smoke=cfg.smoke
    )
  )
  rounds = 1 if cfg.smoke else cfg.rounds
  chosen = cfg.methods or (("joint", "uniform") if cfg.smoke else tuple(methods.METHODS))
  rows, unavailable = {"joint": least(rounds, "joint", model, batch)}, {}
  for name in dict.fromkeys(n for n in chosen if n != "joint"):
    try:
      rows[name] = least(rounds, name, model, batch)
    except Unavailable as error:
      unavailable[name] = str(error)
      continue
    print(f"{name}: {rows[name]['trace'] + rows[name]['compile']:.1f} s", flush=True)
  if not cfg.smoke:
    rows["joint"] = min(rows["joint"], least(rounds, "joint", model, batch), key=_cpu)
  for row in rows.values():
    row["over_joint"] = row["cpu"] / rows["joint"]["cpu"]
  return {
    "model": cfg.model,
    "batch_size": len(batch.label),
    "classes": cfg.classes,
    "rows": rows,
    "unavailable": unavailable,
  }


def page(found: dict[str, Any], command: str) -> str:
  """The table, slowest first."""
  rows = sorted(found["rows"].items(), key=lambda item: -item[1]["over_joint"])
  table = _common.table(
    ("method", "phases", "trace s", "compile s", "CPU s", "over joint"),
    [
      (name, r["phases"], *(f"{r[what]:.1f}" for what in ("trace", "compile", "cpu", "over_joint")))
      for name, r in rows
    ],
  )
  title = (
    f"# compile: seconds until the step of a method is ready, model {found['model']}, "
    f"batch {found['batch_size']}"
  )
  reasons = [f"- {name}: n/a: {why}" for name, why in found["unavailable"].items()]
  return "\n".join([_common.heading(title, command, 0), table, "", *reasons])


def main(argv=None) -> dict[str, Any]:
  """Prints the page; a full run writes it and the JSON."""
  cfg = tyro.cli(Config, args=argv)
  for name in cfg.methods:
    methods.get(name)  # an unknown one is said before anything is compiled
  with cold():
    found = measure(cfg)
  command = _common.command("bench.compile", cfg)
  _common.write("compile", page(found, command), cfg.smoke)
  _common.write_json("compile", {"command": command, "jax": jax.__version__, **found}, cfg.smoke)
  return found


if __name__ == "__main__":
  main()
