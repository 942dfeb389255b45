"""Every balancing method through four data sets under one protocol: intervals, diagnostics, cost.

Claim: none of ours. Which published rules differ from the plain sum of the losses (`uniform`) beyond noise
  when every row gets the same search, the same examples and a sealed test split, where, and at what cost?
Command: python -m experiments.balance_benchmark --data watch_imu   (one data set; at most an hour on 2 cores)
         python -m experiments.balance_benchmark --data synthetic_1   (likewise synthetic_2, av_mnist)
         python -m experiments.balance_benchmark --page               (the tables of all four on one page)
         python -m experiments.balance_benchmark --data av_mnist --full   (55,000 examples; an accelerator)
         python -m experiments.balance_benchmark --smoke              (a minute)
  An interrupted run goes on where it stopped: the same command again.
Expected: few rows beyond noise from `uniform`, more of them below it than above; on synthetic_2 most rules
  far above `joint`.
Results: experiments/results/balance_<data>.md and experiments/results/balance_benchmark.md.
"""

import csv
import dataclasses
import pathlib
import statistics
import tempfile
from typing import Any, Literal

import tyro

from experiments import _common
from mmfuse import metrics, protocol, report

PUBLISHED = pathlib.Path(__file__).parent / "published" / "balance_benchmark.csv"


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a data set gets; `full` replaces entries of `quick`."""

  quick: dict[str, Any]
  full: dict[str, Any]


# One trial seed outside watch_imu halves the search; the rates stay three.
SETS = {
  "watch_imu": Setting({"epochs": 30, "trial_seeds": 2}, {"folds": 5, "seeds": 2}),
  "synthetic_1": Setting({"epochs": 25, "trial_seeds": 1}, {"seeds": 10, "trial_seeds": 2}),
  "synthetic_2": Setting({"epochs": 15, "trial_seeds": 1}, {"seeds": 10, "trial_seeds": 2}),
  "av_mnist": Setting(
    {
      "epochs": 10,
      "trial_seeds": 1,
      "train_size": 2000,
      "encoder": (
        "audio=lenet",
        "image=lenet",
      ),  # as the AV-MNIST papers; a tenth of the default's time
    },
    {"epochs": 30, "trial_seeds": 2, "train_size": None},
  ),
}


@dataclasses.dataclass(frozen=True)
class Config:
  data: Literal["watch_imu", "synthetic_1", "synthetic_2", "av_mnist"] = "watch_imu"
  methods: tuple[str, ...] = ("baselines", "late_average", "balancing")
  """As in `mmfuse compare`; more may join an unfinished or finished run."""
  seeds: int = 5
  out: str | None = None
  """Where the run is kept and continued; default: results/balance_<data>."""
  full: bool = False
  """Full-size data, more seeds or folds: hours on a CPU."""
  page: bool = False
  """Only write the page from the tables that are there."""
  smoke: bool = False


def options(cfg: Config) -> dict[str, Any]:
  """What the protocol is asked for."""
  setting = SETS[cfg.data]
  return {"seeds": cfg.seeds, **setting.quick, **(setting.full if cfg.full else {})}


def compare(cfg: Config, out: str) -> report.Summary:
  """One data set under the shared protocol, continued where it was begun."""
  return protocol.run(
    protocol.Compare(
      data=cfg.data,
      methods=("default",) if cfg.smoke else cfg.methods,
      out=out,
      resume=(pathlib.Path(out) / "run.json").is_file(),
      probe=True,
      smoke=cfg.smoke,
      **options(cfg),
    ),
    command=f"python -m experiments.balance_benchmark --data {cfg.data}{' --full' * cfg.full}",
  )


def diagnostics(records: list[dict]) -> str:
  """Per row, means over its runs: Shapley values and their range, probes, conflict rates; in percent."""
  names = sorted({m for r in records for m in r["shapley"]})

  def mean(rows: list[dict], field: str, m: str) -> str:
    found = [r[field][m] for r in rows if m in r.get(field, {})]
    return f"{100 * statistics.mean(found):.1f}" if found else "n/a"

  def spread(rows: list[dict]) -> str:
    found = [metrics.imbalance(r["shapley"]) for r in rows if r["shapley"]]
    return f"{100 * statistics.mean(found):.1f}" if found else "n/a"

  lines = []
  for method in dict.fromkeys(r["method"] for r in records):
    rows = [r for r in records if r["method"] == method]
    cells = [mean(rows, f, m) for f in ("shapley", "probe", "conflict_rate") for m in names]
    lines.append([method, *cells[: len(names)], spread(rows), *cells[len(names) :]])
  header = [f"{what} {m}" for what in ("Shapley", "probe", "conflict") for m in names]
  return _common.table(["method", *header[: len(names)], "imbalance", *header[len(names) :]], lines)


def write_tables(cfg: Config, summary: report.Summary, records: list[dict]) -> None:
  """experiments/results/balance_<data>.md and .csv."""
  name = f"balance_{cfg.data}" + "_full" * cfg.full
  seeds = options(cfg)["seeds"]
  text = _common.heading(
    f"# balance_benchmark: {cfg.data}", summary.info["command"], f"0..{seeds - 1}"
  )
  text += f"\n{report.markdown(summary)}\n## Diagnostics of the test rows, percent\n\n"
  text += f"{diagnostics(records)}\n"
  text += (
    "\nShapley: of each modality in the fused accuracy, over all subsets of modalities; imbalance: their "
    "range; probe: accuracy of a linear head fitted to the frozen features of the training rows; conflict: "
    "share of ten epochs a run in which the fused and the own gradient of an encoder disagree in sign, "
    "whatever the method minimises.\n"
  )
  _common.write(name, text, cfg.smoke)
  if not cfg.smoke:
    (_common.RESULTS / f"{name}.csv").write_text(report.csv(summary))


def _cell(row: dict[str, str]) -> str:
  """Difference to `uniform` in points."""
  if row.get("unavailable"):
    return "n/a"
  if not row["vs_uniform"]:
    return "baseline" if row["method"] == "uniform" else "n/a"
  half = 100 * (float(row["vs_uniform_high"]) - float(row["vs_uniform_low"])) / 2
  star = "*" if row["vs_uniform_significant"] == "True" else ""
  points = round(100 * float(row["vs_uniform"]), 1) + 0.0  # no minus zero
  return f"{points:+.1f} ± {half:.1f}{star}"


def page() -> str:
  """All data sets side by side: the difference to `uniform`, and the cost."""
  tables = {}
  for data in SETS:
    path = _common.RESULTS / f"balance_{data}.csv"
    if path.is_file():
      with path.open() as file:
        tables[data] = {r["method"]: r for r in csv.DictReader(file)}
  if not tables:
    raise SystemExit(
      "no tables yet: run python -m experiments.balance_benchmark --data watch_imu first"
    )
  names = list(dict.fromkeys(m for rows in tables.values() for m in rows if "/" not in m))
  lines = [
    [m, *(_cell(rows[m]) if m in rows else "n/a" for rows in tables.values()), _cost(m, tables)]
    for m in names
    if not m.startswith((report.CONSTANT, report.LINEAR))
  ]
  parts = [
    "# balance_benchmark: every method on every data set\n",
    "Written by `python -m experiments.balance_benchmark --page` from balance_<data>.csv; command, date, "
    "versions and seeds stand in balance_<data>.md. What the numbers say is in "
    "[docs/balance.md](../../docs/balance.md).\n",
    "Test accuracy less that of `uniform`, in points: mean ± half-width of the paired 95 % t interval; "
    "* = beyond noise (Holm-adjusted p < .05 over the rows of the data set). Step: time of a step over that "
    "of `joint`, median of the data sets.\n",
    _common.table(["method", *tables, "step"], lines),
    *(_sentence(data, rows) for data, rows in tables.items()),
    "\n## Context: a published table, on other data and under another protocol\n",
    "Accuracy/macro F1 in percent as printed for the BalanceBenchmark survey (arXiv 2502.10816): other data, "
    "encoders, optimiser and selection, one seed, no intervals. Nothing above is comparable with it; our "
    "rows do not reproduce it.\n",
    published(),
  ]
  return "\n".join(parts)


def _cost(method: str, tables: dict[str, dict]) -> str:
  found = [t[method].get("relative_step_time") for t in tables.values() if method in t]
  times = [float(x) for x in found if x]
  return f"{statistics.median(times):.2f}x" if times else "n/a"


def _sentence(data: str, rows: dict[str, dict[str, str]]) -> str:
  """Which rows differ from uniform beyond noise."""
  beyond = [r for r in rows.values() if r.get("vs_uniform_significant") == "True"]
  above = [r["method"] for r in beyond if float(r["vs_uniform"]) > 0]
  below = [r["method"] for r in beyond if float(r["vs_uniform"]) < 0]
  say = lambda found: ", ".join(found) or "none"
  return f"\n- {data}: beyond noise above `uniform`: {say(above)}; below: {say(below)}."


def published() -> str:
  """The table of the survey, with our names where the method is in the index."""
  with PUBLISHED.open() as file:
    header, *rows = list(csv.reader(file))
  return _common.table(header, rows)


def main(argv=None) -> None:
  """Runs one data set and writes its tables, or writes the page."""
  cfg = tyro.cli(Config, args=argv)
  if cfg.page:
    _common.write("balance_benchmark", page(), cfg.smoke)
    return
  with tempfile.TemporaryDirectory() as scratch:
    out = cfg.out or (
      f"{scratch}/run" if cfg.smoke else f"results/balance_{cfg.data}" + "_full" * cfg.full
    )
    summary = compare(cfg, out)
    write_tables(cfg, summary, report.read_jsonl(pathlib.Path(out) / "results.jsonl"))


if __name__ == "__main__":
  main()
