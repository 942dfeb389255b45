"""DIBS: are heads that a discriminator can tell apart more diverse, and is that worth anything?

Claims (paper): (1) heads under the adversary disagree more than heads that merely share a trunk, at no cost
  in accuracy; (2) they tell foreign pictures from digits, and stay right on shifted digits.
Paper: Sinha et al., AAAI 2021. Its tables were not seen and there is no code: the abstract's 10 % (relative)
  in accuracy, 5 % under shift and 5 % in OOD detection are of larger sets. Paper columns: n/a.
Command: python -m experiments.dibs --part joint             (each part: under 10 minutes on 2 cores)
         python -m experiments.dibs --part shared_trunk
         python -m experiments.dibs --part deep_ensemble
         python -m experiments.dibs --part dibs
         python -m experiments.dibs --smoke                  (seconds, blobs and tones, all parts)
         python -m experiments.dibs --full --part dibs       (30 epochs, 10 seeds)
  A part joins the rows that stand in --out, and the page shows all that are there. MNIST, emoji.npz and the
  spoken digits are read from $MMFUSE_DATA_DIR.
Rows: `joint`, one network; shared_trunk, K = 4 stochastic heads without adversary; deep_ensemble, four
  networks; dibs, whose prediction is the modal class of its heads. Rates are chosen on validation rows.
Expected: dibs disagrees more than shared_trunk; accuracy within a point; OOD AUROC of deep_ensemble at
  least that of one network.
Results: experiments/results/dibs.md, experiments/results/dibs.png.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Literal

import tyro

from experiments import _common, _dibs_data
from experiments._dibs_data import FOREIGN, SHIFTS
from mmfuse import protocol, report
from mmfuse.report import _figure

ROWS = ("joint", "shared_trunk", "deep_ensemble", "dibs")
WORDS = {"joint": "joint (one network)"}
Scores = Mapping[int, float]  # {seed: value}


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["all", "joint", "shared_trunk", "deep_ensemble", "dibs"] = "all"
  """Which row is trained."""
  seeds: int | None = None
  """Default 5, with --full 10."""
  out: str = "results/dibs"
  """Where runs are kept; another part goes on there."""
  data_dir: str | None = None
  """Where the files lie; default $MMFUSE_DATA_DIR."""
  full: bool = False
  smoke: bool = False


def compared(cfg: Config) -> list[dict]:
  """The records of all rows that are complete."""
  folder = pathlib.Path(cfg.out)
  options: dict = {"seeds": cfg.seeds or (10 if cfg.full else 5), "epochs": 30 if cfg.full else 10}
  if cfg.smoke:
    few = tuple(f"{row}.members=2" for row in ROWS[1:] if cfg.part in ("all", row))
    options = {"seeds": 2, "epochs": 1, "tune": 1, "batch_size": 32}
    options |= {"set": few, "encoder": ("image=linear",)}
  asked = protocol.Compare(
    methods=ROWS if cfg.part == "all" else (cfg.part,),
    scale=("image=raw",),
    out=str(folder),
    resume=(folder / "run.json").exists(),
    **options,
  )
  command = _common.command("dibs", cfg)
  protocol.run(asked, command=command, table=_dibs_data.table(cfg.data_dir, cfg.smoke))
  return report.read_jsonl(folder / "results.jsonl")


def scores(records: list[dict], row: str, of: Callable[[dict], float | None]) -> Scores:
  """{seed: value} of a row, of the runs that have it."""
  found = {r["seed"]: of(r) for r in records if r["method"] == row}
  return {seed: v for seed, v in found.items() if v is not None}


def part(name: str) -> Callable[[dict], float | None]:
  """A score of the further parts."""
  return lambda record: record["parts"].get(name)


def test(name: str) -> Callable[[dict], float | None]:
  """A score of the test rows."""
  return lambda record: record["scores"]["test"].get(name)


Columns = dict[str, tuple[Callable[[dict], float | None], float]]  # {heading: (score, factor)}
MAIN: Columns = {
  "accuracy": (test("accuracy"), 100),
  "a member's accuracy": (part("member_accuracy"), 100),
  "disagreement": (part("disagreement"), 100),
  "NLL": (test("nll"), 1),
}
AUROC: Columns = {
  **{name: (part(f"ood_auroc/{i}"), 100) for i, name in enumerate(FOREIGN)},
  "all": (part("ood_auroc"), 100),
}
SHIFT: Columns = {
  f"{score}, {name}": (part(f"shifted_{score}/{i}"), 1 if score == "nll" else 100)
  for i, name in enumerate(SHIFTS)
  for score in ("accuracy", "nll", "ece")
}


def figure(found, scale: float, sign: str = "") -> str:
  """As `_common.figure`; two decimals of what is not in percent."""
  if scale != 1 or found is None:
    return _common.figure(found, sign, scale)
  half = "" if found.half is None else f" ± {found.half:.2f}"
  return f"{found.mean:{sign}.2f}{half}"


def table(records: list[dict], columns: Columns) -> str:
  """The rows that are there, and dibs less each other one, paired by seed."""
  here = [row for row in ROWS if any(r["method"] == row for r in records)]
  lines = []
  for row in here:
    cells = [
      figure(report.estimate(list(scores(records, row, of).values())), scale)
      for of, scale in columns.values()
    ]
    lines.append([WORDS.get(row, row), *cells])
  for other in here if "dibs" in here else []:
    if other != "dibs":
      cells = [difference(records, other, of, scale) for of, scale in columns.values()]
      lines.append([f"dibs less {other}", *cells])
  return _common.table(["row", *columns], lines)


def difference(records: list[dict], other: str, of, scale: float) -> str:
  """dibs less another row."""
  ours, theirs = (scores(records, row, of) for row in ("dibs", other))
  seeds = sorted(set(ours) & set(theirs))
  return figure(report.paired([ours[s] for s in seeds], [theirs[s] for s in seeds]), scale, "+")


def picture(records: list[dict], path: pathlib.Path) -> None:
  """OOD AUROC of every row and kind, with intervals."""
  drawing = _figure.new_figure(7.0, 3.6)
  axes = drawing.add_subplot()
  here = [row for row in ROWS if any(r["method"] == row for r in records)]
  width = 0.8 / len(here)
  for i, row in enumerate(here):
    found = [report.estimate(list(scores(records, row, of).values())) for of, _ in AUROC.values()]
    axes.bar(
      [x + (i - (len(here) - 1) / 2) * width for x in range(len(found))],
      [100 * e.mean if e else 0.0 for e in found],
      width,
      yerr=[100 * (e.half or 0.0) if e else 0.0 for e in found],
      color=_figure.COLOURS[i],
      label=WORDS.get(row, row),
      error_kw={"linewidth": 0.8},
    )
  axes.set_xticks(range(len(AUROC)), list(AUROC), fontsize=8)
  axes.axhline(50, color=_figure.INK, linewidth=0.7)
  axes.set_ylabel("AUROC against test digits (%)", fontsize=9, color=_figure.INK)
  _figure.tidy(axes)
  drawing.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
  _figure.save(drawing, path)


EXPLAINED = """
Mean ± half-width of the 95 % t interval over seeds (initialisation and batches; rows are the same),
differences paired by seed; percent and points, NLL in nats. Accuracy is of the row's own prediction (dibs:
modal class), and so is the NLL of test rows (dibs: shares of votes). Under shift and against foreign
pictures, NLL, ECE and entropy are of the mean probabilities of the members, for all rows alike. Foreign
pictures: emoji in grey, digits under one fixed permutation of pixels, spectrograms of spoken digits.
Shifts: turned by 15 to 45 degrees, noise of standard deviation .3, contrast .4. Paper: n/a.
"""


def page(records: list[dict], command: str) -> str:
  """All tables."""
  rates = {r["method"]: r["learning_rate"] for r in records}
  seeds = sorted({r["seed"] for r in records})
  heading = _common.heading(
    "# dibs: disagreement, shifted digits and foreign pictures", command, f"{seeds[0]}..{seeds[-1]}"
  )
  chosen = ", ".join(f"{row} {rate:g}" for row, rate in rates.items())
  tables = [
    f"## {t}\n\n{table(records, c)}"
    for t, c in (
      ("Test digits", MAIN),
      ("AUROC of foreign pictures", AUROC),
      ("Shifted digits", SHIFT),
    )
  ]
  return "\n".join(
    [heading, EXPLAINED, f"Learning rates chosen on validation rows: {chosen}.\n"]
  ) + ("\n" + "\n\n".join(tables) + "\n")


def run(cfg: Config) -> None:
  """Trains a part; the page and the picture of all that are there."""
  records = compared(cfg)
  here = [row for row in ROWS if any(r["method"] == row for r in records)]
  parts = [cfg] if cfg.part == "all" else [dataclasses.replace(cfg, part=row) for row in here]
  command = " && ".join(_common.command("dibs", c) for c in parts)
  _common.write("dibs", page(records, command), cfg.smoke)
  picture(records, (pathlib.Path(cfg.out) if cfg.smoke else _common.RESULTS) / "dibs.png")


def main(argv=None) -> None:
  """The command line."""
  cfg = tyro.cli(Config, args=argv)
  if not cfg.smoke:
    run(cfg)
    return
  with tempfile.TemporaryDirectory() as folder:
    run(dataclasses.replace(cfg, out=f"{folder}/run"))


if __name__ == "__main__":
  main()
