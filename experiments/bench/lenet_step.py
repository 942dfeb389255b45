"""Is a training step of the AV-MNIST LeNets faster than eager PyTorch's on the same shapes?

Command: python -m experiments.bench.lenet_step            (about a minute on 2 cores; prints JSON)
         python -m experiments.bench.lenet_step --smoke
The joint step: LeNet c = 6 on 28 x 28 and on 112 x 112 (as MultiBench and I2M2), concat, a linear head (and
ours with its running uni-modal probes), SGD with momentum, batch 40. Rounds of both are interleaved;
without PyTorch its figure and the ratio are "n/a". Goal: at most .9 x.
"""

import dataclasses
import importlib.util
import os
import statistics
import time
from collections.abc import Callable

import jax
import tyro

from experiments import _common
from experiments.bench import method_overhead


@dataclasses.dataclass(frozen=True)
class Config:
  batch_size: int = 40
  rounds: int = 9
  steps: int = 10
  """Steps a round."""
  threads: int = 2
  """Of PyTorch; XLA takes what the process may use."""
  smoke: bool = False


def ours(cfg: Config) -> Callable[[int], float]:
  """lap(steps) -> seconds per step."""
  setting = method_overhead.Config(model="lenet", batch_size=cfg.batch_size, classes=10)
  return method_overhead.Racer("joint", *method_overhead.build(setting)).lap


def eager(cfg: Config) -> Callable[[int], float] | None:
  """The same in PyTorch, or None where it is not installed."""
  if importlib.util.find_spec("torch") is None:
    return None
  import torch
  from torch import nn

  torch.set_num_threads(cfg.threads)
  torch.manual_seed(0)

  def lenet(layers: int, c: int = 6) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for i in range(layers + 1):
      width, before = c * 2**i, 1 if i == 0 else c * 2 ** (i - 1)
      size = 3 if i else 5
      conv = nn.Conv2d(before, width, size, padding=size // 2, bias=False)
      blocks += [conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten())

  nets = nn.ModuleList([lenet(5), lenet(3)])
  head = nn.Linear(240, 10)
  params = [*nets.parameters(), *head.parameters()]
  tx = torch.optim.SGD(params, lr=0.03, momentum=0.9)
  inputs = [torch.randn(cfg.batch_size, 1, n, n) for n in (112, 28)]
  label = torch.randint(0, 10, (cfg.batch_size,))

  def lap(steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
      tx.zero_grad()
      z = head(torch.cat([net(x) for net, x in zip(nets, inputs)], 1))
      nn.functional.cross_entropy(z, label).backward()
      tx.step()
    return (time.perf_counter() - began) / steps

  return lap


def measure(cfg: Config) -> dict:
  """Milliseconds per step of both, medians, and the median of the ratios of a round."""
  racers = {"mmfuse": ours(cfg), "pytorch": eager(cfg)}
  racing = {name: lap for name, lap in racers.items() if lap is not None}
  rounds, steps = (1, 1) if cfg.smoke else (cfg.rounds, cfg.steps)
  for lap in racing.values():
    lap(1)
  laps: dict[str, list[float]] = {name: [] for name in racing}
  for _ in range(rounds):
    for name, lap in racing.items():
      laps[name].append(lap(steps))
  milliseconds = lambda name: round(1e3 * statistics.median(laps[name]), 2)
  both = "pytorch" in laps
  ratio = statistics.median(a / b for a, b in zip(laps["mmfuse"], laps["pytorch"])) if both else 0
  return {
    "batch_size": cfg.batch_size,
    "rounds": rounds,
    "steps": steps,
    "mmfuse_ms": milliseconds("mmfuse"),
    "pytorch_ms": milliseconds("pytorch") if both else "n/a",
    "ratio": round(ratio, 3) if both else "n/a",
    "load": os.getloadavg()[0],
    "device": jax.devices()[0].device_kind,
    "jax": jax.__version__,
  }


def main(argv=None) -> dict:
  """Prints JSON."""
  return _common.print_json(measure, tyro.cli(Config, args=argv))


if __name__ == "__main__":
  main()
