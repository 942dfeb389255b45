"""Is a training step of MoPoE on PolyMNIST's shapes as fast as eager PyTorch's of the same model?

Command: python -m experiments.bench.mopoe_step            (minutes on 2 cores; prints and writes JSON)
         python -m experiments.bench.mopoe_step --smoke
Five modalities [28, 28, 3]; encoders 32-64-128 (kernel 3, stride 2) to 2048 numbers, L = 512; decoders the
same backwards; all 31 subsets; Laplace of scale .75; Adam; batch 256. Rounds of both are interleaved;
without PyTorch (the extra `bench` names it) its figure and the ratio are "n/a". Goal: .8 x; at most 1.1 x.
Results: experiments/results/mopoe_step.json
"""

import dataclasses
import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import _common
from experiments.bench import _race
from mmfuse import encoders, fusion, methods, train
from mmfuse.core import Batch, Clock
from mmfuse.names import GENERATION

WIDTHS, SIDE, SCALE = (32, 64, 128), 28, 0.75


@dataclasses.dataclass(frozen=True)
class Config:
  batch_size: int = 256
  num_latent: int = 512
  modalities: int = 5
  rounds: int = 5
  steps: int = 3
  """Steps a round."""
  threads: int = 2
  """Of PyTorch; XLA takes what the process may use."""
  smoke: bool = False
  """Four rows, two modalities, one round."""

  def small(self) -> "Config":
    """What a smoke run measures."""
    few = {"batch_size": 4, "num_latent": 8, "modalities": 2, "rounds": 1, "steps": 1}
    return dataclasses.replace(self, **few) if self.smoke else self  # type: ignore[arg-type]


class Strided(nn.Module):
  """x [B, 28, 28, 3] -> [B, 2048]: three convolutions that halve, 28, 14, 7, 4."""

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    del mask, train
    last = jax.default_backend() == "cpu"  # as the library's own encoders of images
    x = x.transpose(3, 1, 2, 0) if last else x
    for i, width in enumerate(WIDTHS):
      conv = encoders.Conv(width, (3, 3), (2, 2), padding=1, batch_last=last, name=f"conv{i}")
      x = nn.relu(conv(x))
    x = x.transpose(3, 1, 2, 0) if last else x
    return x.reshape(x.shape[0], -1)

  @nn.nowrap
  def mirror(self, shape: Sequence[int]) -> nn.Module:
    """The same backwards."""
    return encoders.ConvDecoder(tuple(shape), WIDTHS, norm="none", least=2)


def ours(cfg: Config) -> Callable[[int], float]:
  """lap(steps) -> seconds per step."""
  names = [f"m{i}" for i in range(cfg.modalities)]
  model = fusion.LateFusion(dict.fromkeys(names, Strided()), 1)
  method = methods.METHODS["mopoe"](
    model,
    1e-3,
    tx=train.adam(1e-3),
    task=GENERATION,
    likelihood=f"laplace:{SCALE}",
    num_latent=cfg.num_latent,
  )
  rng, rows = np.random.default_rng(0), cfg.batch_size
  inputs = {m: jnp.asarray(rng.random((rows, SIDE, SIDE, 3)), jnp.float32) for m in names}
  mask = {m: jnp.ones(rows, bool) for m in names}
  batch = Batch(inputs, None, mask, jnp.ones(rows), jnp.arange(rows), {})
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 8, 8)))
  step = jax.jit(method.phases[0].step, donate_argnums=0)
  held = [train.initial(method, jax.random.key(0), batch)]

  def lap(steps: int) -> float:
    began = time.perf_counter()
    for i in range(steps):
      held[0], _ = step(held[0], batch, jax.random.key(i), clock)
    jax.block_until_ready(held[0])
    return (time.perf_counter() - began) / steps

  return lap


def eager(cfg: Config) -> Callable[[int], float] | None:
  """The same in PyTorch, or None where it is not installed."""
  if importlib.util.find_spec("torch") is None:
    return None
  import torch
  from torch import nn as tnn

  torch.set_num_threads(cfg.threads)
  torch.manual_seed(0)
  size, rows, latent = 4 * 4 * WIDTHS[-1], cfg.batch_size, cfg.num_latent

  def encoder() -> tnn.Sequential:
    blocks: list[tnn.Module] = []
    for before, width in itertools.pairwise((3, *WIDTHS)):
      blocks += [tnn.Conv2d(before, width, 3, stride=2, padding=1), tnn.ReLU()]
    return tnn.Sequential(*blocks, tnn.Flatten(), tnn.Linear(size, 2 * latent))

  def decoder() -> tnn.Sequential:
    blocks: list[tnn.Module] = [
      tnn.Linear(latent, size),
      tnn.ReLU(),
      tnn.Unflatten(1, (WIDTHS[-1], 4, 4)),
    ]
    for i, (before, width) in enumerate(itertools.pairwise((*reversed(WIDTHS), 3))):
      grow = 0 if i == 0 else 1  # 4, 7, 14, 28
      up = tnn.ConvTranspose2d(before, width, 3, stride=2, padding=1, output_padding=grow)
      blocks += [up, tnn.ReLU()] if width != 3 else [up]
    return tnn.Sequential(*blocks)

  count = cfg.modalities
  nets = tnn.ModuleList([m for _ in range(count) for m in (encoder(), decoder())])
  tx = torch.optim.Adam(nets.parameters(), lr=1e-3)
  inputs = [torch.rand(rows, 3, SIDE, SIDE) for _ in range(count)]
  subsets = [
    s for k in range(1, count + 1) for s in itertools.combinations(range(count), k)
  ]  # the whole set last
  edges = [i * (rows // len(subsets)) for i in range(len(subsets))] + [rows]

  def loss():
    said = [nets[2 * m](x).chunk(2, 1) for m, x in enumerate(inputs)]
    precision = [1 / (lv.exp() + 1e-8) for _, lv in said]
    weighted = [p * mu for p, (mu, _) in zip(precision, said)]
    kl, parts = 0.0, []
    for s, low, high in zip(subsets, edges, edges[1:]):
      prior = 1.0 if len(s) == count else 0.0
      total = sum(precision[m] for m in s) + prior
      mu, lv = sum(weighted[m] for m in s) / total, -total.log()
      kl = kl + 0.5 * (lv.exp() + mu.square() - lv - 1).sum(1)
      noise = torch.randn(high - low, latent)
      parts.append(mu[low:high] + (0.5 * lv[low:high]).exp() * noise)
    z = torch.cat(parts)
    nll = sum(
      ((x - nets[2 * m + 1](z)).abs() / SCALE + np.log(2 * SCALE)).flatten(1).sum(1)
      for m, x in enumerate(inputs)
    )
    return (nll + kl / len(subsets)).mean()

  def lap(steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
      tx.zero_grad()
      loss().backward()
      tx.step()
    return (time.perf_counter() - began) / steps

  return lap


def measure(cfg: Config) -> dict:
  """Milliseconds per step of both, medians, and the median of the ratios of a round."""
  cfg = cfg.small()
  racers = {"mmfuse": ours(cfg), "pytorch": eager(cfg)}
  racing = {name: lap for name, lap in racers.items() if lap is not None}
  for lap in racing.values():
    lap(1)
  laps: dict[str, list[float]] = {name: [] for name in racing}
  for _ in range(cfg.rounds):
    for name, lap in racing.items():
      laps[name].append(lap(cfg.steps))
  milliseconds = lambda name: round(1e3 * statistics.median(laps[name]), 2)
  both = "pytorch" in laps
  ratio = statistics.median(a / b for a, b in zip(laps["mmfuse"], laps["pytorch"])) if both else 0
  return {
    "batch_size": cfg.batch_size,
    "num_latent": cfg.num_latent,
    "modalities": cfg.modalities,
    "rounds": cfg.rounds,
    "steps": cfg.steps,
    "mmfuse_ms": milliseconds("mmfuse"),
    "pytorch_ms": milliseconds("pytorch") if both else "n/a",
    "ratio": round(ratio, 3) if both else "n/a",
    "threads": cfg.threads,
    **_race.machine(),
  }


def main(argv=None) -> dict:
  """Prints JSON; a full run also writes it."""
  cfg = tyro.cli(Config, args=argv)
  found = _common.print_json(measure, cfg)
  command = _common.command("bench.mopoe_step", cfg)
  _common.write_json("mopoe_step", {"command": command, **found}, cfg.smoke)
  return found


if __name__ == "__main__":
  main()
