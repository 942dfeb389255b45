"""What a training step costs on an accelerator, and whether it computes there what the CPU computes.

Command: python -m experiments.bench.accelerator            (at most 8 minutes on one GPU or TPU)
         python -m experiments.bench.accelerator --out FOLDER
         python -m experiments.bench.accelerator --sections ceiling resnet
         python -m experiments.bench.accelerator --smoke    (tiny shapes and steps alone, on a CPU)
Sections, each printed and saved as it ends, so that a run that is cut keeps what it had:
  ceiling  TFLOP/s of matrix products, float32 (as JAX multiplies it by default) and bfloat16
  lenet    the joint step of the AV-MNIST LeNets, batch 64 and 256, float32 and bfloat16
  digits   one comparison on digits: test scores equal to the CPU's within noise, or exit status 1
  seeds    `fit` of 8 seeds at once and one after the other
  resnet   the joint step of two ResNet-18 at CREMA-D shapes, batch 64 and 256, float32 and bfloat16
  rules    uniform and mmpareto over joint, on the ResNets
bfloat16: the model's passes are cast, parameters and losses stay float32. Times are medians (and least)
of interleaved rounds; MFU is a step's FLOPs over its median time, over the ceiling of its precision.
Results: experiments/results/accelerator_<device>.md and .json.
"""

import dataclasses
import datetime
import json
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import tyro

from experiments import _common
from experiments.bench import _accelerator as sections
from mmfuse import train


@dataclasses.dataclass(frozen=True)
class Config:
  out: str | None = None
  """Folder of the page; default experiments/results, and nowhere for a smoke run."""
  minutes: float = 7.5
  """After which no further program is built."""
  rounds: int = 9
  steps: int = 10
  """Steps a round."""
  matrix: int = 8_192
  """Rows and columns of the products that set the ceiling."""
  sections: tuple[str, ...] = ()
  """Some of them; default all, in a smoke run those that compile little."""
  smoke: bool = False


# {section: (seconds it may take, what runs, given the sections before it)}
Section = Callable[[Config, float, dict], dict]
SECTIONS: dict[str, tuple[float, Section]] = {
  "ceiling": (30, lambda cfg, until, done: sections.ceiling(cfg, until)),
  "lenet": (60, lambda cfg, until, done: _steps("lenet", cfg, until, done)),
  "digits": (120, lambda cfg, until, done: sections.digits(cfg, until)),
  "seeds": (60, lambda cfg, until, done: sections.seeds(cfg, until)),
  "resnet": (150, lambda cfg, until, done: _steps("resnet18", cfg, until, done)),
  "rules": (120, lambda cfg, until, done: sections.rules(*_model("resnet18", cfg), cfg, until)),
}
SMOKE = ("ceiling", "lenet", "resnet", "rules")  # the others compile for half a minute on a CPU


def _model(kind: str, cfg: Config) -> tuple[str, int]:
  """(encoders, batch size); a smoke run has two MLPs, whatever the section."""
  return ("mlp", 4) if cfg.smoke else (kind, 64)


def _steps(kind: str, cfg: Config, until: float, done: dict) -> dict:
  kind, size = _model(kind, cfg)
  sizes = (size,) if cfg.smoke else (size, 4 * size)
  return sections.steps_of(kind, sizes, cfg, until, done.get("ceiling", {}))


def smoke_of(cfg: Config) -> Config:
  """Tiny: one round of one step."""
  return dataclasses.replace(cfg, rounds=1, steps=1, matrix=32) if cfg.smoke else cfg


def measure(cfg: Config, save: Callable[[dict], None]) -> dict[str, Any]:
  """Every section for which there is time; `save` is called after each."""
  began = time.perf_counter()
  end = began + 60 * cfg.minutes
  done: dict[str, Any] = {}
  for name in cfg.sections or (SMOKE if cfg.smoke else SECTIONS):
    seconds, run = SECTIONS[name]
    now = time.perf_counter()
    if now > end:
      done[name] = {"skipped": "not run: no time left"}
    else:
      try:
        done[name] = run(cfg, min(now + seconds, end), done)
      except Exception as error:  # the sections after it are worth having
        done[name] = {"failed": f"{type(error).__name__}: {error}"}
      done[name]["seconds"] = round(time.perf_counter() - now, 1)
    print(json.dumps({name: done[name]}), flush=True)
    save(done)
  return done


def _number(value: float | None, digits: int) -> str:
  return "n/a" if value is None else f"{value:,.{digits}f}"


def _steps_table(found: dict) -> str:
  header = ("step", "median ms", "least ms", "GFLOP", "TFLOP/s", "MFU", "examples/s")
  return _common.table(
    header,
    [
      (
        name,
        _number(r["median_ms"], 2),
        _number(r["least_ms"], 2),
        _number(r["gflop"], 1),
        _number(r["tflop_per_s"], 1),
        _number(r["mfu"], 3),
        _number(r["examples_per_s"], 0),
      )
      for name, r in found["rows"].items()
    ],
  )


def _rules_table(found: dict) -> str:
  return _common.table(
    ("method", "median ms", "least ms", "over joint"),
    [
      (name, _number(r["median_ms"], 2), _number(r["least_ms"], 2), _number(r["over_joint"], 2))
      for name, r in found["rows"].items()
    ],
  )


def _seeds_table(found: dict) -> str:
  rows = [
    (name, _number(r["median_ms"] / 1e3, 2), _number(r["least_ms"] / 1e3, 2))
    for name, r in found["rows"].items()
  ]
  title = f"{found['seeds']} seeds, {found['epochs']} epochs of {found['training_rows']:,} rows"
  ratio = f"\n\nIn sequence takes {found['sequence_over_at_once']:.1f} times as long as at once."
  return _common.table((title, "median s", "least s"), rows) + ratio


def _ceiling_table(found: dict) -> str:
  return _common.table(
    (f"products of {found['size']:,} x {found['size']:,}", "TFLOP/s"),
    [(name, _number(found[name], 1)) for name in sections.PRECISIONS],
  )


def _digits_table(found: dict) -> str:
  points = lambda values: " ".join(f"{100 * v:.1f}" for v in values)
  rows = [
    (
      name,
      points(r["here"]),
      points(r["cpu"]),
      f"{100 * r['mean_difference']:+.2f}",
      f"{100 * r['half']:.2f}",
      "yes" if r["equal"] else "NO",
    )
    for name, r in found["rows"].items()
  ]
  header = (
    "test accuracy by seed",
    "here",
    "CPU",
    "difference",
    "half-width",
    "equal within noise",
  )
  return _common.table(header, rows)


TABLES: dict[str, tuple[str, Callable[[dict], str]]] = {
  "ceiling": ("Ceiling", _ceiling_table),
  "lenet": ("Joint step, LeNets of AV-MNIST", _steps_table),
  "digits": ("The same comparison on the CPU", _digits_table),
  "seeds": ("Seeds at once", _seeds_table),
  "resnet": ("Joint step, two ResNet-18", _steps_table),
  "rules": ("Rules over joint, two ResNet-18, batch 64", _rules_table),
}


def page(done: dict[str, Any], command: str) -> str:
  """The markdown page of the sections that are there."""
  parts = [_common.heading("# accelerator: what a training step costs on it", command, "n/a")]
  for name, (title, table) in TABLES.items():
    if name in done:
      found = done[name]
      missing = found.get("failed") or found.get("skipped")
      parts.append(f"## {title}\n\n{missing or table(found)}\n")
      if found.get("not_run"):
        parts.append(f"Not run, no time left: {'; '.join(found['not_run'])}.\n")
  return "\n".join(parts)


def main(argv=None) -> dict[str, Any]:
  """Runs the sections; prints each and, where there is a folder, writes the page."""
  cfg = tyro.cli(Config, args=argv)
  if unknown := [name for name in cfg.sections if name not in SECTIONS]:
    raise SystemExit(f"no section {unknown[0]!r}; available: {', '.join(SECTIONS)}")
  train.enable_compilation_cache()
  device = jax.devices()[0]
  folder = _common.RESULTS if cfg.out is None else pathlib.Path(cfg.out)
  stem = "accelerator_" + re.sub(r"\W+", "_", device.device_kind.lower()).strip("_")
  command = _common.command("bench.accelerator", dataclasses.replace(cfg, out=None))
  head = {
    "date": datetime.date.today().isoformat(),
    "device": device.device_kind,
    "platform": device.platform,
    "jax": jax.__version__,
    "python": sys.version.split()[0],
    "command": command,
  }

  def save(done: dict) -> None:
    if cfg.smoke and cfg.out is None:
      return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.json").write_text(json.dumps({**head, **done}, indent=1) + "\n")
    (folder / f"{stem}.md").write_text(page(done, command))

  done = measure(smoke_of(cfg), save)
  print(page(done, command))
  return done


def sound(done: dict[str, Any]) -> bool:
  """Whether no section failed, and the scores on digits, where they were taken, are the CPU's."""
  return all("failed" not in s and s.get("equal", True) for s in done.values())


if __name__ == "__main__":
  sys.exit(0 if sound(main()) else 1)
