"""MLA: does alternation help the weaker modality, and what does its projection contribute?

Claims (paper): (1) the under-trained modality's own accuracy rises far above joint training's, and the
  fused one with it; (2) projecting the shared head's gradient helps. The released code never reaches its
  projection, so (2) was not measured by it: here is the ablation.
Paper: Zhang et al., "Multimodal Representation Learning by Alternating Unimodal Adaptation", CVPR 2024, on
  CREMA-D, Kinetics-Sounds, Food-101, MVSA and IEMOCAP. No figure on AV-MNIST exists: paper n/a.
Command: python -m experiments.mla                 (10 minutes on 2 cores)
         python -m experiments.mla --train-size 55000 --epochs 30   (an accelerator)
         python -m experiments.mla --smoke         (a minute or two)
Expected: (1) the audio encoder above `joint`, near `uniform`; fused no better than that; (2) within noise.
Results: experiments/results/mla.md.
"""

import dataclasses

import tyro

from experiments import _common
from experiments.balance_benchmark import diagnostics
from mmfuse import methods, report, train


@dataclasses.dataclass(frozen=True)
class Config:
  train_size: int = 2000
  epochs: int = 10
  seeds: int = 5
  smoke: bool = False


def _variant(doc: str, **options):
  def build(model, learning_rate=0.03, *, tx=None):
    return methods.METHODS["mla"](model, learning_rate, tx=tx, **options)

  build.__doc__ = doc
  return build


# `mla` itself projects by recursive least squares (alpha = .1) and weighs by entropy per row.
VARIANTS = {
  "mla_off": _variant("Plain alternation, what the released code computes.", projection="off"),
  "mla_released": _variant("The released formula, where it is reached.", projection="released"),
  "mla_bb_add": _variant("G + P G, as BalanceBenchmark adds.", projection="bb_add"),
  "mla_mean": _variant("Alternation with the mean of the logits.", projection="off", fusion="mean"),
}
# What the projection contributes, by each of its formulas, and what weighing by entropy does.
CONTRASTS = (
  ("mla", "mla_off"),
  ("mla_released", "mla_off"),
  ("mla_bb_add", "mla_off"),
  ("mla_off", "mla_mean"),
)
HEADS = ("fused", "audio", "image")


def accuracy(cfg: Config) -> _common.Compared:
  """AV-MNIST under the shared protocol."""
  return _common.compared(
    "mla",
    own={name: VARIANTS[name] for name in (["mla_off"] if cfg.smoke else VARIANTS)},
    data="av_mnist",
    methods=("joint", "uniform", "mla"),
    encoder=("audio=lenet", "image=lenet"),
    train_size=cfg.train_size,
    seeds=cfg.seeds,
    trial_seeds=1,
    epochs=cfg.epochs,
    probe=True,
    smoke=cfg.smoke,
  )


def runs(records: list[dict], method: str, head: str) -> list[float]:
  """Test accuracy in percent of a row's head, a value per seed, in their order."""
  mine = sorted((r for r in records if r["method"] == method), key=lambda r: r["seed"])
  return [100 * r["test"][head] for r in mine]


def paper_table(records: list[dict]) -> str:
  """paper | ours | difference, fused accuracy: no figure of the paper is for this set."""
  rows = []
  for method in dict.fromkeys(r["method"] for r in records):
    rows.append([method, "n/a", _common.interval(runs(records, method, "fused")), "n/a"])
  return _common.table(["method", "paper", "ours", "difference"], rows)


def contrast_table(records: list[dict]) -> str:
  """Paired differences between variants over seeds; p after Holm over the rows of a column."""
  there = {r["method"] for r in records}
  pairs = [pair for pair in CONTRASTS if there.issuperset(pair)]
  found = {
    h: [report.paired(*(runs(records, m, h) for m in pair)) for pair in pairs] for h in HEADS
  }
  p = report.holm({str(i): d.p for i, d in enumerate(found["fused"]) if d and d.p is not None})
  rows = [
    [
      f"{pair[0]} less {pair[1]}",
      "n/a",
      *(_common.figure(found[h][i], "+") for h in HEADS),
      f"{p[str(i)]:.2f}" if str(i) in p else "n/a",
    ]
    for i, pair in enumerate(pairs)
  ]
  return _common.table(["difference in points", "paper", *HEADS, "Holm p (fused)"], rows)


def main(argv=None) -> None:
  """Runs the ablation and writes one page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  summary, records, _ = accuracy(cfg)
  text = _common.heading(
    f"# mla: alternation and its projection on AV-MNIST, {cfg.train_size:,} training rows",
    _common.command("mla", cfg),
    f"0..{cfg.seeds - 1}",
  )
  text += (
    "\n`mla`: projection by recursive least squares, fusion by entropy per row. `mla_off`: no projection; "
    "`mla_released`, `mla_bb_add`: its two released formulas; `mla_mean`: no projection, mean of the logits. "
    "The paper has no figure for this set (n/a); its own sets are not here.\n\n"
    f"## Fused test accuracy, percent\n\n{paper_table(records)}\n\n"
    "## What the projection contributes\n\nPaired differences of the test accuracy over seeds, mean ± "
    "half-width of the 95 % t interval; audio and image: each encoder through the shared head. The last row "
    f"is not about the projection: entropy weights against the mean.\n\n{contrast_table(records)}\n\n"
    f"## All rows\n\n{report.markdown(summary)}\n"
    f"## Diagnostics of the test rows, percent\n\n{diagnostics(records)}\n"
  )
  _common.write("mla", text, cfg.smoke)


if __name__ == "__main__":
  main()
