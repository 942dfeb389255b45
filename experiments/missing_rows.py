"""Five ways to train for missing modalities beside `joint`: every difference to modality dropout, paired.

Claim (ShaSpec): a shared and a specific encoder per modality beat one. Its sets are not here: paper n/a.
  Wang et al., Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling, CVPR 2023.
Command: python -m experiments.missing_rows                     (digits, 5 seeds, 5 minutes on 2 cores)
         python -m experiments.missing_rows --data watch_imu    (10 minutes)
         python -m experiments.missing_rows --data av_mnist     (2,000 rows, 3 seeds, a quarter of an hour)
         python -m experiments.missing_rows --smoke             (half a minute)
  The rows are those of `mmfuse compare --missing --methods joint,uniform,dropout,shaspec,dmrnet,mmanet`, and
  `dropout_wide`: dropout with encoders twice as wide, for ShaSpec has two of each. On watch_imu
  and av_mnist the search has one trial seed a rate, not the two of `compare`.
Expected: shaspec above joint with an interval clear of 0 on the mean over subsets (of av_mnist the budget is
  too short to tell), as every row that drops modalities; at most three points from dropout.
Results: experiments/results/missing_rows_<data>.md
"""

import dataclasses
from typing import Any, Literal

import tyro

from experiments import _common, _wider
from experiments._contrasts import contrast_table
from mmfuse import report

ROWS = ("joint", "uniform", "dropout", "shaspec", "dmrnet", "mmanet")
WIDE = "dropout_wide"
PAIRS = (
  *((row, "dropout") for row in (*ROWS, WIDE) if row != "dropout"),
  ("shaspec", "joint"),
  ("shaspec", WIDE),
)
SETTINGS: dict[str, dict[str, Any]] = {
  "digits": {"seeds": 5},
  "watch_imu": {"seeds": 5, "trial_seeds": 1},
  "av_mnist": {"seeds": 3, "trial_seeds": 1, "epochs": 10, "train_size": 2000},
}


@dataclasses.dataclass(frozen=True)
class Config:
  data: Literal["digits", "watch_imu", "av_mnist"] = "digits"
  seeds: int | None = None
  """Default: 5, of av_mnist 3."""
  smoke: bool = False


def compare(cfg: Config) -> _common.Compared:
  """The rows under the shared protocol, chosen by the validation mean over subsets."""
  options = {**SETTINGS[cfg.data], **({} if cfg.seeds is None else {"seeds": cfg.seeds})}
  return _common.compared(
    f"missing_rows --data {cfg.data}",
    own={WIDE: _wider.dropout_wide},
    data=cfg.data,
    methods=("joint", "dropout") if cfg.smoke else ROWS,
    missing=True,
    smoke=cfg.smoke,
    **options,
  )


def main(argv=None) -> None:
  """Runs one set and writes its page."""
  cfg = tyro.cli(Config, args=argv)
  summary, records, _ = compare(cfg)
  seeds = len({r["seed"] for r in records})
  text = _common.heading(
    f"# missing_rows: {cfg.data}", summary.info["command"], f"0..{seeds - 1} of one split"
  )
  words = (
    "Rates and epochs of every row by the validation mean over subsets. Differences of test accuracy over "
    "seeds, paired, mean ± half-width of the 95 % t interval."
  )
  _common.write(
    f"missing_rows_{cfg.data}",
    f"{text}\n{words}\n\n{contrast_table(records, PAIRS)}\n\n{report.markdown(summary)}\n",
    cfg.smoke,
  )


if __name__ == "__main__":
  main()
