"""MMANet: what a teacher of complete rows and a second head for weak subsets add to modality dropout.

Claims (paper): both raise the mean over subsets of modalities above that of dropout alone. Its sets are not
  here (CASIA-SURF, CeFA, NYUv2, Cityscapes), so every figure of the paper is n/a.
Command: python -m experiments.mmanet                    (digits, 10 seeds, 10 minutes on 2 cores)
         python -m experiments.mmanet --part watch_imu   (5 seeds, 10 minutes)
         python -m experiments.mmanet --part rates       (digits at fixed rates: the control, 6 minutes)
         python -m experiments.mmanet --part teacher     (digits: teacher against student, 3 minutes)
         python -m experiments.mmanet --full             (200 epochs, the authors' 100 a phase; --part too)
         python -m experiments.mmanet --smoke            (digits, rates and teacher, a minute or two)
Expected: within 2 points of `dropout` on the mean over subsets, of either sign; the teacher above the student
  on complete rows, and L_MAD falling. The teacher takes half of the epochs: the examples seen are equal.
Results: experiments/results/mmanet_<part>.md.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
import tyro

from experiments import _common
from experiments._contrasts import contrast_table, scores
from mmfuse import data, encoders, fusion, methods, report, train
from mmfuse.core import State

EPOCHS = 200  # of --full: 100 a phase
RATE = 0.03  # of the part "teacher"


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["digits", "watch_imu", "rates", "teacher"] = "digits"
  seeds: int | None = None
  """Default 10, on watch_imu 5."""
  rates: tuple[float, ...] = (0.01, 0.03, 0.1)
  """Of the part "rates"."""
  full: bool = False
  smoke: bool = False

  @property
  def runs(self) -> int:
    """Seeds of this part."""
    default = 5 if self.part == "watch_imu" else 10
    return 2 if self.smoke else self.seeds or default


def _variant(doc: str, **options):
  def build(model, learning_rate=0.03, *, tx=None):
    return methods.METHODS["mmanet"](model, learning_rate, tx=tx, **options)

  build.__doc__ = doc
  return build


VARIANTS = {
  "mmanet_mad_off": _variant("Without margin-aware distillation.", mad=0.0),
  "mmanet_mar_off": _variant("Without the loss of weak rows.", mar=0.0),
  "mmanet_off": _variant("Without both: dropout for half of the epochs.", mad=0.0, mar=0.0),
  "mmanet_released": _variant(
    "As the classification code was released.", variant="released", weight_axis="column"
  ),
}
PAIRS = (
  ("joint", "dropout"),
  ("uniform", "dropout"),
  ("mmanet", "dropout"),
  ("mmanet_mad_off", "dropout"),
  ("mmanet_mar_off", "dropout"),
  ("mmanet_off", "dropout"),
  ("mmanet_released", "dropout"),
  ("mmanet", "mmanet_mad_off"),
  ("mmanet", "mmanet_mar_off"),
)
AT_RATES = ("dropout", "mmanet", "mmanet_mad_off")


def compared(cfg: Config, rows: Sequence[str], **options) -> _common.Compared:
  """Some rows under the shared protocol, chosen by the validation mean over subsets."""
  return _common.compared(
    "mmanet",
    own={name: build for name, build in VARIANTS.items() if name in rows},
    methods=tuple(name for name in rows if name not in VARIANTS),
    seeds=cfg.runs,
    missing=True,
    smoke=cfg.smoke,
    **({"epochs": EPOCHS} if cfg.full and not cfg.smoke else {}),
    **options,
  )


def table_of_rows(cfg: Config) -> str:
  """Parts "digits" and "watch_imu": every row searches its rate."""
  rows = ("joint", "dropout", "mmanet")
  if not cfg.smoke:
    rows += ("mmanet_mad_off", "mmanet_mar_off")
    rows += ("uniform", "mmanet_off", "mmanet_released") if cfg.part == "digits" else ()
  summary, records, _ = compared(cfg, rows, data=cfg.part)
  return (
    "Rates and epochs of every row by the validation mean over subsets. Differences of test accuracy "
    "over seeds, paired, mean ± half-width of the 95 % t interval. mad, mar off: that weight is 0; "
    "`mmanet_off`: both, which is dropout with the student's half of the epochs.\n\n"
    f"{contrast_table(records, PAIRS)}\n\n{report.markdown(summary)}"
  )


def rate_table(by_rate: dict[float, Sequence[dict]], names: Sequence[str] = AT_RATES) -> str:
  """Means over subsets at fixed rates: is the gain more than that of a larger step?"""
  rates, plain = sorted(by_rate), names[0]
  mean = {rate: {m: scores(records)[m]["mean"] for m in names} for rate, records in by_rate.items()}
  less = lambda values, base: _common.figure(report.paired(values, base), "+")
  rows = [
    [
      f"{rate:g}",
      _common.interval(mean[rate][plain]),
      *(less(mean[rate][m], mean[rate][plain]) for m in names[1:]),
      "n/a" if larger is None else less(mean[larger][plain], mean[rate][plain]),
    ]
    for rate, larger in zip(rates, [*rates[1:], None])
  ]
  others = [f"{m} less it" for m in names[1:]]
  return _common.table(["rate", plain, *others, f"{plain} at the next rate less it"], rows)


def fixed_rates(cfg: Config) -> str:
  """Part "rates": the control, each row at each rate."""
  rates, names = (cfg.rates[:1], AT_RATES[:2]) if cfg.smoke else (cfg.rates, AT_RATES)
  found = {
    rate: compared(cfg, names, data="digits", tune=1, learning_rate=rate).records for rate in rates
  }
  return (
    "digits, one rate for all rows, no search: test accuracy, mean over the 7 subsets, percent; "
    f"differences paired over seeds.\n\n{rate_table(found, names)}"
  )


@dataclasses.dataclass(frozen=True)
class Teacher:
  """What the teacher in a student's memory says."""

  model: fusion.LateFusion

  def __call__(self, state: State, inputs, mask):
    return train.outputs_of(self.model, state.memory["objective"]["teacher"], inputs, mask)


def accuracy(method, state, split) -> float:
  """Percent, on rows as they are: digits has all of them complete."""
  said = train.predict_split(method, state, split)
  return 100 * float(np.mean(np.argmax(said.logits, -1) == split.label))


def teacher_and_student(cfg: Config) -> str:
  """Part "teacher": digits at one rate; L_MAD with its pull and, at a weight of 1e-6, without."""
  splits = data.load("digits").splits(seed=0)
  shapes = {m: splits.train.inputs[m] for m in splits.modalities}
  made = {m: encoders.default_encoder(x.shape, x.dtype) for m, x in shapes.items()}
  model = fusion.LateFusion(made, splits.num_outputs)
  epochs = 4 if cfg.smoke else EPOCHS if cfg.full else None
  rows, distance = {}, {}
  for name, mad in (("mad 30", 30.0), ("mad off", 1e-6)):
    method = methods.METHODS["mmanet"](model, RATE, mad=mad)
    found = train.fit(method, splits, epochs=epochs, seeds=cfg.runs, diagnose=False)
    states = [jax.tree.map(lambda x, i=i: x[i], found.states) for i in range(cfg.runs)]
    taught = method._replace(predict=Teacher(model))
    rows[name] = [[accuracy(m, state, splits.test) for state in states] for m in (taught, method)]
    logs = [
      [e["loss/distillation"] / mad for e in log.history if e.get("loss/distillation", 0) > 0]
      for log in found.logs
    ]
    distance[name] = [[float(log[i]) for log in logs] for i in (0, -1)]
  table = _common.table(
    [
      "",
      "teacher",
      "student",
      "teacher less student",
      "L_MAD, first epoch",
      "last epoch",
      "last less first",
    ],
    [
      [
        name,
        *map(_common.interval, (a, b)),
        _common.figure(report.paired(a, b), "+"),
        *(_common.figure(report.estimate(x), scale=100) for x in distance[name]),
        _common.figure(report.paired(*reversed(distance[name])), "+", 100),
      ]
      for name, (a, b) in rows.items()
    ],
  )
  return (
    f"digits at rate {RATE:g}: test accuracy on complete rows, percent, of the teacher and of the student "
    f"(best validation epochs); L_MAD of training batches, in hundredths, after the warm-up.\n\n{table}"
  )


PARTS = {
  "digits": table_of_rows,
  "watch_imu": table_of_rows,
  "rates": fixed_rates,
  "teacher": teacher_and_student,
}
SMOKE = ("digits", "rates", "teacher")  # watch_imu is digits on other rows


def main(argv=None) -> None:
  """Runs a part, in a smoke run all of them, and writes its page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  for part in SMOKE if cfg.smoke else (cfg.part,):
    one = dataclasses.replace(cfg, part=part)
    text = _common.heading(
      f"# mmanet: {part}", _common.command("mmanet", one), f"0..{one.runs - 1}"
    )
    _common.write(f"mmanet_{part}", f"{text}\n{PARTS[part](one)}\n", cfg.smoke)


if __name__ == "__main__":
  main()
