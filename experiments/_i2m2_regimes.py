"""The three synthetic regimes of `experiments.i2m2`, and its sweep over the joint expert's width."""

import numpy as np

from experiments import _common
from mmfuse import data, encoders, fusion, methods, tasks, train

CLASSES, WIDTH = 4, 10
ROWS = (2000, 500, 5000)
# On record, 3 seeds, their own means: x1, x2, intra, inter, from scratch, from pre-trained experts.
RECORDED = {
  "intra_only": (70.0, 42.6, 71.7, 71.9, 69.8, 70.1),
  "inter_only": (25.1, 25.1, 25.6, 89.4, 88.4, 88.7),
  "mixed": (58.5, 38.7, 61.0, 79.1, 77.9, 78.1),
}
COLUMNS = ("x1", "x2", "intra", "inter", "i2m2_scratch", "i2m2")
# Lengths of the class means of x1 and x2 and of the means of the codes: such that the best classifiers of
# one modality, or of both, are about as good as those on record.
LENGTHS = {
  "intra_only": (1.55, 0.75, 0.0),
  "inter_only": (0.0, 0.0, 2.7),
  "mixed": (1.25, 0.6, 2.0),
}


def unit_rows(rng, rows: int) -> np.ndarray:
  """Orthogonal directions [rows, WIDTH]."""
  return np.linalg.qr(rng.normal(size=(WIDTH, rows)))[0].T


def draw(regime: str, seed: int, sizes=ROWS) -> data.Splits:
  """x1 has the class y and a code u, x2 the class and the code (y - u) mod 4, each as a mean in noise."""
  *own, code = LENGTHS[regime]
  fixed, rng = np.random.default_rng(0), np.random.default_rng(1 + seed)
  y, u = rng.integers(0, CLASSES, (2, sum(sizes)))
  arrays = {"label": y, "split": np.repeat(("train", "validation", "test"), sizes)}
  for m, length, seen in (("x1", own[0], u), ("x2", own[1], (y - u) % CLASSES)):
    means = unit_rows(fixed, 2 * CLASSES)
    mean = length * means[:CLASSES][y] + code * means[CLASSES:][seen]
    arrays[m] = (mean + rng.normal(size=mean.shape)).astype(np.float32)
  return data.from_arrays(arrays, seed=0)


def joint_of(width: int) -> fusion.LateFusion:
  """An MLP on both raw modalities."""
  return fusion.LateFusion(
    {m: encoders.Identity() for m in ("x1", "x2")}, CLASSES, fusion.Early((width,))
  )


def regime_methods(width: int = 64) -> dict:
  """{column: (method, epochs in units of an expert's)}."""
  model = fusion.LateFusion({m: encoders.MLP(64, (), "none") for m in ("x1", "x2")}, CLASSES)
  joint, adam = joint_of(width), train.adam(3e-3)
  build = lambda **more: methods.METHODS["i2m2"](model, joint=joint, **more)
  own = dict.fromkeys(("x1", "x2", "joint"), adam)
  return {
    "x1": (methods.METHODS["unimodal"](model, tx=adam, modality="x1"), 1),
    "x2": (methods.METHODS["unimodal"](model, tx=adam, modality="x2"), 1),
    "intra": (methods.METHODS["intra"](model, tx=adam, pretrained=False), 1),
    "inter": (methods.METHODS["joint"](joint, tx=adam), 1),
    "i2m2_scratch": (build(tx=adam, pretrained=False), 1),
    "i2m2": (build(tx=train.adam(1e-3), expert_tx=own, tune_share=0.1), 10 / 3),
    "inter_longer": (
      methods.METHODS["joint"](joint, tx=adam),
      10 / 3,
    ),  # as many steps as all phases of i2m2
  }


def budget(cfg, more: str = "") -> str:
  """What every run of these tables gets; `more`: what else a table says of it."""
  rows, held, test = ROWS
  return (
    f"{rows:,} training, {held:,} validation and {test:,} test rows; Adam, rate .003, batch 100, "
    f"{cfg.steps} steps, the best epoch by validation. `i2m2` has {cfg.steps} for each of its three experts "
    f"and {cfg.steps // 3} at rate .001 for all of them{more}."
  )


def accuracy(method, epochs: int, splits: data.Splits, seed: int) -> float:
  """Test accuracy in percent of one run, its epoch chosen on the validation rows."""
  found = train.fit(
    method, splits.sealed(), epochs=epochs, batch_size=100, seeds=[seed], diagnose=False
  )
  metric = tasks.metric_of(splits)
  return (
    100 * train.evaluate(method, found.state(), splits.test, metric=metric)["fused"]["accuracy"]
  )


def regime_scores(cfg, regime: str, chosen: dict) -> dict[str, list[float]]:
  """{column: accuracy per seed}; a seed draws the rows, the weights and the batches of all columns."""
  sizes = (200, 50, 50) if cfg.smoke else ROWS
  epochs = max(3, cfg.steps * 100 // sizes[0])
  splits = [draw(regime, seed, sizes) for seed in range(2 if cfg.smoke else cfg.regime_seeds)]
  return {
    name: [accuracy(method, round(factor * epochs), s, seed) for seed, s in enumerate(splits)]
    for name, (method, factor) in chosen.items()
  }


def regimes(cfg) -> str:
  """Recorded / ours, and I2M2 against the two others, paired."""
  every, rows, gaps = regime_methods(), [], []
  chosen = {name: every[name] for name in COLUMNS}
  for regime, recorded in RECORDED.items():
    found = regime_scores(cfg, regime, chosen)
    rows.append(
      [regime, *(f"{r} / {_common.interval(found[c])}" for c, r in zip(COLUMNS, recorded))]
    )
    paired = [_common.less(found["i2m2"], found[c]) for c in ("intra", "inter", "i2m2_scratch")]
    gaps.append([regime, *(_common.interval(gap) for gap in paired)])
  return (
    f"{budget(cfg)}\n\n"
    + _common.table(["regime", *COLUMNS], rows)
    + "\n\n"
    + _common.table(["i2m2 less, paired", "intra", "inter", "i2m2_scratch"], gaps)
  )


def widths(cfg) -> str:
  """Where the joint expert is weak enough for the others to help."""
  rows = []
  for width in cfg.widths[:1] if cfg.smoke else cfg.widths:
    every = regime_methods(width)
    names = ("inter", "inter_longer", "i2m2")
    found = regime_scores(cfg, "mixed", {name: every[name] for name in names})
    gaps = [_common.less(found["i2m2"], found[name]) for name in names[:2]]
    rows.append([width, *map(_common.interval, (*(found[name] for name in names), *gaps))])
  less = [f"i2m2 less {name}, paired" for name in names[:2]]
  header = ["hidden units of the joint expert", *names, *less]
  said = budget(cfg, ", `inter_longer` as many as that in all")
  return f"{said}\n\n{_common.table(header, rows)}"
