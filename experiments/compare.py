"""The main job, on real data: the default methods through watch_imu under one fair protocol.

Claim: none of ours. The question is which rules differ from `joint` and from `uniform` (the plain
  sum of all losses) when every row gets the same search.
Command: python -m experiments.compare                       (5 seeds of one split, 7 minutes on 2 cores)
         python -m experiments.compare --folds 5 --seeds 2   (half an hour: the subjects vary too)
         python -m experiments.compare --smoke               (seconds, 3 methods)
Expected: `uniform` a few points above `joint`; differences between the rules of the size of the
  intervals, so few or no rows beyond noise. Results: experiments/results/compare.md.
"""

import dataclasses
import tempfile
from typing import Any

import tyro

from experiments import _common
from mmfuse import protocol, report


@dataclasses.dataclass(frozen=True)
class Config:
  data: str = "watch_imu"
  """A built-in set or an .npz."""
  methods: tuple[str, ...] = ("default",)
  """As in `mmfuse compare`."""
  folds: int | None = None
  """Group folds: 5 test two subjects each."""
  seeds: int = 5
  """Of the split, or per fold."""
  epochs: int | None = None
  """Default: by the number of training rows."""
  out: str | None = None
  """Where the run itself is kept (continued with --resume); default: a temporary folder."""
  resume: bool = False
  smoke: bool = False


def run(
  cfg: Config, command: str = "python -m experiments.compare", **options: Any
) -> report.Summary:
  """The comparison, through the public protocol; `options` of `protocol.Compare` go before `cfg`'s."""
  with tempfile.TemporaryDirectory() as scratch:
    settings = {**dataclasses.asdict(cfg), "out": cfg.out or f"{scratch}/run", **options}
    return protocol.run(protocol.Compare(**settings), command=command)


def main(argv=None) -> None:
  """Runs and writes the table."""
  cfg = tyro.cli(Config, args=argv)
  summary = run(cfg)
  where = "" if cfg.folds is None else f" in each of {cfg.folds} folds"
  text = _common.heading(
    f"# compare: {cfg.data}", summary.info["command"], f"0..{cfg.seeds - 1}{where}"
  )
  _common.write("compare", f"{text}\n{report.markdown(summary)}\n", cfg.smoke)


if __name__ == "__main__":
  main()
