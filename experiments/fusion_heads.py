"""Fusion heads: what each can express, and whether it matters on AV-MNIST.

Claims: (1) where the label is a product of the modalities, a head that adds what it reads from each of
  them (concat with a linear map) is at chance and one that multiplies is far above; where the label is a
  sum, all are equal; (2) on AV-MNIST heads differ by less than the seeds of one head.
Sources: MultiBench (Liang et al., NeurIPS 2021) and the papers that the heads cite. No figure of theirs
  was seen in print, and its AV-MNIST is not ours: paper n/a.
Command: python -m experiments.fusion_heads                    (both parts)
         python -m experiments.fusion_heads --part synthetic   (7 minutes, most of it compilation)
         python -m experiments.fusion_heads --part av_mnist    (7 minutes)
         python -m experiments.fusion_heads --smoke            (seconds)
Expected: (1) additive heads .50, multiplicative, tensor, low_rank and film above .95; additive label all
  above .95; (2) low_rank, multiplicative, tensor within a point or two of concat, none beyond noise.
Found: (1) holds for products: additive heads .50 to .53, multiplying ones .94 and more, transformers and mmtm
  .88 to .91, mixture_of_experts and attention .58. Sums are not all equal: most heads lose 1 to 3 points to
  concat, deep_set and bottleneck 4 to 5, cosine 8. (2) fails for multiplicative and tensor, 6 and 7 points
  below concat beyond noise, both at the lowest rate tried; early, gated and low_rank are within noise of it.
Differences from MultiBench: linear encoders in (1); in (2) our AV-MNIST with 2,000 training rows, SGD with
  momentum, three rates searched per head on validation rows.
Results: experiments/results/fusion_heads_<part>.md.
"""

import dataclasses
import functools
import statistics
from typing import Literal

import flax.linen as nn
import numpy as np
import tyro

from experiments import _common
from mmfuse import data, fusion, methods, report, tasks, train

RATES = (1e-3, 3e-3, 1e-2)  # of Adam, one order of magnitude
LABELS = ("multiplicative", "additive")
SIZES = {"train": 1000, "validation": 1000, "test": 4000}
COLUMNS, WIDTH = 4, 8  # of a modality and of its features


@dataclasses.dataclass(frozen=True)
class Config:
  part: Literal["all", "synthetic", "av_mnist"] = "all"
  epochs: int = 15
  """Of the synthetic part, 20 steps each."""
  seeds: int = 5
  train_size: int = 2000
  """AV-MNIST."""
  av_epochs: int = 10
  smoke: bool = False


# 1. Synthetic labels.


class Linear(nn.Module):
  """h = A x + a: whatever is not linear is left to the head."""

  @nn.compact
  def __call__(self, x, mask, *, train: bool):
    del mask, train
    return nn.Dense(WIDTH)(x)


def make_data(label: str, sizes=SIZES) -> data.Splits:
  r"""x_1, x_2 ~ N(0, I_4); y = [x_1 . x_2 > 0], or y = [\sum_d x_1d + x_2d > 0].

  Of the first, either modality alone says nothing, and a sum of functions of each that is fitted by
  cross-entropy is constant: x_1 . x_2 changes its sign with that of x_1.
  """
  x = np.random.default_rng(0).normal(size=(2, sum(sizes.values()), COLUMNS)).astype(np.float32)
  score = (x[0] * x[1]).sum(-1) if label == "multiplicative" else x.sum((0, 2))
  split = np.repeat(list(sizes), list(sizes.values()))
  arrays = {"x1": x[0], "x2": x[1], "label": (score > 0).astype(int), "split": split}
  return data.from_arrays(arrays, name=label)


def make_method(head: str):
  """Joint training by Adam of two linear encoders and a head, by its name in the index."""
  model = fusion.LateFusion({m: Linear() for m in ("x1", "x2")}, 2)
  return methods.METHODS[head](model, tx=train.adam())


def train_head(cfg: Config, method, head: str, splits: data.Splits) -> list[dict]:
  """A record per seed: the rate chosen by seed 0 on validation rows, then the test rows, once."""
  fit = functools.partial(
    train.fit, method, splits.sealed(), epochs=cfg.epochs, batch_size=50, diagnose=False
  )
  tried = {rate: fit(seeds=[0], learning_rate=rate) for rate in RATES}
  score = lambda found: -np.inf if found is None else found  # of a run that diverged
  rate = max(tried, key=lambda r: score(tried[r].validation[0]["fused"]))
  results = [tried[rate], *(fit(seeds=[s], learning_rate=rate) for s in range(1, cfg.seeds))]
  metric = tasks.metric_of(splits)
  records = []
  for result in results:
    heads = train.evaluate(method, result.state(), splits.test, metric=metric)
    records += [{**result.records(head)[0], "test": {"fused": heads["fused"]["accuracy"]}}]
  return records


def synthetic(cfg: Config, heads, sizes=SIZES) -> dict[str, report.Summary]:
  """{label: every head on it, against concat}."""
  splits = {label: make_data(label, sizes) for label in LABELS}
  records: dict[str, list[dict]] = {label: [] for label in LABELS}
  for head in heads:
    method = make_method(head)  # one for both labels: what is compiled serves twice
    for label, found in splits.items():
      records[label] += train_head(cfg, method, head, found)
    train.release_programs()
  return {label: report.summarise(r, baselines=("concat",)) for label, r in records.items()}


def points(found: report.Difference | None) -> str:
  """Paired difference with its interval; * = beyond noise."""
  if found is None:
    return "baseline"
  return _common.figure(found, "+", 100) + "*" * found.significant


def synthetic_table(found: dict[str, report.Summary]) -> str:
  """A row per head: both labels, each with its difference to concat and the chosen rate."""
  rows = []
  for both in zip(*(found[label].rows for label in LABELS)):
    cells = [
      [_common.figure(r.test, scale=100), points(r.differences["concat"]), r.learning_rates[0]]
      for r in both
    ]
    rows.append([both[0].method, "n/a", *cells[0], *cells[1]])
  header = [f"{label}{what}" for label in LABELS for what in ("", ", vs concat", ", rate")]
  return _common.table(["head", "paper", *header], rows)


# 2. AV-MNIST, by the shared protocol.


def low_rank_frozen(model, learning_rate=0.03, *, tx=None):
  """`low_rank` whose factors stay as drawn, as in MultiBench."""
  return methods.METHODS["low_rank"](model, learning_rate, tx=tx, frozen=True)


# `joint` is the head concat; under its own name the step times are relative to it.
ROWS = ("joint", "early", "gated", "low_rank", "low_rank_frozen", "multiplicative", "tensor")


def av_mnist(cfg: Config) -> tuple[report.Summary, list[dict]]:
  """(summary against concat, records)."""
  encoder = "mlp" if cfg.smoke else "lenet"  # of which a smoke run would compile nine programs
  summary, records, lines = _common.compared(
    "fusion_heads",
    own={"low_rank_frozen": low_rank_frozen},
    data="av_mnist",
    methods=(ROWS[0], *ROWS[3:5]) if cfg.smoke else ROWS,
    encoder=(f"audio={encoder}", f"image={encoder}"),
    train_size=cfg.train_size,
    seeds=cfg.seeds,
    trial_seeds=1,
    epochs=cfg.av_epochs,
    smoke=cfg.smoke,
  )
  records = [{**r, "method": "concat" if r["method"] == "joint" else r["method"]} for r in records]
  return report.summarise(
    records, baselines=("concat",), unavailable=summary.unavailable, lines=lines, info=summary.info
  ), records


def spreads(records: list[dict]) -> tuple[float, float]:
  """Standard deviations of the test accuracy: of the heads' means, and over the seeds of a head."""
  runs: dict[str, list[float]] = {}
  for r in records:
    runs.setdefault(r["method"], []).append(r["test"]["fused"])
  within = statistics.mean(statistics.variance(v) for v in runs.values()) ** 0.5
  return statistics.stdev(statistics.mean(v) for v in runs.values()), within


def synthetic_part(cfg: Config) -> str:
  """Every head on both labels."""
  heads, sizes = methods.HEADS, SIZES
  if cfg.smoke:
    heads, sizes = ("concat", "tensor"), {"train": 100, "validation": 50, "test": 50}
  found = synthetic(cfg, heads, sizes)
  return (
    "## Synthetic labels, the heads of `mmfuse compare --methods heads`\n\n"
    f"Two modalities of {COLUMNS} normal columns, linear encoders to {WIDTH} features; {sizes['train']:,} "
    f"training, {sizes['validation']:,} validation and {sizes['test']:,} test rows; Adam, batch 50, "
    f"{cfg.epochs} epochs, the best by validation; rate of {', '.join(map(str, RATES))} chosen by seed 0. "
    "Multiplicative: y = [x1 . x2 > 0]; additive: y = [sum of all columns > 0]. Test accuracy in percent: "
    "mean ± half-width of the 95 % t interval over seeds (initialisation and batch order, one draw of the "
    "data); differences in points, paired; * = beyond noise (Holm-adjusted p < .05 over the rows of a "
    f"column). Every head is defined for features that are vectors.\n\n{synthetic_table(found)}\n"
  )


def av_mnist_part(cfg: Config) -> str:
  """Some heads by the shared protocol."""
  summary, records = av_mnist(cfg)
  between, within = (100 * x for x in spreads(records))
  return (
    f"## AV-MNIST, {cfg.train_size:,} training rows, LeNets, joint training\n\n`low_rank_frozen` keeps its "
    f"factors as drawn, as MultiBench does.\n\n{report.markdown(summary)}\n"
    f"Standard deviation of the test accuracy, in points: between the {len(summary.rows)} heads' means "
    f"{between:.2f}, over the seeds of one head {within:.2f}.\n"
  )


def main(argv=None) -> None:
  """Both parts on one page, or one on its own."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, epochs=1, seeds=2)
  made = {"synthetic": synthetic_part, "av_mnist": av_mnist_part}
  parts = [
    _common.heading(
      "# fusion_heads: what a head can express, and whether it matters on AV-MNIST",
      _common.command("fusion_heads", cfg),
      f"0..{cfg.seeds - 1}",
    ),
    "Paper: n/a throughout; no published figure for these data was seen.\n",
    *(part(cfg) for name, part in made.items() if cfg.part in ("all", name)),
  ]
  name = "fusion_heads" + ("" if cfg.part == "all" else f"_{cfg.part}")
  _common.write(name, "\n".join(parts), cfg.smoke)


if __name__ == "__main__":
  main()
