"""A combination of modalities at test that no training row has: what adding up common slots is worth.

Claims (paper): trained on parts with disjoint modalities, (1) a fusion that adds modalities up in common
  slots beats late fusion of uni-modal models on the unseen combination; (2) pseudo-labels and the alignment
  add to it.
Source: Zhang, Doughty, Snoek, "Learning Unseen Modality Interaction", NeurIPS 2023. Its sets (EPIC-Kitchens,
  MSR-VTT, a robot's sensors) are not here: paper n/a. A public reproduction on MSR-VTT saw no effect of (2).
Command: python -m experiments.unseen_interaction --part digits    (5 seeds, under 10 minutes on 2 cores)
         python -m experiments.unseen_interaction --part mfeat --data-dir DIR     (likewise; mfeat.npz in DIR)
         python -m experiments.unseen_interaction --part digits --validation complete
         python -m experiments.unseen_interaction --part digits --optimizer adam
         python -m experiments.unseen_interaction --full           (10 seeds, all rows; both parts)
         python -m experiments.unseen_interaction --smoke          (seconds, digits)
Parts: digits, two noisy halves of an image, half of the training rows have A alone and half B alone, tested
  on both; mfeat, six views of digits, {fou, fac, kar} and {mor, pix, zer} likewise, tested on all six and
  on the pairs of one view of each side. Validation rows are as training rows are, so that nothing that
  chooses has seen the combination; `--validation complete` leaks it, and the table says so.
Rows: late_average, joint (features side by side, zeros for what is absent), sum, deep_set and the method,
  each under the shared protocol; `late_tokens` is late_average on the method's own encoders of tokens,
  `unseen_label` the method without pseudo-labels and alignment, `unseen_aligned` without pseudo-labels.
Expected: joint falls behind late_average on the combination; the method is within 3 points of late_average
  on either side; (2) within noise, unless one modality is much the weaker.
Results: experiments/results/unseen_interaction.md of both parts, unseen_interaction_<part>.md of one, with
  "_complete" where validation rows are, "_adam" where every row has Adam instead of the protocol's SGD.
"""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
import tyro

from experiments import _common
from mmfuse import data, encoders, methods, report, train
from mmfuse.data import _digits
from mmfuse.data._splitting import by_class

SIDES = {  # the modalities that training rows have, one or the other
  "digits": (("A",), ("B",)),
  "mfeat": (("fac", "fou", "kar"), ("mor", "pix", "zer")),
}
FRACTIONS = (0.6, 0.2, 0.2)  # of mfeat, which has no split of its own
PARTS = ("train", "validation", "test")
SEED = 0  # of that split and of the sides
ROWS = ("late_average", "joint", "sum", "deep_set", "unseen_interaction")
BASELINES = ("late_average", "joint")


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["all", "digits", "mfeat"] = "all"
  seeds: int | None = None
  """Default 5, with --full 10."""
  validation: Literal["as training", "complete"] = "as training"
  """`complete` rows leak the combination."""
  optimizer: Literal["sgd", "adam"] = "sgd"
  """Of every row, at rates of its own."""
  full: bool = False
  """All rows, two seeds a trial."""
  data_dir: str | None = None
  """Where mfeat.npz lies; default $MMFUSE_DATA_DIR."""
  smoke: bool = False


# Rows of ours.


def late_tokens(model, learning_rate=0.03, *, tx=None):
  """Independent models of the encoders that the method has."""
  own = {m: encoders.token_encoder(e) for m, e in model.encoders.items()}
  return methods.METHODS["late_average"](
    dataclasses.replace(model, encoders=own), learning_rate, tx=tx
  )


def unseen_label(model, learning_rate=0.03, *, tx=None):
  """The method without pseudo-labels and alignment."""
  build = methods.METHODS["unseen_interaction"]
  return build(model, learning_rate, tx=tx, alpha=0.0, lam=0.0)


def unseen_aligned(model, learning_rate=0.03, *, tx=None):
  """The method without pseudo-labels."""
  return methods.METHODS["unseen_interaction"](model, learning_rate, tx=tx, alpha=0.0)


OWN = {"late_tokens": late_tokens, "unseen_label": unseen_label, "unseen_aligned": unseen_aligned}


# Data.


def sides(label: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Which side, 0 or 1, each row is on: halves of every class of `rows`, drawn once; -1 elsewhere."""
  side = np.full(len(label), -1)
  side[rows] = by_class(label[rows], (0.5, 0.5), SEED)
  return side


def disjoint(
  views: Mapping[str, Any], label: np.ndarray, split: np.ndarray, part: str, complete: bool
) -> data.Table:
  """The table in which training rows, and validation rows unless `complete`, have one side alone.

  Args:
    views: {modality: [N, D]}.
    label: int [N].
    split: [N], "train", "validation" or "test".
    part: of `SIDES`.
    complete: whether validation rows have all modalities.
  """
  masks = {m: np.ones(len(label), bool) for m in views}
  for name in PARTS[: 1 if complete else 2]:
    side = sides(label, np.flatnonzero(split == name))
    for which, of in enumerate(SIDES[part]):
      for m in of:
        masks[m][side == 1 - which] = False
  said = "; validated on complete rows" if complete else ""
  return data.table_from_arrays(
    {**views, **{f"mask_{m}": v for m, v in masks.items()}, "label": label, "split": split},
    name=f"{part}, disjoint training rows{said}",
    modalities=tuple(views),
  )


def table(cfg: Config, part: str) -> data.Table:
  """The data of a part."""
  complete = cfg.validation == "complete"
  if part == "digits":
    whole = _digits.table()
    views = {m: whole.inputs[m] for m in "AB"}
    return disjoint(views, whole.label, whole.split, part, complete)
  path = pathlib.Path(cfg.data_dir or os.environ.get("MMFUSE_DATA_DIR") or ".") / "mfeat.npz"
  if not path.is_file():
    raise SystemExit(f"--part mfeat reads {path}, which is not there; --data-dir says where it is")
  arrays = data.read_arrays(path)
  label = arrays.pop("label")
  views = {m: arrays[m] for m in sorted(itertools.chain(*SIDES[part]))}
  split = np.asarray(PARTS)[by_class(label, FRACTIONS, SEED)]
  return disjoint(views, label, split, part, complete)


# Runs and numbers.


def compare(cfg: Config, part: str) -> _common.Compared:
  """All rows under the shared protocol."""
  few = ("joint", "unseen_interaction")
  names = tuple(OWN) if cfg.full else ("late_tokens", "unseen_label")
  options: dict[str, Any] = {"trial_seeds": 2 if cfg.full else 1, "optimizer": cfg.optimizer}
  return _common.compared(
    "unseen_interaction",
    given=table(cfg, part),
    own={} if cfg.smoke else {name: OWN[name] for name in names},
    methods=few if cfg.smoke else ROWS,
    seeds=seeds(cfg),
    smoke=cfg.smoke,
    **options,
  )


def seeds(cfg: Config) -> int:
  """Of each row."""
  return cfg.seeds or (10 if cfg.full else 5)


def subsets(part: str) -> dict[str, list[tuple[str, ...]]]:
  """{column: the subsets of modalities that it is the mean over}."""
  first, second = SIDES[part]
  found = {
    "all (unseen)": [tuple(sorted((*first, *second)))],
    f"{'+'.join(first)} (seen)": [first],
    f"{'+'.join(second)} (seen)": [second],
  }
  if len(first) > 1:
    found["mixed pairs (unseen)"] = [tuple(sorted(p)) for p in itertools.product(first, second)]
  return found


def scores(records: Iterable[dict], part: str) -> dict[str, dict[str, list[float]]]:
  """{row: {column: percent, a value per seed in their order}}; a run that diverged leaves its row out."""
  found: dict[str, dict[str, list[float]]] = {}
  diverged = set()
  for record in sorted(records, key=lambda r: r["seed"]):
    of = {tuple(e["modalities"]): e["score"] for e in record["subsets"]}
    mine = found.setdefault(record["method"], {name: [] for name in subsets(part)})
    for name, every in subsets(part).items():
      values = [of[s] for s in every]
      if None in values:
        diverged.add(record["method"])
      else:
        mine[name].append(100 * float(np.mean(values)))
  return {name: each for name, each in found.items() if name not in diverged}


def scores_table(found: Mapping[str, Mapping[str, list[float]]], part: str) -> str:
  """Each row on what was seen and what was not, and its paired differences on all modalities."""
  names = list(subsets(part))
  rows = []
  for row, each in found.items():
    cells = [_common.interval(each[name]) for name in names]
    less = [
      "baseline" if row == other else difference(each[name], found[other][name])
      for name in unseen(names)
      for other in BASELINES
      if other in found
    ]
    rows.append([row, *cells, *less])
  header = [
    f"{name.split(' (')[0]} vs {other}"
    for name in unseen(names)
    for other in BASELINES
    if other in found
  ]
  return _common.table(["row", *names, *header], rows)


def unseen(names: Iterable[str]) -> list[str]:
  """The columns of combinations that training lacks."""
  return [name for name in names if name.endswith("(unseen)")]


def difference(a: list[float], b: list[float]) -> str:
  """The paired difference with its interval, in points."""
  return _common.figure(report.paired(a, b), "+")


def part_page(cfg: Config, part: str) -> str:
  """Both tables of a part."""
  found = compare(cfg, part)
  summary = report.summarise(
    found.records,
    baselines=BASELINES,
    unavailable=found.summary.unavailable,
    lines=found.lines,
    info=found.summary.info,
  )
  rows = (
    "complete: the combination is LEAKED to what chooses rates and epochs"
    if cfg.validation == "complete"
    else "with one side alone, as training rows"
  )
  return (
    f"## {part}\n\nTraining rows have {' + '.join(SIDES[part][0])} or {' + '.join(SIDES[part][1])}, half "
    f"of each class each; validation rows are {rows}; test rows are complete. Test accuracy in percent, mean "
    "± half-width of the 95 % t interval over seeds; differences paired, in points, not adjusted.\n\n"
    f"{scores_table(scores(found.records, part), part)}\n\n{report.markdown(summary)}\n"
  )


def main(argv=None) -> None:
  """Runs the parts and writes one page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  every = tuple(SIDES) if cfg.part == "all" else (cfg.part,)
  parts = ("digits",) if cfg.smoke and cfg.part == "all" else every
  heading = _common.heading(
    "# unseen_interaction: a combination of modalities that no training row has",
    _common.command("unseen_interaction", cfg),
    f"0..{seeds(cfg) - 1}",
  )
  note = "Paper: n/a throughout; its data are not here.\n"
  pages = [part_page(cfg, part) for part in parts]
  name = "unseen_interaction" + ("" if cfg.part == "all" else f"_{cfg.part}")
  name += "_complete" if cfg.validation == "complete" else ""
  name += "_adam" if cfg.optimizer == "adam" else ""
  _common.write(name, "\n".join([heading, note, *pages]), cfg.smoke)


if __name__ == "__main__":
  main()
