"""Modality distillation on digits: does a clean half that only training rows have help the noisy half?

Claims: (1) trained beside the clean left half A, the noisy right half B alone is told better than by a model
  of B alone, in one stage and in two; (2) nothing of it is left where A's training rows are shuffled over
  all samples, and what is left where they are shuffled within a class is not of the sample.
Paper: Wei, Luo and Luo, One-stage Modality Distillation, arXiv 2309.08204, 2023; the method is
  reconstructed, no table of the paper was read: no "paper" column. Its data are RGB-D images.
Command: python -m experiments.modality_distillation                  (5 seeds, under 10 minutes on 2 cores)
         python -m experiments.modality_distillation --part across    (one of: as_is, within, across)
         python -m experiments.modality_distillation --full           (20 seeds, also terms alone; hours)
         python -m experiments.modality_distillation --smoke          (two rows, random content)
Expected: as_is, 0 to +3 points over B_only; across, none above 0 beyond noise. `two_branches`, the same
  network without a teacher's terms, says what the second encoder alone is worth.
Results: experiments/results/modality_distillation.md, of a part modality_distillation_<part>.md.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np
import tyro

from experiments import _common
from mmfuse import data, methods, report, train

AVAILABLE, PRIVILEGED = "B", "A"
# What is done to the privileged training rows.
PARTS = {
  "as_is": "A beside the B of the same image",
  "within": "A of another image of the same class",
  "across": "A of another image of any class",
}
SHUFFLE_SEED = 0
NONE = {"mmd_weight": 0.0, "logit_weight": 0.0, "rec_weight": 0.0}


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["all", "as_is", "within", "across"] = "all"
  seeds: int | None = None
  """Default 5, with --full 20."""
  epochs: int = 120
  """Of a run; half of them are the teacher's."""
  batch_size: int = 64
  full: bool = False
  smoke: bool = False


def _distilled(doc: str, **options):
  def build(model, learning_rate=0.03, *, tx=None):
    given = {"available": AVAILABLE, "privileged": PRIVILEGED, **options}
    return methods.METHODS["modality_distillation"](model, learning_rate, tx=tx, **given)

  build.__doc__ = doc
  return build


def alone(model, learning_rate=0.03, *, tx=None):
  """B's encoder and head."""
  return methods.METHODS["unimodal"](model, learning_rate, tx=tx, modality=AVAILABLE)


ROWS = {
  "B_only": alone,
  "two_branches": _distilled("Two encoders of B and their translation, by CE alone.", **NONE),
  "two_stage": _distilled("The restored branch first, then the rest.", two_stage=True),
  "one_stage": _distilled("All at once."),
}
MORE = {
  "one_stage_jmmd": _distilled("Features and logits matched together.", match="jmmd"),
  "one_stage_pkt": _distilled("Similarities matched.", match="pkt"),
  "one_stage_kl": _distilled("Logits compared as distributions.", logits="kl"),
  "match_alone": _distilled(
    "Of the terms beside CE, the features'.", **{**NONE, "mmd_weight": 1.0}
  ),
  "logits_alone": _distilled("Of them, the logits'.", **{**NONE, "logit_weight": 1.0}),
  "rec_alone": _distilled("Of them, the reconstruction.", **{**NONE, "rec_weight": 1.0}),
}
# Row less row of one table.
CONTRASTS = (
  ("one_stage", "B_only"),
  ("two_stage", "B_only"),
  ("one_stage", "two_stage"),
  ("two_branches", "B_only"),
  ("one_stage", "two_branches"),
  ("two_stage", "two_branches"),
  *((name, "one_stage") for name in ("one_stage_jmmd", "one_stage_pkt", "one_stage_kl")),
  *((name, "two_branches") for name in ("match_alone", "logits_alone", "rec_alone")),
)
DISTILLED = ("one_stage", "two_stage")  # whose rows of as_is are compared with those of a control


def make_data(part: str) -> data.Table:
  """A and B of digits, the training rows of A shuffled as the part says; all others stay."""
  whole = data.load("digits")
  rows = np.flatnonzero(whole.split == "train")
  groups = {"as_is": [], "across": [rows]}.get(part)
  if groups is None:
    groups = [rows[whole.label[rows] == c] for c in np.unique(whole.label[rows])]
  rng, privileged = np.random.default_rng(SHUFFLE_SEED), whole.inputs[PRIVILEGED].copy()
  for group in groups:
    privileged[group] = privileged[rng.permutation(group)]
  arrays = {PRIVILEGED: privileged, AVAILABLE: whole.inputs[AVAILABLE]}
  arrays |= {"label": whole.label, "split": whole.split}
  return data.table_from_arrays(arrays, name=f"digits, {part}")


def scores(cfg: Config, part: str) -> dict[str, list[float]]:
  """{row: test accuracy in percent from B alone, a value per seed}."""
  rows = {**ROWS, **MORE} if cfg.full else ROWS
  rows = {n: rows[n] for n in ("B_only", "one_stage")} if cfg.smoke else rows
  found = _common.compared(
    "modality_distillation",
    given=make_data(part),
    own=rows,
    methods=(),
    seeds=seeds_of(cfg),
    epochs=cfg.epochs,
    batch_size=cfg.batch_size,
    smoke=cfg.smoke,
  )
  return {name: values(found.records, name) for name in rows}


def seeds_of(cfg: Config) -> int:
  """How many runs a row has."""
  return min(cfg.seeds or (20 if cfg.full else 5), 2 if cfg.smoke else 10_000)


def values(records: list[dict], row: str) -> list[float]:
  """In the order of the seeds."""
  mine = sorted((r for r in records if r["method"] == row), key=lambda r: r["seed"])
  return [100 * r["test"][AVAILABLE] for r in mine]


Found = Mapping[str, Mapping[str, list[float]]]  # {part: {row: a value per seed}}


def pairs(found: Found) -> dict[str, tuple[list[float], list[float]]]:
  """{what is compared: (values, values they are less)}, paired by seed."""
  out = {}
  for part, rows in found.items():
    for a, b in CONTRASTS:
      if a in rows and b in rows:
        out[f"{part}: {a} less {b}"] = (rows[a], rows[b])
  for control in ("within", "across"):
    for row in DISTILLED:
      if row in found.get("as_is", {}) and row in found.get(control, {}):
        out[f"{row}: as_is less {control}"] = (found["as_is"][row], found[control][row])
  return out


def scores_table(found: Found) -> str:
  """Each row on each table."""
  names = list(next(iter(found.values())))
  rows = [[n, *(_common.interval(found[p][n]) for p in found)] for n in names]
  return _common.table(["test accuracy of B alone, %", *found], rows)


def contrast_table(found: Found) -> str:
  """Paired differences, Holm over all of the page."""
  every = {name: report.paired(a, b) for name, (a, b) in pairs(found).items()}
  p = report.holm({n: d.p for n, d in every.items() if d is not None and d.p is not None})
  rows = [
    [name, _common.figure(d, "+"), f"{p[name]:.2f}" if name in p else "n/a"]
    for name, d in every.items()
  ]
  return _common.table(["difference in points", "mean", "Holm p"], rows)


def page(cfg: Config, found: Found, command: str) -> str:
  """Both tables."""
  said = "; ".join(f"{part}: {PARTS[part]}" for part in found)
  return _common.heading(
    "# modality_distillation: one modality at test, reconstructed",
    command,
    f"0..{seeds_of(cfg) - 1}",
  ) + (
    "\nDigits, 560 training rows of A (left half, noise .15) and B (right half, noise .45); validation and "
    f"test read B alone. In training, {said}; one permutation for all seeds. The rate of each row by "
    f"validation, {cfg.epochs} epochs of batches of {cfg.batch_size} rows a run; of all rows but B_only the "
    "teacher has half of them, so that two_branches, which it does not teach, has fewer of its own.\n\n"
    f"## Accuracy\n\nMean ± half-width of the 95 % t interval over seeds.\n\n{scores_table(found)}\n\n"
    "## Differences\n\nPaired by seed, mean ± half-width of the 95 % t interval; p after Holm over all "
    f"lines.\n\n{contrast_table(found)}\n"
  )


def main(argv=None) -> None:
  """Runs the parts and writes a page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  parts = tuple(PARTS) if cfg.part == "all" else (cfg.part,)
  parts = parts[::2] if cfg.smoke else parts  # one control says what two say
  found = {part: scores(cfg, part) for part in parts}
  name = "modality_distillation" + ("" if cfg.part == "all" else f"_{cfg.part}")
  command = _common.command("modality_distillation", cfg)
  _common.write(name, page(cfg, found, command), cfg.smoke)


if __name__ == "__main__":
  main()
