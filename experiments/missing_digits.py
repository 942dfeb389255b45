"""Missing modalities on digits: what modality dropout is worth, and how much of it is had for nothing.

Claim: trained on complete rows, one model loses on the mean over all subsets of modalities; dropping
  modalities while training (`dropout`) gains on it, and the plain sum of all losses (`uniform`)
  takes a part of that gain without dropping anything. `custom` has a model per subset.
Command: python -m experiments.missing_digits             (10 seeds, 6 minutes on 2 cores)
         python -m experiments.missing_digits --smoke     (seconds, 2 methods)
Expected: on the mean over the 7 subsets, dropout less joint +3 to +4 points with an interval clear of 0 and
  beside a model per subset, `uniform` at 40 to 60 % of that. Not the +12 of networks with a shared
  batch-norm trunk.
Results: experiments/results/missing_digits.md
"""

import dataclasses

import tyro

from experiments import _common, compare
from mmfuse import report


@dataclasses.dataclass(frozen=True)
class Config(compare.Config):
  data: str = "digits"
  methods: tuple[str, ...] = ("joint", "uniform", "late_average", "dropout", "custom")
  seeds: int = 10


def run(cfg: Config) -> report.Summary:
  """The comparison over subsets of modalities."""
  few = {"methods": ("joint", "dropout")} if cfg.smoke else {}
  command = _common.command("missing_digits", cfg)
  return compare.run(cfg, command, missing=True, **few)


def contrasts(summary: report.Summary) -> str:
  """Each row less `joint` on the mean over subsets, in points, with its paired interval."""
  rows = [
    (f"{row.method} less joint", _common.figure(row.missing.differences["joint"], "+", 100))
    for row in summary.rows
    if row.missing is not None and row.missing.differences.get("joint") is not None
  ]
  return _common.table(("mean over subsets, points", "difference"), rows)


def main(argv=None) -> None:
  """Runs and writes the tables."""
  cfg = tyro.cli(Config, args=argv)
  summary = run(cfg)
  text = _common.heading(
    "# missing_digits: subsets of modalities", summary.info["command"], f"0..{cfg.seeds - 1}"
  )
  _common.write(
    "missing_digits", f"{text}\n{contrasts(summary)}\n\n{report.markdown(summary)}\n", cfg.smoke
  )


if __name__ == "__main__":
  main()
