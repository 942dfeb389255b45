"""How long does the step of each method take to compile, over that of `joint`; how long from the cache?

Command: python -m experiments.bench.compile            (a quarter of an hour of one core)
         python -m experiments.bench.compile --methods moco mmpareto --model conv1d
         python -m experiments.bench.compile --smoke
Every row of the index on one small model. Cold: the cache on disk is empty, traces are forgotten. Warm: the
same again, traces forgotten, from the cache that the cold one wrote. Of each phase `jit(step).lower(...)`
(tracing) and `.compile()`; a row with several phases has their sum, and the least of its rounds. "CPU s" is
the processor time of both, over all threads: ratios are of those, for other processes move them less.
"largest over joint" is of the phase that took most. `joint` is measured first and last; the least of both
counts. "start" is initialisation and step programs together, warm over cold, as a user's program meets them.
Expected: a warm start at most .35 of a cold one; no program above 3 times that of `joint`.
Results: experiments/results/compile.md and compile.json.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.experimental.compilation_cache import compilation_cache

from experiments import _common
from experiments.bench import method_overhead
from mmfuse import methods, train
from mmfuse.core import Clock, Method, Unavailable


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
def empty_cache() -> Iterator[None]:
  """An empty folder is the compilation cache, for every program whatever its size."""
  wanted = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
  }
  with tempfile.TemporaryDirectory() as folder:
    wanted["jax_compilation_cache_dir"] = folder
    before = {name: getattr(jax.config, name) for name in wanted}
    try:
      for name, value in wanted.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()
      yield
    finally:
      for name, value in before.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()


def start(method: Method, batch: Any) -> dict[str, Any]:
  """Seconds of one start: {"setup", "trace", "compile"} and the processor's of each phase, {"each"}."""
  jax.clear_caches()
  spent = time.process_time()
  state = jax.block_until_ready(train.initial(method, jax.random.key(0), batch))
  row: dict[str, Any] = {"setup": time.process_time() - spent, "trace": 0.0, "compile": 0.0}
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  key, row["each"] = jax.random.key(1), []
  for phase in method.phases:
    jax.clear_caches()
    began, spent = time.perf_counter(), time.process_time()
    lowered = jax.jit(phase.step, donate_argnums=0).lower(state, batch, key, clock)
    traced = time.perf_counter()
    lowered.compile()
    row["trace"] += traced - began
    row["compile"] += time.perf_counter() - traced
    row["each"].append(time.process_time() - spent)
  return row


def seconds(name: str, model: Any, batch: Any) -> dict[str, float]:
  """Of a method: seconds cold, and what a start takes warm over cold."""
  method = methods.METHODS[name](model)
  with empty_cache():
    cold, warm = start(method, batch), start(method, batch)
  whole = lambda row: row["setup"] + sum(row["each"])
  return {
    "phases": len(method.phases),
    "trace": cold["trace"],
    "compile": cold["compile"],
    "cpu": sum(cold["each"]),
    "largest": max(cold["each"]),
    "warm_cpu": sum(warm["each"]),
    "warm_over_cold": sum(warm["each"]) / sum(cold["each"]),
    "start_warm_over_cold": whole(warm) / whole(cold),
  }


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
    row["largest_over_joint"] = row["largest"] / rows["joint"]["cpu"]
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
  columns = {
    "trace s": "trace",
    "compile s": "compile",
    "CPU s": "cpu",
    "over joint": "over_joint",
    "largest over joint": "largest_over_joint",
    "warm CPU s": "warm_cpu",
    "warm over cold": "warm_over_cold",
    "start": "start_warm_over_cold",
  }
  digits = lambda what: 2 if "warm_over" in what else 1
  table = _common.table(
    ("method", "phases", *columns),
    [
      (name, r["phases"], *(f"{r[what]:.{digits(what)}f}" for what in columns.values()))
      for name, r in rows
    ],
  )
  starts = [r["start_warm_over_cold"] for _, r in rows]
  above = [name for name, r in rows if r["largest_over_joint"] > 3]
  words = (
    f"Warm starts take {statistics.median(starts):.2f} of cold ones (median of the rows; the most "
    f"{max(starts):.2f}). A program above 3 times joint's: {', '.join(above) or 'none'}."
  )
  title = (
    f"# compile: seconds until the step of a method is ready, model {found['model']}, "
    f"batch {found['batch_size']}"
  )
  reasons = [f"- {name}: n/a: {why}" for name, why in found["unavailable"].items()]
  return "\n".join([_common.heading(title, command, 0), words, "", table, "", *reasons])


def main(argv=None) -> dict[str, Any]:
  """Prints the page; a full run writes it and the JSON."""
  cfg = tyro.cli(Config, args=argv)
  for name in cfg.methods:
    methods.get(name)  # an unknown one is said before anything is compiled
  found = measure(cfg)
  command = _common.command("bench.compile", cfg)
  _common.write("compile", page(found, command), cfg.smoke)
  _common.write_json("compile", {"command": command, "jax": jax.__version__, **found}, cfg.smoke)
  return found


if __name__ == "__main__":
  main()
