"""The panel: eight real sets at default settings, beside logistic regression and the best single modality.

Claim: none of ours. Do the defaults of `mmfuse compare` see what a linear model sees, and does fusing the
  modalities lose nothing to the best of them, on sets that were chosen before the defaults were?
Command: python -m experiments.panel                  (all sets, an hour on 2 cores, a third is emoji)
         python -m experiments.panel --part mfeat     (one set; the page is made of those that are there)
         python -m experiments.panel --smoke          (one set, half a minute)
  An interrupted run goes on where it stopped: the same command again. Needs the files of docs/decisions.md
  ("the panel") in --data-dir or $MMFUSE_DATA_DIR.
Expected: `uniform` at least `linear` and at least the best single modality chosen on validation, both less
  one point or one test row, or within the paired interval ("holds"); "without slack" says where it is so
  without the point.
Results: experiments/results/panel.md; experiments/results/panel_before.csv holds the figures of the
  defaults before (30 epochs, batch 64, the remainder of an epoch dropped, means over all positions).
"""

import csv
import dataclasses
import json
import os
import pathlib
import statistics
import tempfile
from typing import Any

import tyro

from experiments import _common
from mmfuse import protocol, report

METHODS = ("unimodal", "late_average", "joint", "uniform", "mmpareto")
BEFORE = _common.RESULTS / "panel_before.csv"
# {set: (source, what differs from `mmfuse compare --data SOURCE`)}; a source in capitals is a file.
SETS: dict[str, tuple[str, dict[str, Any]]] = {
  "watch_imu": ("watch_imu", {}),
  "digits": ("digits", {}),
  "mfeat": ("mfeat.npz", {}),
  "nutrimouse": ("nutrimouse.npz", {"folds": 5, "seeds": 2}),
  "basic_motions": ("basic_motions.npz", {}),
  "emoji": ("emoji", {}),
  "wikipedia": ("wikipedia", {}),
  "av_mnist": ("av_mnist", {"train_size": 2000}),
}


@dataclasses.dataclass(frozen=True)
class Config:
  part: str | None = None
  """One of the sets; default: all of them."""
  seeds: int = 5
  """Of each set but nutrimouse (5 folds x 2)."""
  data_dir: str | None = None
  """Where the files lie; default $MMFUSE_DATA_DIR."""
  out: str = "results/panel"
  """Where the runs are kept and continued."""
  smoke: bool = False


def compare(name: str, cfg: Config, out: pathlib.Path) -> report.Summary:
  """One set at default settings, continued where it was begun."""
  source, options = SETS[name]
  folder = cfg.data_dir or os.environ.get("MMFUSE_DATA_DIR")
  if source.endswith(".npz"):
    source = str(pathlib.Path(folder or ".") / source)
  return protocol.run(
    protocol.Compare(
      data=source,
      data_dir=folder,
      methods=("unimodal", "joint", "uniform") if cfg.smoke else METHODS,
      out=str(out / name),
      resume=(out / name / "run.json").is_file(),
      smoke=cfg.smoke,
      **{"seeds": cfg.seeds, **options},
    ),
    command=f"python -m experiments.panel --part {name}",
  )


@dataclasses.dataclass(frozen=True)
class Verdict:
  """How `uniform` stands on a set, in points of the primary score."""

  name: str
  uniform: report.Estimate
  linear: float
  single: str  # the best unimodal row by validation
  over_linear: report.Difference | None
  over_single: report.Difference | None
  slack: float  # one point or one test row
  linear_loses: bool  # by fusing: linear/<m> of a modality is above linear
  edges: int  # rows marked (edge)

  def holds(self, slack: float) -> bool:
    """Both comparisons less `slack`, or the first where a linear model loses by fusing as well."""
    return reaches(self.over_linear, -slack) and (
      self.linear_loses or reaches(self.over_single, -slack)
    )


def reaches(d: report.Difference | None, least: float) -> bool:
  """Whether a difference is at least `least`, or its interval reaches that."""
  return d is not None and d.mean + (d.half or 0.0) >= least - 1e-9


def by_unit(records: list[dict], method: str, split: str = "test") -> dict[tuple, float]:
  """{(fold, seed): fused score}."""
  return {
    (r["fold"], r["seed"]): r[split]["fused"]
    for r in records
    if r["method"] == method and r[split]["fused"] is not None
  }


def paired(mine: dict[tuple, float], other: dict[tuple, float]) -> report.Difference | None:
  """mine - other over the fold where there are folds, else the seed."""
  units: dict[Any, list[float]] = {}
  for fold, seed in sorted(set(mine) & set(other), key=str):
    units.setdefault(seed if fold is None else fold, []).append(
      mine[fold, seed] - other[fold, seed]
    )
  means = [statistics.mean(v) for v in units.values()]
  return report.paired(means, [0.0] * len(means))


def verdict(name: str, folder: pathlib.Path) -> Verdict:
  """From the files of a finished run."""
  records = report.read_jsonl(folder / "results.jsonl")
  lines = json.loads((folder / "baselines.json").read_text())
  scores = lambda line: {b["fold"]: b["test"] for b in lines if b["name"] == line}
  mine, linear = by_unit(records, "uniform"), scores("linear")
  singles = sorted({r["method"] for r in records if r["method"].startswith("unimodal/")})
  single = max(singles, key=lambda m: statistics.mean(by_unit(records, m, "validation").values()))
  alone = [scores(b["name"]) for b in lines if b["name"].startswith("linear/")]
  mean = lambda found: statistics.mean(v for v in found.values() if v is not None)
  rows = statistics.mean(b["rows"]["test"] for b in lines if b["name"] == "linear")
  marked = {r["method"] for r in records if r["tuning"]["edge"]}
  return Verdict(
    name,
    report.estimate(list(mine.values())),
    mean(linear),
    single,
    paired(mine, {k: linear[k[0]] for k in mine}),
    paired(mine, by_unit(records, single)),
    max(0.01, 1.0 / rows),
    any(mean(a) > mean(linear) for a in alone if a),
    len(marked),
  )


def before() -> dict[str, str]:
  """{set: what `uniform` scored with the defaults before}."""
  if not BEFORE.is_file():
    return {}
  with BEFORE.open() as file:
    return {r["set"]: r["uniform"] for r in csv.DictReader(file)}


def overview(verdicts: list[Verdict]) -> str:
  """One line a set."""
  old, points = before(), lambda d: _common.figure(d, "+", 100)
  lines = [
    [
      v.name,
      old.get(v.name, "n/a"),
      _common.figure(v.uniform, scale=100),
      f"{100 * v.linear:.1f}",
      points(v.over_linear),
      v.single.removeprefix("unimodal/"),
      points(v.over_single),
      "linear loses by fusing" if v.linear_loses else "",
      v.edges,
      *("yes" if v.holds(slack) else "no" for slack in (v.slack, 0.0)),
    ]
    for v in verdicts
  ]
  header = ["set", "uniform before", "uniform", "linear", "uniform less linear", "best single"]
  header += ["uniform less it", "remark", "(edge)", "holds", "without slack"]
  return _common.table(header, lines)


def page(cfg: Config, out: pathlib.Path) -> str:
  """All sets that are there."""
  done = [n for n in SETS if (out / n / "baselines.json").is_file()]
  verdicts = [verdict(n, out / n) for n in done]
  text = _common.heading(
    "# panel: default settings on eight real sets",
    "python -m experiments.panel",
    f"0..{cfg.seeds - 1} of one split (nutrimouse: 0..1 in each of 5 folds)",
  )
  tables = [f"\n## {n}\n\n{(out / n / 'table.md').read_text()}" for n in done]
  return (
    f"{text}\nTest accuracy in percent, mean ± half-width of the 95 % interval; differences in "
    "points, paired. `linear`: logistic regression on all modalities side by side. best single: of "
    "the `unimodal` rows, by validation. A set on which a single modality's linear line is above "
    "`linear` is named; there `uniform` need not reach the best single modality. holds: `uniform` is at "
    "least `linear` and at least the best single modality, both less one point (or one test row), or "
    "its paired interval reaches that; without slack: the same without the point.\n\n"
    f"{overview(verdicts)}\n" + "".join(tables)
  )


def main(argv=None) -> None:
  """Runs the sets asked for and writes the page of all that are there."""
  cfg = tyro.cli(Config, args=argv)
  if cfg.part is not None and cfg.part not in SETS:
    raise SystemExit(f"unknown part {cfg.part!r}; there are {', '.join(SETS)}")
  with tempfile.TemporaryDirectory() as scratch:
    out = pathlib.Path(scratch if cfg.smoke else cfg.out)
    for name in [cfg.part] if cfg.part else ["digits"] if cfg.smoke else SETS:
      compare(name, cfg, out)
    _common.write("panel", page(cfg, out), cfg.smoke)


if __name__ == "__main__":
  main()
