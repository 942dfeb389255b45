"""What does a method cost over a plain step? FLOPs and temporary bytes from XLA, times interleaved.

Command: python -m experiments.bench.method_overhead            (about 5 minutes on 2 cores; prints JSON)
         python -m experiments.bench.method_overhead --model resnet18 --batch-size 4 --rounds 7
         python -m experiments.bench.method_overhead --modalities 4
         python -m experiments.bench.method_overhead --classes 309 --methods pmr
         python -m experiments.bench.method_overhead --smoke
A plain step is `joint`. Encoders: the Conv1D pair of watch_imu, the LeNet pair of AV-MNIST, two ResNet-18 at
CREMA-D shapes and, for tests, an MLP pair. Floors (docs/design.md, section 4): modulators and weightings 1.0,
aggregators 1.66 where the encoders dominate, whatever the number of modalities. `limit` is what a row may
cost (docs/performance.md); a test asserts the FLOPs on encoder-dominated models.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import _common
from mmfuse import encoders, fusion, methods, train
from mmfuse.core import Batch, Clock


class Limit(NamedTuple):
  """Over a plain step; memory: of temporaries, where activations dominate (LeNets, not MLPs)."""

  flops: float
  time: float
  memory: float = 1.10


CHEAP, WHOLE = Limit(1.02, 1.08), Limit(1.68, 1.75, 1.30)
SCALARS = "uniform mimo stch uw dwa rlw imtl_l ogm agm_light mslr bogc_laplace"
GRADIENTS = (
  "mmpareto mgda pcgrad cagrad bogc imtl_g nash_mtl aligned_mtl fairgrad upgrad dualproj gradnorm graddrop "
  "gradvac moco excess_mtl"
)
LIMITS = {
  **dict.fromkeys(SCALARS.split(), CHEAP),
  "ogm_ge": Limit(1.03, 1.10, 1.50),
  "agm": Limit(1.42, 1.45),
  **dict.fromkeys(GRADIENTS.split(), WHOLE),
  "pmr": Limit(1.10, 1.10),
  "dmrnet": Limit(1.05, 1.10),  # of the LeNet pair
  "mmanet": Limit(1.45, 1.60),  # a step of its student, the teacher's forward pass included
}
ROWS = ("joint", *LIMITS)
# {modality: (row shape, encoder)}; more than two modalities repeat them.
MODELS = {
  "conv1d": {
    "accel": ((100, 3), lambda: encoders.Conv1D(64, pool="mean")),
    "gyro": ((100, 3), lambda: encoders.Conv1D(64, pool="mean")),
  },
  "lenet": {
    "audio": ((112, 112, 1), lambda: encoders.by_name("lenet", (1, 112, 112, 1), np.float32)),
    "image": ((28, 28, 1), lambda: encoders.by_name("lenet", (1, 28, 28, 1), np.float32)),
  },
  "resnet18": {
    "audio": ((257, 188, 1), lambda: encoders.by_name("resnet18", (1, 257, 188, 1), np.float32)),
    "visual": ((224, 224, 3), lambda: encoders.by_name("resnet18", (1, 224, 224, 3), np.float32)),
  },
  "mlp": {
    "audio": ((256,), lambda: encoders.MLP(32, (256, 256))),
    "visual": ((256,), lambda: encoders.MLP(32, (256, 256))),
  },
}


@dataclasses.dataclass(frozen=True)
class Config:
  model: Literal["conv1d", "lenet", "resnet18", "mlp"] = "conv1d"
  modalities: int = 2
  batch_size: int = 64
  classes: int = 7
  rounds: int = 9
  steps: int = 8
  """Steps a round, dispatched one by one."""
  methods: tuple[str, ...] = ROWS
  smoke: bool = False


def build(cfg: Config):
  """(model, batch) with `modalities` encoders."""
  kinds = list(MODELS[cfg.model].items())
  chosen = {
    f"{kinds[i % 2][0]}{'' if i < 2 else i}": kinds[i % 2][1] for i in range(cfg.modalities)
  }
  size = 4 if cfg.smoke else cfg.batch_size
  batch = random_batch({m: shape for m, (shape, _) in chosen.items()}, size, cfg.classes)
  return fusion.LateFusion({m: make() for m, (_, make) in chosen.items()}, cfg.classes), batch


def random_batch(shapes: Mapping[str, tuple[int, ...]], rows: int, classes: int) -> Batch:
  """Complete rows of noise; `shapes` of a row."""
  rng = np.random.default_rng(0)
  return Batch(
    {m: jnp.asarray(rng.normal(size=(rows, *shape)), jnp.float32) for m, shape in shapes.items()},
    jnp.asarray(rng.integers(0, classes, rows), jnp.int32),
    {m: jnp.ones(rows, bool) for m in shapes},
    jnp.ones(rows),
    jnp.arange(rows, dtype=jnp.int32),
    {},
  )


class Racer:
  """One compiled step and its state."""

  def __init__(self, name, model, batch):
    method = methods.METHODS[name](model)
    self.state = jax.tree.map(
      jnp.copy, train.initial(method, jax.random.key(0), batch)
    )  # no buffer twice: it is donated
    clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
    self.args = (batch, jax.random.key(1), clock)
    step = jax.jit(method.phases[-1].step, donate_argnums=0)
    lowered = step.lower(self.state, *self.args)
    self.counted = float((lowered.cost_analysis() or {}).get("flops", float("nan")))
    self.compiled = lowered.compile()
    self.cost = train.cost_of(self.compiled)

  def lap(self, steps: int) -> float:
    """Seconds per step."""
    began = time.perf_counter()
    for _ in range(steps):
      self.state, metrics = self.compiled(self.state, *self.args)
    jax.block_until_ready((self.state, metrics))
    return (time.perf_counter() - began) / steps


def measure(cfg: Config) -> dict:
  """{method: {flops, bytes, time: ratios over `joint`}} and what they were taken on."""
  model, batch = build(cfg)
  racers = {name: Racer(name, model, batch) for name in dict.fromkeys(("joint", *cfg.methods))}
  rounds, steps = (1, 1) if cfg.smoke else (cfg.rounds, cfg.steps)
  for racer in racers.values():
    racer.lap(1)
  laps: dict[str, list[float]] = {name: [] for name in racers}
  for _ in range(rounds):
    for name, racer in racers.items():
      laps[name].append(racer.lap(steps))
  plain = racers["joint"]
  rows = {
    name: {
      "flops": round(r.cost.flops / plain.cost.flops, 3),
      "temp_bytes": round(r.cost.temp_bytes / max(plain.cost.temp_bytes, 1), 3),
      "time": round(statistics.median(a / b for a, b in zip(laps[name], laps["joint"])), 3),
      "time_min": round(min(laps[name]) / min(laps["joint"]), 3),
      "limit": LIMITS.get(name),
    }
    for name, r in racers.items()
  }
  return {
    "model": cfg.model,
    "modalities": cfg.modalities,
    "batch_size": len(batch.label),
    "classes": cfg.classes,
    "rounds": rounds,
    "joint_ms": round(1e3 * statistics.median(laps["joint"]), 3),
    "load": os.getloadavg()[0],
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
    "rows": rows,
  }


def main(argv=None) -> dict:
  """Prints JSON."""
  return _common.print_json(measure, tyro.cli(Config, args=argv))


if __name__ == "__main__":
  main()
