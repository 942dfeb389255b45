"""Diverse representations: does a network that had to find another way help once the first one is gone?

Claim (paper): networks pushed to have features with little conditional total correlation beat as many
  networks by ERM, where a simple classifier is fitted to the frozen features on a few rows of a shifted
  distribution.
Paper: Pace, Russo, Shanahan, arXiv 2006.07119, 2020. No table was seen: paper n/a.
Data: two cues, 8 x 8 digits ({1, 7} against {0, 4}, noise .25) and 8 columns of a "bar" that in training
  says the label too. Shift `digit`: the bar is random; shift `cue`: the digit is. lambda = 0 is two
  networks by ERM with as many features. 60 labelled rows of a shift adapt a logistic regression.
Command: python -m experiments.diverse_representations         (10 seeds, under 10 minutes on 2 cores)
         python -m experiments.diverse_representations --estimator dv    (on a page of its own)
         python -m experiments.diverse_representations --full        (20 seeds)
         python -m experiments.diverse_representations --smoke       (seconds)
Expected: adapted accuracy on `digit` a few points above lambda 0 at moderate lambda (a sketch gave
  +3.8 ± 10.6 and +5.1 ± 6.7 at five seeds: the sign, at most); the networks' own accuracy there stays
  near chance, so that the gain shows in what is adapted alone; `cue` is near 100 for all.
Results: experiments/results/diverse_representations.md (and .png); of another estimator
  diverse_representations_<estimator>.md.
"""

import concurrent.futures
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Literal

import numpy as np
import tyro

from experiments import _common
from mmfuse import data, encoders, fusion, metrics, report, train
from mmfuse.core import LAST, Method
from mmfuse.methods.ensembles import diverse
from mmfuse.protocol._config import cores
from mmfuse.report import _figure

SKETCH = {0.0: "55.9", 0.3: "64.8", 1.0: "68.3", 3.0: "56.9"}  # 2-3 seeds, other batches
CLASSES = ((0, 4), (1, 7))  # digits
NOISE, BAR = 0.25, 8
SHIFTS = ("digit", "cue")
COPIES = {
  "train": 12,
  "validation": 1,
  "test": 1,
  "shifted": 3,
}  # a picture, in noise of its own each time
SHARES = {"train": 0.5, "validation": 0.1, "test": 0.1, "shifted": 0.3}
ADAPT = 60
BEYOND = 0.05  # of p, after Holm's correction


@dataclasses.dataclass(frozen=True)
class Config:
  lams: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0, 3.0)
  """The first one is what the others are compared with."""
  seeds: int | None = None
  """Default 10, with --full 20; of rows, noise, initialisation and batches."""
  estimator: Literal["dre", "dv", "nwj"] = "dre"
  steps: int = 2500
  members: int = 2
  full: bool = False
  smoke: bool = False


def make_data(seed: int) -> data.Splits:
  """Columns x [72] of both cues; `truth_kind` of shifted rows is the place in `SHIFTS`."""
  from sklearn.datasets import load_digits

  bunch, rng = load_digits(), np.random.default_rng(seed)
  digits = np.concatenate(CLASSES)
  chosen = rng.permutation(np.flatnonzero(np.isin(bunch.target, digits)))
  label = np.isin(bunch.target[chosen], CLASSES[1]).astype(int)
  cuts = (np.cumsum(list(SHARES.values()))[:-1] * len(chosen)).astype(int)
  found: dict[str, list] = {"x": [], "label": [], "split": [], "truth_kind": []}

  def add(rows: np.ndarray, split: str, kind: int) -> None:
    rows = np.tile(rows, COPIES[split])
    own, other = label[rows], rng.integers(0, 2, len(rows))
    # In training both say the label; of `digit` the bar is drawn, of `cue` the label, and the bar with it.
    bar, truth = {0: (own, own), 1: (other, own), 2: (other, other)}[kind]
    columns = np.where(np.arange(BAR) < BAR // 2, bar[:, None], 1 - bar[:, None])
    x = np.concatenate([bunch.images[chosen[rows]].reshape(len(rows), -1) / 16, columns], 1)
    found["x"].append(x + rng.normal(0, NOISE, x.shape))
    found["label"].append(truth)
    found["split"].append(np.full(len(rows), split))
    found["truth_kind"].append(np.full(len(rows), max(kind - 1, 0)))

  for split, rows in zip(SHARES, np.split(np.arange(len(chosen)), cuts)):
    for kind in (1, 2) if split == "shifted" else (0,):
      add(rows, split, kind)
  return data.from_arrays({k: np.concatenate(v) for k, v in found.items()}, name="two_cues")


SCORES = {
  "test": "accuracy, both cues",
  "adapted_accuracy/0": "adapted, digit",
  "adapted_accuracy/1": "adapted, cue",
  "shifted_member_accuracy/0": "a network's own, digit",
  "shifted_disagreement/0": "disagreement, digit",
}


def measure(cfg: Config) -> dict[float, dict[str, list[float]]]:
  """{lambda: {score: values, one a seed}}."""
  seeds = range(cfg.seeds or (20 if cfg.full else 10))
  given = [make_data(seed) for seed in seeds]
  model = fusion.LateFusion({"x": encoders.MLP(64, (64,))}, 2)
  found: dict[float, dict[str, list[float]]] = {}
  for lam in cfg.lams:
    method = diverse(
      model,
      train.adam(1e-3),
      members=cfg.members,
      lam=lam,
      estimator=cfg.estimator,
      critic_tx=train.adam(1e-3),
    )
    run = functools.partial(trained, cfg, method)
    first = run(seeds[0], given[0])  # compiles for all
    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:
      each = [first, *pool.map(run, seeds[1:], given[1:])]
    own = found[lam] = {name: [100 * scores[name] for scores in each] for name in SCORES}
    print(f"lambda {lam:g}: {_common.interval(own['adapted_accuracy/0'])} adapted", flush=True)
    train.release_programs()
  return found


def trained(cfg: Config, method: Method, seed: int, splits: data.Splits) -> dict[str, float]:
  """What a seed's last state is judged by."""
  fitted = train.fit(
    method,
    splits.sealed(),
    steps=cfg.steps,
    batch_size=128,
    seeds=[seed],
    select=LAST,
    diagnose=False,
  )
  return judged(method, fitted.state(), splits)


def judged(method, state, splits: data.Splits) -> dict[str, float]:
  """{score: value} of one state; everything but training rows is opened here, and chooses nothing."""
  said = {p: train.predict_split(method, state, splits.part(p)) for p in ("test", "shifted")}
  scores = {"test": float(np.mean(said["test"].logits.argmax(-1) == splits.test.label))}
  for collected in (metrics.adaptation(ADAPT), metrics.disagreement("shifted")):
    scores |= collected.compute(said, {p: splits.part(p) for p in collected.reads})
  return {name: scores[name] for name in SCORES}


def tables(found: dict[float, dict[str, list[float]]]) -> str:
  """Scores, and each lambda less the first."""
  first, *others = found
  rows = [
    [f"{lam:g}", *(_common.interval(own[name]) for name in SCORES), SKETCH.get(lam, "n/a")]
    for lam, own in found.items()
  ]
  contrasts = [
    [
      f"{lam:g} less {first:g}",
      *(_common.figure(report.paired(found[lam][n], found[first][n]), "+") for n in SCORES),
    ]
    for lam in others
  ]
  return "\n\n".join(
    (
      _common.table(["lambda", *SCORES.values(), "sketch: adapted, digit"], rows),
      _common.table(["points", *SCORES.values()], contrasts),
    )
  )


def picture(found: dict[float, dict[str, list[float]]], path: pathlib.Path) -> None:
  """Adapted accuracy over lambda."""
  drawing = _figure.new_figure(6.0, 3.4)
  axes = drawing.add_subplot()
  names = ("adapted_accuracy/0", "adapted_accuracy/1", "shifted_member_accuracy/0")
  for i, name in enumerate(names):
    each = [report.estimate(own[name]) for own in found.values()]
    known = [(x, e) for x, e in enumerate(each) if e is not None]
    axes.errorbar(
      [x for x, _ in known],
      [e.mean for _, e in known],
      yerr=[e.half or 0.0 for _, e in known],
      color=_figure.COLOURS[i],
      marker="o",
      markersize=3,
      capsize=2,
      label=SCORES[name],
    )
  axes.set_xticks(range(len(found)), [f"{lam:g}" for lam in found], fontsize=8)
  axes.set_xlabel("lambda", fontsize=9, color=_figure.INK)
  axes.set_ylabel("accuracy (%)", fontsize=9, color=_figure.INK)
  _figure.tidy(axes)
  drawing.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
  _figure.save(drawing, path)


def verdict(found: dict[float, dict[str, list[float]]]) -> str:
  """Whether any lambda beats the first beyond noise, Holm over the lambdas."""
  first, *others = found
  name = "adapted_accuracy/0"
  each = {f"{lam:g}": report.paired(found[lam][name], found[first][name]) for lam in others}
  adjusted = report.holm({k: d.p for k, d in each.items() if d is not None and d.p is not None})
  better = [
    k for k, d in each.items() if d is not None and d.mean > 0 and adjusted.get(k, 1.0) < BEYOND
  ]
  if better:
    return (
      f"Beyond noise above lambda {first:g} once adapted to `digit` (Holm): {', '.join(better)}."
    )
  return f"A null: no lambda is beyond noise above lambda {first:g} once adapted to `digit` (Holm)."


def page(cfg: Config, found: dict[float, dict[str, list[float]]]) -> str:
  """Heading, what is measured, tables."""
  seeds: Sequence[float] = next(iter(found.values()))["test"]
  text = _common.heading(
    "# diverse_representations: adapted to a shift",
    _common.command("diverse_representations", cfg),
    f"0..{len(seeds) - 1}",
  )
  return text + (
    f"\n{cfg.members} networks of 4 features, estimator {cfg.estimator}, {cfg.steps} steps of 128 rows, "
    "Adam 1e-3, two critic steps each. Percent and points, mean ± half-width of the 95 % t interval over "
    "seeds (rows, noise, initialisation, batches), differences paired by seed. Adapted: "
    f"{ADAPT} labelled rows of the shift, ten draws of them; the last state of each run, nothing is "
    "chosen. The sketch had two or three seeds and "
    f"other batches.\n\n{tables(found)}\n\n{verdict(found)}\n"
  )


def main(argv=None) -> None:
  """Trains all and writes the page."""
  cfg = tyro.cli(Config, args=argv)
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, lams=(0.0, 1.0), seeds=2, steps=4)
  train.enable_compilation_cache()
  found = measure(cfg)
  name = "diverse_representations" + ("" if cfg.estimator == "dre" else f"_{cfg.estimator}")
  _common.write(name, page(cfg, found), cfg.smoke)
  with tempfile.TemporaryDirectory() as scratch:
    picture(found, (pathlib.Path(scratch) if cfg.smoke else _common.RESULTS) / f"{name}.png")


if __name__ == "__main__":
  main()
