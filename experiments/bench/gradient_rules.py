"""Gradient rules on M encoders: a step of ours over one of TorchJD, which a user of such rules would pick.

Command: OMP_NUM_THREADS=1 taskset -c 0 python -m experiments.bench.gradient_rules    (one core, some minutes)
         python -m experiments.bench.gradient_rules --modalities 2 --rules upgrad
         python -m experiments.bench.gradient_rules --smoke
M LeNets on 28 x 28, batch 64, K = M + 1 losses: the fused one and one of each modality. "plain" is the step
on their sum: `uniform` here, eager PyTorch there. TorchJD differentiates its losses one after the other or
all at once; the faster of both counts. Rounds of all are interleaved; without PyTorch and TorchJD (the extra
`bench`) their figures are n/a.
Expected: at most .60 of TorchJD's time at M = 2, .40 at M = 4, .30 at M = 8, for an encoder has two of the K
gradients and not all; over a plain step at most 1.75, whatever M.
Results: experiments/results/gradient_rules.md and gradient_rules.json.
"""

import dataclasses
import functools
from typing import Any

import numpy as np
import tyro

from experiments import _common
from experiments.bench import _eager, _race, method_overhead
from mmfuse import encoders, fusion

# {row of ours: TorchJD's name of it}
RULES = {
  "upgrad": "UPGrad",
  "mgda": "MGDA",
  "pcgrad": "PCGrad",
  "aligned_mtl": "AlignedMTL",
  "dualproj": "DualProj",
}
CLASSES, SIDE = 10, 28


@dataclasses.dataclass(frozen=True)
class Config:
  modalities: tuple[int, ...] = (2, 4, 8)
  rules: tuple[str, ...] = tuple(RULES)
  batch_size: int = 64
  rounds: int = 7
  steps: int = 4
  """Steps a round."""
  threads: int = 1
  """Of PyTorch; XLA takes what the process may use."""
  smoke: bool = False


def ours(cfg: Config, number: int) -> dict[str, method_overhead.Racer]:
  """{"plain" or rule: its step}."""
  shapes = {f"m{i}": (SIDE, SIDE, 1) for i in range(number)}
  batch = method_overhead.random_batch(shapes, cfg.batch_size, CLASSES)
  encoder = encoders.by_name("lenet", (1, SIDE, SIDE, 1), np.float32)
  model = fusion.LateFusion(dict.fromkeys(shapes, encoder), CLASSES)
  names = {"plain": "uniform", **{name: name for name in cfg.rules}}
  return {name: method_overhead.Racer(row, model, batch) for name, row in names.items()}


def theirs(cfg: Config, number: int) -> dict[str, list[_race.Lap]]:
  """{"plain" or rule: its laps, of which the fastest counts}; {} without the extra."""
  if not _eager.available("torchjd"):
    return {}
  import torch
  from torchjd import aggregation
  from torchjd.autojac import backward, jac_to_grad

  torch.set_num_threads(cfg.threads)
  torch.manual_seed(0)

  def model() -> _eager.Late:
    inputs = [torch.randn(cfg.batch_size, 1, SIDE, SIDE) for _ in range(number)]
    label = torch.randint(0, CLASSES, (cfg.batch_size,))
    return _eager.Late([_eager.lenet(3) for _ in inputs], inputs, label, CLASSES, alone=True)

  def aggregated(made: _eager.Late, rule: Any, chunk: int | None, losses: list[Any]) -> None:
    backward(losses, inputs=made.parameters, parallel_chunk_size=chunk)
    jac_to_grad(made.parameters, rule)

  laps = {"plain": [_eager.lap_of(model())]}
  for name in cfg.rules:
    laps[name] = []
    for chunk in (1, None):
      made, rule = model(), getattr(aggregation, RULES[name])()
      laps[name].append(_eager.lap_of(made, functools.partial(aggregated, made, rule, chunk)))
  return laps


def measured(cfg: Config, number: int) -> dict[str, Any]:
  """{rule: times and ratios} of M = number."""
  racers, peers = ours(cfg, number), theirs(cfg, number)
  rounds, steps = (1, 1) if cfg.smoke else (cfg.rounds, cfg.steps)
  laps: dict[str, _race.Lap] = {f"mmfuse/{name}": racer.lap for name, racer in racers.items()}
  for name, each in peers.items():
    laps |= {f"torchjd/{name}/{i}": lap for i, lap in enumerate(each)}
  found = _race.race(laps, rounds, steps)
  for name, each in peers.items():
    kept = [found.pop(f"torchjd/{name}/{i}") for i in range(len(each))]
    found[f"torchjd/{name}"] = min(kept, key=lambda times: sorted(times)[len(times) // 2])
  plain = racers["plain"].cost
  return {
    name: {
      "mmfuse_ms": _race.milliseconds(found, f"mmfuse/{name}"),
      "torchjd_ms": _race.milliseconds(found, f"torchjd/{name}"),
      "over_torchjd": _race.ratio(found, f"mmfuse/{name}", f"torchjd/{name}"),
      "over_plain": _race.ratio(found, f"mmfuse/{name}", "mmfuse/plain"),
      "torchjd_over_plain": _race.ratio(found, f"torchjd/{name}", "torchjd/plain"),
      "flops_over_plain": racer.cost.flops / plain.flops,
      "bytes_over_plain": racer.cost.temp_bytes / max(plain.temp_bytes, 1),
    }
    for name, racer in racers.items()
  }


def measure(cfg: Config) -> dict[str, Any]:
  """Everything, with what it was taken on."""
  numbers = cfg.modalities[:1] if cfg.smoke else cfg.modalities
  small = dataclasses.replace(cfg, batch_size=4, rules=cfg.rules[:1]) if cfg.smoke else cfg
  return {
    "batch_size": small.batch_size,
    "rows": {str(number): measured(small, number) for number in numbers},
    **_race.machine(),
  }


def page(found: dict[str, Any], command: str) -> str:
  """One line a rule and M."""
  median = lambda value: _race.shown(None if value is None else value["median"])
  rows = [
    (
      f"{name}, M = {number}",
      _race.shown(row["mmfuse_ms"], 1),
      _race.shown(row["torchjd_ms"], 1),
      *(median(row[k]) for k in ("over_torchjd", "over_plain", "torchjd_over_plain")),
      *(f"{row[k]:.2f}" for k in ("flops_over_plain", "bytes_over_plain")),
    )
    for number, each in found["rows"].items()
    for name, row in each.items()
  ]
  header = (
    "rule",
    "mmfuse ms",
    "TorchJD ms",
    "ours over TorchJD",
    "ours over plain",
    "TorchJD over plain",
    "FLOPs over plain",
    "temporary bytes over plain",
  )
  words = (
    f"{found['processor']}, {found['cores']} core(s), load {found['load']}. Medians over rounds. M LeNets on "
    f"{SIDE} x {SIDE}, batch {found['batch_size']}, M + 1 losses; plain: the sum of them."
  )
  title = "# gradient_rules: a step of a rule, ours and TorchJD's"
  heading = _common.heading(title, command, 0)
  return f"{heading}\n{words}\n\n{_common.table(header, rows)}\n"


def main(argv=None) -> dict[str, Any]:
  """Prints the page; a full run writes it and the JSON."""
  cfg = tyro.cli(Config, args=argv)
  found = measure(cfg)
  command = _common.command("bench.gradient_rules", cfg)
  _common.write("gradient_rules", page(found, command), cfg.smoke)
  _common.write_json("gradient_rules", {"command": command, **found}, cfg.smoke)
  return found


if __name__ == "__main__":
  main()
