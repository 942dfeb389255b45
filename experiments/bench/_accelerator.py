"""The sections of `accelerator`: each a function (cfg, until) -> dict, done when its time is up.

`until` is a point on `time.perf_counter`: no further program is built and no further round begun
after it, but for the first one.
"""

import contextlib
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import method_overhead
from experiments.bench._cast import Cast
from mmfuse import data, encoders, fusion, methods, protocol, report, train
from mmfuse.protocol._config import Compare

PRECISIONS = {"float32": lambda model: model, "bfloat16": Cast}
CHAIN = 8  # matrix products a call
NOISE = 0.01  # a mean difference of so much accuracy is noise, whatever its interval


def race(
  laps: Mapping[str, Callable[[int], float]], cfg: Any, until: float
) -> dict[str, dict[str, float]]:
  """{name: median and least milliseconds per step} of interleaved laps, after a warm-up of each."""
  for lap in laps.values():
    lap(1)
  times: dict[str, list[float]] = {name: [] for name in laps}
  for done in range(cfg.rounds):
    if done and time.perf_counter() > until:
      break
    for name, lap in laps.items():
      times[name].append(1e3 * lap(cfg.steps))
  return {
    name: {"median_ms": statistics.median(t), "least_ms": min(t), "rounds": len(t)}
    for name, t in times.items()
  }


@functools.cache
def racer(method: str, kind: str, size: int, precision: str) -> method_overhead.Racer:
  """A compiled step, made once for all sections."""
  model, batch = method_overhead.build(method_overhead.Config(model=kind, batch_size=size))
  return method_overhead.Racer(method, PRECISIONS[precision](model), batch)


def racers(wanted: Mapping[str, tuple], until: float) -> dict[str, method_overhead.Racer]:
  """{name: `racer` of what is given}, as many as there is time for."""
  built: dict[str, method_overhead.Racer] = {}
  for name, what in wanted.items():
    if built and time.perf_counter() > until:
      break
    built[name] = racer(*what)
  return built


def ceiling(cfg: Any, until: float) -> dict[str, Any]:
  """TFLOP/s of products of two square matrices, as JAX multiplies them by default."""
  n = cfg.matrix
  out: dict[str, Any] = {"size": n}
  for name in PRECISIONS:
    a = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)) / np.sqrt(n), name)
    chain = jax.jit(lambda a, x: jax.lax.fori_loop(0, CHAIN, lambda i, y: a @ y, x))

    def lap(steps, a=a, chain=chain):
      began = time.perf_counter()
      y = a
      for _ in range(steps):
        y = chain(a, y)
      y.block_until_ready()
      return (time.perf_counter() - began) / steps

    found = race({name: lap}, cfg, until)[name]
    out[name] = CHAIN * 2 * n**3 / (1e9 * found["least_ms"])
  return out


def steps_of(
  kind: str, sizes: tuple[int, ...], cfg: Any, until: float, top: Mapping[str, Any]
) -> dict[str, Any]:
  """Milliseconds of a joint step by batch size and precision, and its share of the ceiling `top`.

  FLOPs are XLA's count before it picks kernels: afterwards those of library calls are unknown.
  """
  wanted = {
    f"{precision}, batch {size}": ("joint", kind, size, precision)
    for size in sizes
    for precision in PRECISIONS
  }
  built = racers(wanted, until)
  found = race({name: r.lap for name, r in built.items()}, cfg, until)
  for name, row in found.items():
    precision = wanted[name][-1]
    row["gflop"] = built[name].counted / 1e9
    row["tflop_per_s"] = row["gflop"] / row["median_ms"]
    row["mfu"] = row["tflop_per_s"] / top[precision] if precision in top else None
    row["examples_per_s"] = 1e3 * len(built[name].args[0].label) / row["median_ms"]
  return {"rows": found, "not_run": [n for n in wanted if n not in found]}


def rules(kind: str, size: int, cfg: Any, until: float) -> dict[str, Any]:
  """Step times of uniform and mmpareto over joint, in float32."""
  names = ("joint", "uniform", "mmpareto")
  built = racers({name: (name, kind, size, "float32") for name in names}, until)
  found = race({name: r.lap for name, r in built.items()}, cfg, until)
  for row in found.values():
    row["over_joint"] = row["median_ms"] / found["joint"]["median_ms"]
  return {"rows": found, "not_run": [n for n in names if n not in found]}


def seeds(cfg: Any, until: float) -> dict[str, Any]:
  """Seconds of a whole `fit` of 8 seeds as one vmap, and one after the other."""
  rows, epochs, number = (40, 1, 2) if cfg.smoke else (1_280, 10, 8)
  rng = np.random.default_rng(0)
  shape = (8,) if cfg.smoke else (100, 3)
  arrays = {m: rng.normal(size=(rows, *shape)).astype(np.float32) for m in ("accel", "gyro")}
  splits = data.from_arrays({**arrays, "label": np.arange(rows) % 7}, split=(0.8, 0.1, 0.1))
  encoder = encoders.MLP(8, (8,)) if cfg.smoke else encoders.Conv1D(64)
  method = methods.METHODS["joint"](fusion.LateFusion(dict.fromkeys(arrays, encoder), 7))

  def lap_of(together: bool) -> Callable[[int], float]:
    def lap(steps: int) -> float:
      del steps  # a whole fit is a lap
      began = time.perf_counter()
      result = train.fit(
        method,
        splits,
        epochs=epochs,
        batch_size=64,
        seeds=number,
        together=together,
        diagnose=False,
      )
      jax.block_until_ready(result.states.params)
      return time.perf_counter() - began

    return lap

  found = race({"at once": lap_of(True), "in sequence": lap_of(False)}, cfg, until)
  ratio = found["in sequence"]["median_ms"] / found["at once"]["median_ms"]
  return {
    "seeds": number,
    "epochs": epochs,
    "training_rows": len(splits.train.index),
    "rows": found,
    "sequence_over_at_once": ratio,
  }


def digits(cfg: Any, until: float) -> dict[str, Any]:
  """One comparison on digits here and, in a process of its own, on the CPU: test scores by seed."""
  with tempfile.TemporaryDirectory() as scratch:
    asked = Compare(
      data="digits",
      methods=("joint",) if cfg.smoke else ("joint", "uniform"),
      tune=1,
      learning_rate=0.1,
      epochs=1 if cfg.smoke else 10,
      seeds=2 if cfg.smoke else 5,
      out=f"{scratch}/here",
    )
    if cfg.smoke:  # the CPU is here
      here = cpu = _compare_here(asked)
    else:
      there = pathlib.Path(scratch) / "cpu"
      with _cpu_comparison(asked, there) as process:
        here = _compare_here(asked)
        process.wait(timeout=max(1.0, until - time.perf_counter()))
      if process.returncode:
        raise RuntimeError(f"the comparison on the CPU ended with code {process.returncode}")
      cpu = scores_of(there)
  return agreement(here, cpu)


def _compare_here(asked: Compare) -> dict[str, list[float]]:
  with contextlib.redirect_stdout(sys.stderr):
    protocol.run(asked)
  return scores_of(pathlib.Path(str(asked.out)))


@contextlib.contextmanager
def _cpu_comparison(asked: Compare, folder: pathlib.Path):
  """The same comparison in another process, stopped at the end of the block."""
  words = [
    sys.executable,
    "-m",
    "mmfuse",
    "compare",
    "--data",
    asked.data,
    "--methods",
    ",".join(asked.methods),
    "--tune",
    "1",
    "--learning-rate",
    str(asked.learning_rate),
    "--epochs",
    str(asked.epochs),
    "--seeds",
    str(asked.seeds),
    "--out",
    str(folder),
  ]
  process = subprocess.Popen(
    words, env={**os.environ, "JAX_PLATFORMS": "cpu"}, stdout=sys.stderr, stderr=sys.stderr
  )
  try:
    yield process
  finally:
    process.kill()
    process.wait()


def scores_of(folder: pathlib.Path) -> dict[str, list[float]]:
  """{method: test score of the fused head by seed} of a finished comparison."""
  out: dict[str, dict[int, float]] = {}
  for line in (folder / "results.jsonl").read_text().splitlines():
    record = json.loads(line)
    out.setdefault(record["method"], {})[record["seed"]] = record["test"]["fused"]
  return {method: [found[s] for s in sorted(found)] for method, found in out.items()}


def agreement(here: Mapping[str, list[float]], cpu: Mapping[str, list[float]]) -> dict[str, Any]:
  """Paired differences: noise where the mean is at most a point, or its 95 % interval has zero."""
  rows = {}
  for method in sorted(here):
    found = report.paired(here[method], cpu[method])
    half = found.half or 0.0
    rows[method] = {
      "here": here[method],
      "cpu": cpu[method],
      "mean_difference": found.mean,
      "half": half,
      "equal": abs(found.mean) <= max(NOISE, half),
    }
  return {"rows": rows, "equal": set(here) == set(cpu) and all(r["equal"] for r in rows.values())}
