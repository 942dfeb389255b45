"""What a comparison is asked to do: one frozen dataclass, checked before all. Imports no JAX."""

import dataclasses
import hashlib
import json
import math
import os
import re
from typing import Annotated, Literal

import tyro

from mmfuse.names import TaskName


class UsageError(ValueError):
  """Bad input of a user: one sentence, exit code 2, no traceback."""


@dataclasses.dataclass(frozen=True)
class Compare:
  """Take methods through one data set under one fair protocol and write one honest table."""

  data: str = "watch_imu"
  """A built-in data set (see `mmfuse data`) or the path of an .npz file."""
  methods: tuple[str, ...] = ("default",)
  """Names, commas or spaces: `default`, `all`, a family (`balancing`, `heads`; `mmfuse methods` has them),
  or `mine.py:builder` for one of your own."""
  set: tuple[str, ...] = ()
  """Hyper-parameters: `mimo.lam=2 ogm.alpha=.1 early.hidden=[64,64]`."""
  encoder: tuple[str, ...] = ()
  """`text=embedding "heart rate=gru" gait=mine.py:MyEncoder` (Flax Linen or NNX), else by rank and
  dtype. Names: linear, identity, mlp, conv1d, conv1d_steps, conv2d, lenet, resnet18, resnet34, gru,
  lstm, transformer, transformer_steps, embedding, skeleton."""
  modalities: tuple[str, ...] = ()
  """Use these modalities only: `accel,gyro`. Default: all."""
  ignore: tuple[str, ...] = ()
  """Arrays that are no modality to use, instead of `--modalities`."""
  scale: tuple[str, ...] = ()
  """`image=unit` (into [0, 1] by the training rows), `image=raw` (as it is), else `standard`."""
  likelihood: tuple[str, ...] = ()
  """`image=bernoulli`, `laplace:.75` for all: log p of what generates, the same for all rows. Normal of
  scale 1 by default, categorical for tokens."""
  class_weights: Literal["balanced"] | None = None
  """`balanced`: a training row of class c counts n / (C n_c)."""
  weighted_scores: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Validation and test scores weigh rows by the array `weight` too."""
  fusion: str = "concat"
  """How the features are joined: concat, sum, gated, film, low_rank, tensor, mult, bottleneck..."""
  task: TaskName | None = None
  """What the labels are, where their type does not say."""
  seeds: int = 5
  """Runs per method; a seed fixes initialisation and batch order, the same for every method."""
  folds: int | None = None
  """Cross-validation over so many folds (by group where there are groups), not one split."""
  tune: int = 3
  """Trials per method: 3 learning rates; 9 adds 3 values of an own hyper-parameter; 1 = none.
  While the best rate is the outermost one, the next one outwards (x 3 or / 3), at most twice."""
  trial_seeds: int = 2
  """Seeds of each trial; the chosen trial's runs are the first final ones."""
  epochs: int | None = None
  """Passes over the training rows in every run; default by their number, 450 steps or more."""
  batch_size: int | None = None
  """Rows a step; default by the number of training rows, 8 to 64."""
  rates: tuple[float, ...] = ()
  """The learning rates to try, as they are: `--rates .001 .01 .1`; default .01, .03, .1 for SGD."""
  learning_rate: float | None = None
  """With `--tune 1`: the one rate of all rows. Else the middle of the grid (.03 for SGD)."""
  optimizer: Literal["sgd", "adam"] | None = None
  """SGD with momentum .9 (default), or Adam (rates / 30), the default of segmentation."""
  schedule: Literal["constant", "cosine", "step"] = "constant"
  """The learning rate's schedule, the same for all methods."""
  weight_decay: float = 0.0
  """The same for all methods. With any, a rule that scales its losses is more than another rate."""
  patience: int | None = None
  """Stop a run after so many epochs without improvement."""
  select: str | None = None
  """Validation metric of the fused head: accuracy, macro_f1, r2... None = by task. `mean/accuracy`,
  `worst/accuracy`: over subsets of modalities; `accuracy@audio`: of one modality's head."""
  drop_empty: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Drop rows without any modality instead of refusing them."""
  allow_straddling: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Take the data's own split as it is where groups stand in several of its parts."""
  missing: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Rows may lack modalities: all rows chosen by the validation mean over subsets of modalities,
  a column for each subset, and a curve over the rate of test rows that lose one."""
  missing_rate: tuple[float, ...] = ()
  """With `--missing`: the rates of the curve; default .1 to .9."""
  missing_kind: str = "even"
  """With `--missing`: what those rows lose, `even` (shared out) or the name of one modality."""
  missing_train: float | None = None
  """With `--missing`: this fraction of the training rows loses a modality, by the same rule."""
  data_dir: str | None = None
  """Where the raw files of built-in sets lie; default $MMFUSE_DATA_DIR."""
  train_size: int | None = None
  """Training rows of a set that is built (av_mnist); its other splits shrink alike."""
  out: str | None = None
  """Output folder, of one command at a time; default results/<data name>, numbered if in use."""
  resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Continue what is in the output folder; more methods may join, those not named stay."""
  checkpoint_seconds: float = 15.0
  """Least time between two checkpoints of a run."""
  probe: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Also fit a linear probe to each encoder's features (results.jsonl)."""
  threads: int | None = None
  """Use so many CPU cores."""
  smoke: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """A few rows, one epoch, two seeds: does everything run?"""

  @property
  def first_rates(self) -> tuple[float, ...]:
    """The learning rates that the search begins with."""
    scale = 1.0 / 30.0 if self.optimizer == "adam" else 1.0
    if self.rates:
      return tuple(sorted(set(self.rates)))
    if self.tune == 1:
      return (self.learning_rate if self.learning_rate is not None else 0.03 * scale,)
    return tuple(r * scale for r in (0.01, 0.03, 0.1))

  @property
  def sizes(self) -> tuple[int, int]:
    """(epochs, batch_size) once they are filled in from the data; ValueError before."""
    if self.epochs is None or self.batch_size is None:
      raise ValueError("epochs and batch_size are filled in from the number of training rows first")
    return self.epochs, self.batch_size

  def numeric(self) -> dict:
    """What can change a number, besides the data (their fingerprint says more than their name)."""
    skip: tuple[str, ...] = (
      "data",
      "data_dir",
      "out",
      "resume",
      "threads",
      "checkpoint_seconds",
      "probe",
    )
    if not self.scale:  # runs of before have none of these
      skip += ("scale",)
    if not self.likelihood:
      skip += ("likelihood",)
    if not self.missing:
      skip += ("missing", "missing_rate", "missing_kind", "missing_train")
    return {k: v for k, v in dataclasses.asdict(self).items() if k not in skip}

  def check(self) -> None:
    """Raises UsageError, one sentence, for numbers that make no sense."""
    for name in (
      "seeds",
      "trial_seeds",
      "epochs",
      "batch_size",
      "threads",
      "patience",
      "train_size",
    ):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    rate = self.learning_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
      raise UsageError(f"--learning-rate must be a positive number, got {rate}")
    for tried in self.rates:
      if not (math.isfinite(tried) and tried > 0):
        raise UsageError(f"--rates must be positive numbers, got {tried}")
    if self.rates and (self.learning_rate is not None or self.tune != 3):
      raise UsageError(
        "--rates says which rates are tried: it goes with neither --tune nor --learning-rate"
      )
    self._check_missing()
    if self.tune not in (1, 3, 9):
      raise UsageError(f"--tune takes 1, 3 or 9 trials, got {self.tune}")
    if rate is not None and self.tune != 1:
      raise UsageError("--learning-rate fixes one rate for all rows: it needs --tune 1")
    if self.folds is not None and self.folds < 3:
      raise UsageError(f"--folds needs at least 3 (train, validation, test), got {self.folds}")
    if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
      raise UsageError(f"--weight-decay must not be negative, got {self.weight_decay}")
    if not (math.isfinite(self.checkpoint_seconds) and self.checkpoint_seconds >= 0):
      raise UsageError(f"--checkpoint-seconds must not be negative, got {self.checkpoint_seconds}")

  def _check_missing(self) -> None:
    given = (
      *(("missing-rate",) if self.missing_rate else ()),
      *(("missing-kind",) if self.missing_kind != "even" else ()),
      *(("missing-train",) if self.missing_train is not None else ()),
    )
    if given and not self.missing:
      raise UsageError(f"--{given[0]} says how modalities go missing: it needs --missing")
    for name, rates in (
      ("rate", self.missing_rate),
      ("train", () if self.missing_train is None else (self.missing_train,)),
    ):
      for rate in rates:
        if not 0 < rate <= 1:
          raise UsageError(f"--missing-{name} must lie above 0 and be at most 1, got {rate}")


OUTSIDE_BRACKETS = r"[,\s]+(?![^\[]*\])"  # a list is one value


def split_words(words: tuple[str, ...], at: str = r"[,\s]+") -> list[str]:
  """Commas or spaces: ("a,b", "c") -> [a, b, c]."""
  return [w for word in words for w in re.split(at, word) if w]


def parse_value(text: str) -> object:
  """A number, boolean or list (as a tuple) as JSON reads it, ".5" too; else the word itself."""
  try:
    found = json.loads(text)
    return tuple(found) if isinstance(found, list) else found
  except json.JSONDecodeError:
    pass
  try:
    return float(text)
  except ValueError:
    return text


def parse_settings(words: tuple[str, ...]) -> dict[str, dict[str, object]]:
  """("mimo.lam=2",) -> {"mimo": {"lam": 2}}."""
  out: dict[str, dict[str, object]] = {}
  for word in split_words(words, OUTSIDE_BRACKETS):
    target, equals, value = word.partition("=")
    method, dot, name = target.rpartition(".")
    if not (equals and dot and method and name):
      raise UsageError(f"--set takes method.name=value, got {word!r}")
    parsed = parse_value(value)
    if isinstance(parsed, float) and not math.isfinite(parsed):
      raise UsageError(f"--set {target} must be a finite number, got {value}")
    out.setdefault(method, {})[name] = parsed
  return out


def parse_pairs(words: tuple[str, ...], flag: str) -> dict[str, str]:
  """("a=b c=d", "heart rate=e") -> {"a": "b", "c": "d", "heart rate": "e"}.

  A word is cut at commas and spaces. What has no "=" belongs to the name that follows it, and at the
  end of a word to the value before it, a path.
  """
  out: dict[str, str] = {}
  for word in words:
    for pair in _pairs(word):
      name, equals, value = (part.strip() for part in pair.partition("="))
      if not (equals and name and value):
        raise UsageError(f"{flag} takes name=value, got {pair!r}")
      if name in out:
        raise UsageError(f"{flag} names {name!r} twice: {out[name]} and {value}")
      out[name] = value
  return out


def _pairs(word: str) -> list[str]:
  """The "name=value" pieces of a word: "a=b heart rate=c" -> ["a=b", "heart rate=c"]."""
  pieces: list[str] = []
  begun = ""
  for part in re.findall(r"[^,\s]+[,\s]*", word):
    begun += part
    if "=" in part:
      pieces.append(begun)
      begun = ""
  if begun:
    pieces = [*pieces[:-1], "".join([*pieces[-1:], begun])]
  return [piece.strip(", \t\n") for piece in pieces]


def cores() -> int:
  """CPU cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def digest(value: object) -> str:
  """Sixteen hex digits of the sha256 of a JSON value."""
  return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
