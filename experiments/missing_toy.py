"""A batch-norm trunk on three noisy views of digits: what each way to train for missing views is worth.

Claims: (1) with this network, which never saw a zero in training, modality dropout is worth more than ten
  points on the mean over the seven subsets; (2) what is built on it (prior matching and the loss of hard
  combinations of DMRNet, the distillation of MMANet, ShaSpec) is worth points or nothing, and a
  larger learning rate as much.
Sources: DMRNet (Wei et al., ECCV 2024), MMANet (Wei et al., CVPR 2023), ShaSpec (Wang et al., CVPR 2023),
  none of which has this table: paper n/a. "on record" are earlier runs of another program, 6 seeds.
Command: python -m experiments.missing_toy             (10 seeds, under 10 minutes on 2 cores)
         python -m experiments.missing_toy --smoke     (seconds, 4 rows)
         python -m experiments.missing_toy --rows dropout prior     (some rows)
Expected: joint 48-57, dropout 62-69, dropout at least 10 above joint beyond noise. The other differences
  are printed, whatever their sign.
Results: experiments/results/missing_toy.md
"""

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import tyro

from experiments import _common
from experiments import _missing_toy as toy
from mmfuse import report, train
from mmfuse.methods.missing._custom import pattern
from mmfuse.protocol._config import cores

# Row less row, on the mean over subsets.
CONTRASTS = (
  ("dropout", "joint"),
  ("uniform", "joint"),
  ("mean_fill", "joint"),
  ("prior", "dropout"),
  ("hcr_intended", "prior"),
  ("hcr_released", "prior"),
  ("hcr_by_loss", "hcr_intended"),
  ("mad", "dropout"),
  ("dropout_fast", "joint_fast"),
  ("dropout_fast", "dropout"),
  ("prior_fast", "prior"),
  ("prior_fast", "dropout_fast"),
  ("hcr_intended_fast", "prior_fast"),
  ("hcr_released", "prior_fast"),
  ("shaspec", "joint"),
  ("shaspec", "dropout"),
  ("shaspec", "dropout_wide"),
  ("shaspec", "shaspec_structure"),
  ("shaspec_specific", "shaspec"),
  ("dropout_wide", "dropout"),
  ("custom", "dropout"),
)
BARS = {"joint": (48, 57), "dropout": (62, 69)}
GAP = 10
SMOKE = ("joint", "dropout", "hcr_intended", "mad")


@dataclasses.dataclass(frozen=True)
class Config:
  rows: tuple[str, ...] = tuple(toy.ROWS)
  """Of the table."""
  seeds: int = 10
  epochs: int = 60
  """Of every phase."""
  smoke: bool = False


def run(cfg: Config) -> dict[str, toy.Trained]:
  """{row: its runs}, as many methods at a time as there are cores."""
  unknown = sorted(set(cfg.rows) - set(toy.ROWS))
  if unknown:
    raise ValueError(f"no row {unknown[0]!r}; there are: {', '.join(toy.ROWS)}")

  def one(names):
    method, found = toy.build(toy.ROWS[names[0]]), {}
    for name in names:
      found[name] = toy.run(method, toy.ROWS[name], cfg.seeds, cfg.epochs, cfg.smoke)
      print(f"{name}: {_common.interval(found[name].means)}", flush=True)
    return found

  with ThreadPoolExecutor(cores()) as pool:
    parts = list(pool.map(one, toy.programs(cfg.rows)))
  every = {name: each for found in parts for name, each in found.items()}
  return {name: every[name] for name in cfg.rows}


def scores_table(found: Mapping[str, toy.Trained]) -> str:
  """Each row on each subset; size and cost of a step beside it."""
  rows = []
  first = next(iter(found.values()))
  for name, each in found.items():
    row = toy.ROWS[name]
    rows.append(
      [
        name,
        row.rate,
        row.recorded or "n/a",
        _common.interval(each.means),
        *(f"{mean:.1f}" for mean in each.scores.mean(0)),
        f"{each.parameters / 1000:.1f}k",
        f"{each.flops / first.flops:.1f}x",
      ]
    )
  patterns = [pattern(s, toy.NAMES) for s in toy.SUBSETS]
  header = ["row", "rate", "on record", "mean", *patterns, "parameters", "FLOPs"]
  return _common.table(header, rows)


def contrasts(found: Mapping[str, toy.Trained]) -> dict[tuple[str, str], report.Difference]:
  """{(row, row): the paired difference of means over subsets}, Holm over all of them."""
  pairs = [pair for pair in CONTRASTS if set(pair) <= set(found)]
  every = {(a, b): report.paired(found[a].means, found[b].means) for a, b in pairs}
  told = {f"{a} less {b}": d.p for (a, b), d in every.items() if d is not None and d.p is not None}
  adjusted = report.holm(told)
  return {
    (a, b): d._replace(p_holm=adjusted.get(f"{a} less {b}"))
    for (a, b), d in every.items()
    if d is not None
  }


def contrasts_table(every: Mapping[tuple[str, str], report.Difference]) -> str:
  """A line a difference."""
  lines = [
    (f"{a} less {b}", _common.figure(d, "+") + "*" * d.significant) for (a, b), d in every.items()
  ]
  return _common.table(("mean over subsets, points", "difference"), lines)


def verdict(
  found: Mapping[str, toy.Trained], every: Mapping[tuple[str, str], report.Difference]
) -> str:
  """Whether the three numbers that were expected came out."""
  lines = []
  for name, (low, high) in BARS.items():
    if name in found:
      mean = report.estimate(found[name].means).mean
      lines.append((name, f"{low}-{high}", f"{mean:.1f}", "yes" if low <= mean <= high else "no"))
  gap = every.get(("dropout", "joint"))
  if gap is not None:
    met = gap.mean >= GAP and gap.significant
    said = _common.figure(gap, "+")
    lines.append(
      ("dropout less joint", f"at least {GAP}, beyond noise", said, "yes" if met else "no")
    )
  return _common.table(("", "expected", "found", "met"), lines)


def hard_table(found: Mapping[str, toy.Trained]) -> str:
  """In how many runs each combination was found hard."""
  rows = [[name, *each.hard.astype(int)] for name, each in found.items() if each.hard is not None]
  return _common.table(["row", *(pattern(s, toy.NAMES) for s in toy.SUBSETS)], rows)


def page(cfg: Config, found: Mapping[str, toy.Trained], command: str) -> str:
  """All tables."""
  every, splits = contrasts(found), toy.make_data(0, cfg.smoke)
  return "\n".join(
    [
      _common.heading(
        "# missing_toy: a batch-norm trunk, trained for missing views",
        command,
        f"0..{cfg.seeds - 1}: noise, initialisation, batches and what is dropped; shared by all rows",
      ),
      f"Digits, {len(splits.train)} training and {len(splits.test)} test rows: A left half, B right half, C "
      "pooled, noise .15, .45, .35, new with every seed. Encoders 64-BN-ReLU-32, all side by side, "
      "64-BN-ReLU, linear head (DMRNet: 64-BN, mean and variance, in the place of 64-BN-ReLU). SGD, Nesterov "
      f"momentum .9, decay 5e-4, x .1 from 75 % on, batch {toy.BATCH}, {cfg.epochs} epochs a phase, the last "
      "one counts: no validation rows, nothing is chosen. The rate is the same for all rows but those called "
      "`_fast`, and a difference at one rate may be a difference of rates.\n",
      verdict(found, every),
      "\n## Test accuracy in percent\n\nmean: over the seven subsets, ± half-width of the 95 % t interval "
      f"over {cfg.seeds} seeds; on record: the same, ± the standard deviation over 6 seeds of another "
      "program. Subsets in the order A, B, C. Paper: n/a. `mad` has a teacher, and so two phases. FLOPs: "
      f"of a step as it is written, over {next(iter(found))}.\n\n{scores_table(found)}\n",
      "## Paired differences\n\nPoints on the mean over subsets, ± half-width of the paired 95 % t interval; "
      f"* = beyond noise (Holm-adjusted p < .05 over this table).\n\n{contrasts_table(every)}\n",
      "## Which combinations were found hard\n\nIn how many of the runs, three each. By variance: those "
      f"with the largest mean sigma^2 in the warm-up; by_loss: with the largest CE.\n\n{hard_table(found)}",
    ]
  )


def main(argv=None) -> None:
  """Trains the rows and writes the page."""
  cfg = tyro.cli(Config, args=argv)
  command = _common.command("missing_toy", cfg)
  train.enable_compilation_cache()
  if cfg.smoke:
    rows = SMOKE if cfg.rows == Config.rows else cfg.rows
    cfg = dataclasses.replace(cfg, rows=rows, seeds=2, epochs=2)
  _common.write("missing_toy", page(cfg, run(cfg), command), cfg.smoke)


if __name__ == "__main__":
  main()
