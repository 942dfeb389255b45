"""Modulation as one modality gets stronger: does damping it fall below the plain joint loss?

Claim: none of ours. A published table has ogm_ge, agm and pmr below plain concatenation where one modality
  is twice as accurate as the other (audio 62, visual 31 of AVE; mmpareto above it): damping the strong
  modality costs where it carries most of what is known. Here B of synthetic_2 is weakened step by step
  beside the same A; watch_imu (accel and gyro) is one real point.
Command: python -m experiments.stronger_modality                   (synthetic_2, five strengths of B)
         python -m experiments.stronger_modality --data watch_imu
         python -m experiments.stronger_modality --smoke           (one strength, few rows)
Expected: less `joint`, ogm_ge, agm and pmr fall as A / B grows, mmpareto does not; or the null with its
  intervals.
Results: experiments/results/stronger_modality.md and experiments/results/stronger_modality_watch_imu.md.
"""

import dataclasses
from typing import Any, Literal

import tyro

from experiments import _common
from mmfuse import data, report
from mmfuse.data import _synthetic

RULES = ("uniform", "ogm_ge", "agm", "pmr", "mmpareto")
CENTRES = (
  0.49,
  0.40,
  0.32,
  0.25,
  0.18,
)  # sd of B's cluster centres; the first is synthetic_2 itself
SETTINGS: dict[str, dict[str, Any]] = {
  "synthetic_2": {"epochs": 15, "trial_seeds": 1},  # as in balance_benchmark
  "watch_imu": {"epochs": 30},
}


@dataclasses.dataclass(frozen=True)
class Config:
  data: Literal["synthetic_2", "watch_imu"] = "synthetic_2"
  seeds: int = 5
  smoke: bool = False


def tables(cfg: Config) -> dict[str, data.Table | None]:
  """{what stands in the first column: the data}; None is `cfg.data` as it is."""
  if cfg.data != "synthetic_2":
    return {cfg.data: None}
  return {f"{c:.2f}": _synthetic.table(2, B=c) for c in CENTRES[: 1 if cfg.smoke else None]}


def compare(cfg: Config, given: data.Table | None) -> report.Summary:
  """Each modality alone, joint and the rules, under the shared protocol."""
  rules = RULES[: 1 if cfg.smoke else None]
  return _common.compared(
    "stronger_modality",
    given=given,
    data=cfg.data,
    methods=("unimodal", "joint", *rules),
    seeds=cfg.seeds,
    smoke=cfg.smoke,
    **SETTINGS[cfg.data],
  ).summary


def line(name: str, summary: report.Summary) -> list[str]:
  """Accuracy of each modality alone, their ratio, that of joint, and each rule less joint."""
  rows = {row.method: row for row in summary.rows}
  alone = [rows[f"unimodal/{m}"].test for m in summary.modalities]
  strong, weak = sorted((a.mean for a in alone), reverse=True)
  differences = [
    _common.figure(rows[r].differences["joint"], "+", 100) + "*" * _beyond(rows[r])
    if r in rows
    else "n/a"
    for r in RULES
  ]
  singles = [_common.figure(a, scale=100) for a in alone]
  return [
    name, *singles, f"{strong / weak:.2f}", _common.figure(rows["joint"].test, scale=100), *differences
  ]  # fmt: skip


def _beyond(row: report.Row) -> bool:
  found = row.differences["joint"]
  return bool(found and found.significant)


def main(argv=None) -> None:
  """Runs every strength and writes one table."""
  cfg = tyro.cli(Config, args=argv)
  found = {name: compare(cfg, given) for name, given in tables(cfg).items()}
  last = next(reversed(found.values()))
  first = "sd of B's centres" if cfg.data == "synthetic_2" else "data"
  alone = [f"{m} alone" for m in last.modalities]
  text = _common.heading(
    "# stronger_modality: modulation as one modality gets stronger",
    _common.command("stronger_modality", cfg),
    f"0..{cfg.seeds - 1}",
  )
  text += (
    "\nTest accuracy in percent, mean ± half-width of the 95 % t interval over seeds; rules: less `joint`, "
    "paired, in points; * = beyond noise (Holm-adjusted p < .05 over the rows of one line). Ratio: the "
    "better modality alone over the other.\n\n"
  )
  text += _common.table(
    [first, *alone, "ratio", "joint", *RULES], [line(n, s) for n, s in found.items()]
  )
  name = "stronger_modality" + ("" if cfg.data == "synthetic_2" else f"_{cfg.data}")
  _common.write(name, text + "\n", cfg.smoke)


if __name__ == "__main__":
  main()
