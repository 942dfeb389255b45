"""umurl: what each term of the objective contributes to nearest neighbours on skeletons, and to nothing else.

Claim: features learnt without a label have nearer neighbours of the same class than those of the same
  encoder at random; every term of the loss has a part in that.
Paper: Sun et al., ACM MM 2023, whose setting is not this one. Fused feature, NTU-60 x-sub, x-view, NTU-120
  x-sub, x-setup: linear 84.2, 90.9, 75.2, 76.3 %; 1-NN 72.0, 88.9, 59.5, 62.2 %. An independent run of the
  fused setting had 81.0 on NTU-60 x-sub (linear), 3.2 points below. None of it is on skeletons.
Command: python -m experiments.umurl --part full          (each part: under 10 minutes on 2 cores; likewise
         random, spread, intra, inter, no_spread, supervised)
         python -m experiments.umurl                      (all parts, one after the other)
         python -m experiments.umurl --smoke
         python -m experiments.umurl --full --part full   (the paper's widths; an accelerator)
  A part joins those of the same setting that stand in experiments/results/umurl.json.
Expected: a sketch had 1-NN .54 to .57 at random, .71 after 400 steps, 1.00 on raw coordinates. To be shown:
  full above random by 10 points, interval above 0; full at or above each ablation.
Read with: 1-NN on the raw coordinates, which are in the table. Bodies differ in phase, size, turn and noise
  alone, and 100 rows a class fill that space: some training row nearly coincides with each test row. So
  the set tells whether training moves an encoder towards what makes classes differ, and which term does;
  it does not tell whether anybody needs the features. Only data whose neighbours in raw coordinates are
  poor (other cameras, speeds, styles: NTU RGB+D) could.
Setting: data.load("skeletons"), drawn anew for each seed, raw; 800 training rows without labels, queries
  the 400 test rows, database the training rows, cosine. encoders.Skeleton(64), projectors 128-128-256,
  batches of 64, 400 steps, Adam with L2 1e-5 in the gradient; the state after the last step. No crop in
  time, as 64 frames are its least and there are 32. The rate is the smaller of the two best by --validation
  (1-NN 94.0, 99.0, 100.0, 100.0 at 5e-4, 1e-3, 3e-3, 1e-2). A seed fixes rows, initialisation, batches and
  views. spread: VC alone; intra and inter: with VC and without the other; no_spread: both, without VC.
Results: experiments/results/umurl.md, umurl.json, umurl.png.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments import _common
from mmfuse import data, encoders, fusion, methods, metrics, report, train
from mmfuse.data import _skeletons
from mmfuse.report import _figure

NAME = "umurl"
RAW = "raw coordinates"
# {part: what of the loss is left out}
LOSSES: dict[str, dict[str, float]] = {
  "full": {},
  "spread": {"intra": 0.0, "inter": 0.0},
  "intra": {"inter": 0.0},
  "inter": {"intra": 0.0},
  "no_spread": {"std": 0.0, "cov": 0.0},
}
PARTS = ("random", *LOSSES, "supervised")
MANY = ("random", "full")  # which have all seeds, the others `ablation_seeds`
LEAST = 0.1  # what full has to be above random by
SCORES = {"knn": "1-NN", "linear": "linear", "own": "own head"}


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["all", "random", "full", "spread", "intra", "inter", "no_spread", "supervised"] = (
    "all"
  )
  """One part, or all of them."""
  seeds: int = 5
  ablation_seeds: int = 3
  """Of the ablations and of the supervised row."""
  steps: int = 400
  batch_size: int = 64
  rate: float = 3e-3
  width: int = 64
  """Of the encoder; projectors have twice that inside, and four times that at their end."""
  full: bool = False
  """The paper's widths: 1,024, and 2,048 and 4,096 of the projectors."""
  validation: bool = False
  """Queries are a fifth of the training rows, the others train: to choose a rate by. Writes nothing."""
  smoke: bool = False

  @property
  def hidden(self) -> int:
    """The encoder's width."""
    return 1024 if self.full else self.width


def make_splits(cfg: Config, seed: int) -> data.Splits:
  """The rows of a seed: all of `train` train, or a fifth of them are the queries."""
  table = _skeletons.table(seed)
  splits = table.splits()
  if cfg.validation:
    return splits.with_parts(test=splits.validation)
  train_rows, test_rows = (np.flatnonzero(table.split == part) for part in ("train", "test"))
  if cfg.smoke:
    train_rows, test_rows = train_rows[:24], test_rows[:16]
  whole = lambda rows: data.Split(
    {"skeleton": table.inputs["skeleton"][rows]},
    table.label[rows],
    {"skeleton": np.ones(len(rows), bool)},
    rows.astype(np.int32),
    None,
  )
  return dataclasses.replace(splits, parts={"train": whole(train_rows), "test": whole(test_rows)})


def make_method(cfg: Config, part: str) -> Any:
  """Of a part; of those without labels the phase before the head alone."""
  model = fusion.LateFusion({"skeleton": encoders.Skeleton(cfg.hidden)}, 8)
  tx = train.adam(cfg.rate, weight_decay=1e-5, decoupled=False)
  if part == "supervised":
    return methods.METHODS["joint"](model, tx=tx)
  sizes = {"hidden": 2 * cfg.hidden, "width": 4 * cfg.hidden}
  made = methods.METHODS[NAME](model, tx=tx, **sizes, **LOSSES.get(part, {}))
  return made._replace(phases=made.phases[:1])


def judge(method: Any, state: Any, splits: data.Splits, own: bool) -> dict[str, float]:
  """{score: of the test rows}; `own`: of the method's own logits too."""
  found = train.collect(method, state, splits, metrics.knn(), selecting=False)
  probe = train.linear_probe(
    method, state, splits.train, splits.test, task="classification", num_outputs=8
  )
  scores = {"knn": found["knn_1"], "linear": probe["skeleton"]}
  if own:
    said = train.predict_split(method, state, splits.test).logits.argmax(-1)
    scores["own"] = float(np.mean(said == splits.test.label))
  return scores


def measure(cfg: Config, part: str) -> list[dict[str, float]]:
  """{score: value} of each seed."""
  method, found = make_method(cfg, part), []
  for seed in range(cfg.seeds if part in MANY else min(cfg.seeds, cfg.ablation_seeds)):
    print(f"{part}: seed {seed}", flush=True)
    splits = make_splits(cfg, seed)
    if part == "random":
      state = train.initial(method, jax.random.key(seed), next(splits.train.batches(2)))
    else:
      result = train.fit(
        method,
        splits,
        steps=cfg.steps,
        batch_size=8 if cfg.smoke else cfg.batch_size,
        seeds=[seed],
        diagnose=False,
      )
      state = result.state()
    found.append(judge(method, state, splits, own=part == "supervised"))
  return found


def raw(cfg: Config) -> list[dict[str, float]]:
  """1-NN of the coordinates themselves, a seed each."""
  found = []
  for seed in range(cfg.seeds):
    splits = make_splits(cfg, seed)
    query, database = splits.test, splits.train
    x = [p.inputs["skeleton"] for p in (query, database)]
    said = metrics.neighbour_classes(*x, database.label)
    found.append({"knn": float(np.mean(said == query.label))})
  return found


def setting(cfg: Config) -> dict[str, Any]:
  """What parts of one page have in common."""
  return {k: getattr(cfg, k) for k in ("steps", "batch_size", "rate", "hidden")}


Found = Mapping[str, list[dict[str, float]]]  # {part: {score: value} of each seed}


def stored(cfg: Config) -> dict[str, list[dict[str, float]]]:
  """The parts of the same setting that are there."""
  path = _common.RESULTS / f"{NAME}.json"
  kept = json.loads(path.read_text()) if path.exists() and not cfg.smoke else {}
  return kept.get("parts", {}) if kept.get("setting") == setting(cfg) else {}


def values(found: Found, part: str, score: str) -> list[float]:
  """Of a part, a value a seed; none where it has no such score."""
  return [s[score] for s in found[part] if score in s]


def scores_table(found: Found) -> str:
  """A line a part."""

  def cell(part, score):
    of = values(found, part, score)
    return _common.figure(report.estimate(of), scale=100) if of else "n/a"

  order = [p for p in (*PARTS, RAW) if p in found]
  rows = [[p, *(cell(p, s) for s in SCORES), len(found[p])] for p in order]
  return _common.table(["features", *(f"{w}, %" for w in SCORES.values()), "seeds"], rows)


def contrasts(found: Found) -> str:
  """full less each other part that is trained without labels or not at all, paired over their seeds."""
  rows, said = [], ""
  for other in ("random", *list(LOSSES)[1:]):
    if other not in found:
      continue
    full, base = values(found, "full", "knn"), values(found, other, "knn")
    count = min(len(full), len(base))
    d = report.estimate(_common.less(full[:count], base[:count]))
    rows.append([f"full less {other}", _common.figure(d, "+", 100), count])
    if other == "random":
      above = d.half is not None and d.mean - d.half > 0 and d.mean >= LEAST
      said = f"full above random by {100 * LEAST:.0f} points, interval above 0: "
      said += ("holds" if above else "does not hold") + "."
  return _common.table(["paired difference, 1-NN", "points", "seeds"], rows) + f"\n\n{said}"


def page(cfg: Config, found: Found) -> str:
  """All of it."""
  ran = "all parts" if set(PARTS) <= set(found) else ", ".join(p for p in PARTS if p in found)
  command = _common.command(NAME, dataclasses.replace(cfg, part="all"))
  text = _common.heading(
    "# umurl: the terms of the objective on skeletons, judged by nearest neighbours",
    f"{command} --part <each>",
    f"0..{cfg.seeds - 1}; of ablations and the supervised row 0..{cfg.ablation_seeds - 1}",
  )
  text += (
    f"\nParts: {ran}. Test rows, mean ± half-width of the 95 % t interval over seeds (rows, "
    "initialisation, batches, views). 1-NN: cosine, queries the 400 test rows, database the 800 training "
    "rows. linear: logistic regression on the frozen features. Eight classes: chance is 12.5 %.\n\n"
    f"{scores_table(found)}\n"
  )
  if "full" in found and len(found) > 2:
    text += f"\n{contrasts(found)}\n"
  if RAW in found:
    text += (
      f"\nOn raw coordinates 1-NN is {_common.figure(report.estimate(values(found, RAW, 'knn')), scale=100)} "
      "%: rows differ in phase, size, turn and noise alone, and a training row nearly coincides with each "
      "test row. An encoder, trained or not, can only lose that. The numbers say what training adds to an "
      "encoder and which term adds it; they do not say that its features are of use here.\n"
    )
  return text


def draw(found: Found) -> None:
  """1-NN of each part, with intervals, beside the page."""
  shown = [p for p in (*PARTS, RAW) if p in found][::-1]
  figure = _figure.new_figure(6.4, 0.8 + 0.36 * len(shown))
  axes = figure.add_subplot()
  for y, part in enumerate(shown):
    e = report.estimate(values(found, part, "knn"))
    ends = [100 * v for v in _figure.interval_ends(e, True)]
    error = [[100 * e.mean - ends[0]], [ends[1] - 100 * e.mean]] if e.half else None
    colour = _figure.COLOURS[0] if part in LOSSES else _figure.COLOURS[7]
    axes.barh(y, 100 * e.mean, 0.7, color=colour, xerr=error, error_kw={"capsize": 2})
  axes.set_yticks(range(len(shown)), shown)
  axes.axvline(12.5, color=_figure.INK, linestyle="--", linewidth=1)
  axes.set_xlim(0, 100)
  axes.set_xlabel("1-NN accuracy of test rows (%); dashed: chance", fontsize=9)
  _figure.tidy(axes)
  _figure.save(figure, _common.RESULTS / f"{NAME}.png")


def main(argv=None) -> None:
  """Runs a part or all; the page shows those that are there."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, seeds=2, ablation_seeds=1, steps=2, width=2)
  found = {} if cfg.validation else stored(cfg)
  for part in PARTS if cfg.part == "all" else (cfg.part,):
    found[part] = measure(cfg, part)
  if cfg.validation:
    print(scores_table(found))
    return
  found[RAW] = raw(cfg)
  _common.write_json(NAME, {"setting": setting(cfg), "parts": found}, cfg.smoke)
  _common.write(NAME, page(cfg, found), cfg.smoke)
  if not cfg.smoke:
    draw(found)


if __name__ == "__main__":
  main()
