"""Is a training step of our encoders as fast as eager PyTorch's on the same shapes?

Command: OMP_NUM_THREADS=1 taskset -c 0 python -m experiments.bench.encoders      (one core, some minutes)
         python -m experiments.bench.encoders --threads 2
         python -m experiments.bench.encoders --models transformers
         python -m experiments.bench.encoders --smoke
The joint step (concat, a linear head, cross-entropy, SGD with momentum), ours with its running uni-modal
probes: two ResNet-18 at CREMA-D shapes (batch 4); the LeNets of AV-MNIST, 112 x 112 and 28 x 28 (batch 40);
MLP and GRU at the shapes of MIMIC (batch 64); three transformers of 2 layers, width 64, on 50 steps (batch
32). Rounds of both are interleaved. Without PyTorch (the extra `bench`) its figures are n/a.
Expected, of PyTorch's time: at most 1.20 (ResNets), .80 (LeNets), .30 (MLP and GRU), .85 (transformers).
Results: experiments/results/encoders.md and encoders.json.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tyro

from experiments import _common
from experiments.bench import _eager, _race, method_overhead
from mmfuse import encoders, fusion

CLASSES = 10


class Problem(NamedTuple):
  """The same model twice."""

  shapes: dict[str, tuple[int, ...]]  # of a row; images [H, W, C]
  batch_size: int
  ours: Callable[[], dict[str, Any]]
  eager: Callable[[], list[Any]]  # in the order of `shapes`


def _named(name: str, *shapes: tuple[int, ...]) -> list[Any]:
  return [encoders.by_name(name, (1, *shape), np.float32) for shape in shapes]


RESNET = {"audio": (257, 188, 1), "visual": (224, 224, 3)}
LENET = {"audio": (112, 112, 1), "image": (28, 28, 1)}
SERIES = {f"m{i}": (50, 16) for i in range(3)}
# Small ones first: after the large ones both sides are slower in this process, ours more so.
MODELS = {
  "mlp_gru": Problem(
    {"static": (5,), "series": (24, 12)},
    64,
    lambda: {"static": encoders.MLP(10, (10,)), "series": encoders.GRU(64)},
    lambda: [_eager.mlp(5, (10,), 10), _eager.gru(12, 64)],
  ),
  "transformers": Problem(
    SERIES,
    32,
    lambda: dict.fromkeys(SERIES, encoders.Transformer(64, 2, 4, dropout=0.0)),
    lambda: [_eager.transformer(16, 50, 64, 2, 4) for _ in SERIES],
  ),
  "lenets": Problem(
    LENET,
    40,
    lambda: dict(zip(LENET, _named("lenet", *LENET.values()), strict=True)),
    lambda: [_eager.lenet(5), _eager.lenet(3)],
  ),
  "resnets": Problem(
    RESNET,
    4,
    lambda: dict(zip(RESNET, _named("resnet18", *RESNET.values()), strict=True)),
    lambda: [_eager.resnet18(1), _eager.resnet18(3)],
  ),
}


@dataclasses.dataclass(frozen=True)
class Config:
  models: tuple[str, ...] = tuple(MODELS)
  rounds: int = 7
  seconds: float = 0.5
  """Of a round, about."""
  threads: int = 1
  """Of PyTorch; XLA takes what the process may use."""
  smoke: bool = False


def eager(problem: Problem, rows: int, threads: int) -> _race.Lap | None:
  """PyTorch's steps, or None where it is not installed."""
  if not _eager.available():
    return None
  import torch

  torch.set_num_threads(threads)
  torch.manual_seed(0)
  image = lambda x: x.movedim(-1, 1) if x.ndim == 4 else x
  inputs = [image(torch.randn(rows, *s)).contiguous() for s in problem.shapes.values()]
  label = torch.randint(0, CLASSES, (rows,))
  return _eager.lap_of(_eager.Late(problem.eager(), inputs, label, CLASSES, alone=False))


def measured(cfg: Config, name: str) -> dict[str, Any]:
  """Milliseconds of both and the ratio."""
  problem = MODELS[name]
  rows = 2 if cfg.smoke else problem.batch_size
  model = fusion.LateFusion(problem.ours(), CLASSES)
  batch = method_overhead.random_batch(problem.shapes, rows, CLASSES)
  racer = method_overhead.Racer("joint", model, batch)
  laps = {"mmfuse": racer.lap, "pytorch": eager(problem, rows, cfg.threads)}
  racing = {who: lap for who, lap in laps.items() if lap is not None}
  racer.lap(1)
  steps = 1 if cfg.smoke else max(1, round(cfg.seconds / racer.lap(2)))
  found = _race.race(racing, 1 if cfg.smoke else cfg.rounds, steps)
  return {
    "batch_size": rows,
    "steps": steps,
    "mmfuse_ms": _race.milliseconds(found, "mmfuse"),
    "pytorch_ms": _race.milliseconds(found, "pytorch"),
    "ratio": _race.ratio(found, "mmfuse", "pytorch"),
    "gflop": racer.cost.flops / 1e9,
    "temp_mib": racer.cost.temp_bytes / 2**20,
  }


def measure(cfg: Config) -> dict[str, Any]:
  """Everything, with what it was taken on."""
  names = ("mlp_gru", "transformers") if cfg.smoke else cfg.models
  return {"threads": cfg.threads, "rows": {n: measured(cfg, n) for n in names}, **_race.machine()}


def page(found: dict[str, Any], command: str) -> str:
  """One line a model."""
  rows = [
    (
      f"{name}, batch {row['batch_size']}",
      _race.shown(row["mmfuse_ms"], 1),
      _race.shown(row["pytorch_ms"], 1),
      *(_race.shown(None if row["ratio"] is None else row["ratio"][k]) for k in ("median", "min")),
      f"{row['gflop']:.2f}",
      f"{row['temp_mib']:.0f}",
    )
    for name, row in found["rows"].items()
  ]
  header = ("model", "mmfuse ms", "PyTorch ms", "ratio", "of minima", "GFLOP", "temporary MiB")
  words = (
    f"{found['processor']}, {found['cores']} core(s), {found['threads']} thread(s) of PyTorch, load "
    f"{found['load']}. Medians over rounds of the joint step; ratio: ours over eager PyTorch."
  )
  heading = _common.heading("# encoders: a training step, ours and eager PyTorch's", command, 0)
  return f"{heading}\n{words}\n\n{_common.table(header, rows)}\n"


def main(argv=None) -> dict[str, Any]:
  """Prints the page; a full run writes it and the JSON."""
  cfg = tyro.cli(Config, args=argv)
  if unknown := set(cfg.models) - set(MODELS):
    raise SystemExit(f"unknown models {sorted(unknown)}; there are {', '.join(MODELS)}")
  found = measure(cfg)
  command = _common.command("bench.encoders", cfg)
  name = "encoders" if cfg.threads == 1 else f"encoders_{cfg.threads}_threads"
  _common.write(name, page(found, command), cfg.smoke)
  _common.write_json(name, {"command": command, **found}, cfg.smoke)
  return found


if __name__ == "__main__":
  main()
