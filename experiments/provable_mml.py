"""Provably better: more modalities have the better latent space, once there are enough examples.

Claims: (1) on overlapping modalities the risk of the best head falls with every modality that has
  something of its own, by (1 - w)^2 D after the first, and with full overlap by nothing; (2) with
  few examples two modalities lose to one: the bound's complexity term (all four, which determine y
  without noise, win with any number); (3) so on AV-MNIST: image and audio
  together have a better latent space than the image alone, but not from a hundredth of the rows.
Paper: Huang et al., "What Makes Multi-Modal Learning Better than Single (Provably)", NeurIPS 2021.
  The cells of its synthetic table were not seen, nor was any code: the column "paper" is the optimum
  of its generator in closed form (`overlapping_risk`). M = 4, D = 100, y without noise.
Command: python -m experiments.provable_mml           (under a minute on 2 idle cores)
         python -m experiments.provable_mml --av-mnist    (6 minutes; --train-size 55000: all)
         python -m experiments.provable_mml --smoke   (seconds; too few rows for 2 %; also with --av-mnist)
Expected: all 16 subsets x 5 overlaps within 2 % of the closed form; at w = .8 one modality beats two
  with 150 and 250 examples and loses with 1000. AV-MNIST: both at least the image at all rows, no gain at
  a hundredth. Found: +16.0 ± 0.6 points over the image at all rows, -3.3 ± 3.9 at 40, +6.0 ± 2.5 at 200.
Differences from the paper: 50,000 rows instead of 10,000. Least squares in D k columns have a
  held-out error of 1 + D k / (n - D k - 1) times the optimum: 3 % at n = 10,000 and three modalities.
Results: experiments/results/provable_mml.md, experiments/results/provable_mml_av_mnist.md.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments import _common, _provable_av_mnist
from mmfuse import masks, train
from mmfuse.data import _provable
from mmfuse.metrics._latent_quality import latent_quality

MODALITIES = tuple(range(1, _provable.NUM_MODALITIES + 1))
# Held-out errors on record for these settings (own runs, minimal-norm least squares and SGD).
RECORDED_FEW = {150: (37.5, 50.4, 7.8), 250: (20.6, 38.9, 0.5), 1000: (13.7, 10.0, 0.0)}
RECORDED_SGD = {1: 80.9, 2: 56.3, 4: 0.0}


@dataclasses.dataclass(frozen=True)
class Config:
  rows: int = 50_000
  """Training rows, and as many test rows, of the main table."""
  width: int = _provable.WIDTH
  """D, columns of a modality."""
  few: tuple[int, ...] = (150, 250, 1000)
  """Training rows of the crossover table."""
  few_seeds: int = 5
  sgd_rows: int = 2000
  sgd_steps: int = 500
  av_mnist: bool = False
  """The real data instead: subsets of image and audio, on a page of their own."""
  train_size: int = 4000
  """AV-MNIST: its training rows, of which fractions are taken."""
  fractions: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
  seeds: int = 5
  epochs: int = 6
  """AV-MNIST: of every training run, each of as many steps as all rows give."""
  smoke: bool = False


def make_base(seed: int, rows: int, width: int) -> np.ndarray:
  """m [M, N, D]: what is mixed."""
  return np.random.default_rng(seed).normal(size=(len(MODALITIES), rows, width))


def make_data(seed: int, rows: int, overlap: float, width: int):
  """(x [M, N, D], y [N])."""
  return _provable.overlapping(make_base(seed, rows, width), overlap)


def view(x: np.ndarray, subset) -> np.ndarray:
  """The columns of a subset: [N, D |S|]; [N, 0] of none."""
  return np.concatenate([x[i - 1] for i in subset] or [x[0][:, :0]], axis=1)


def name(subset) -> str:
  return " ".join(f"m{i}" for i in subset) or "none"


def risks(cfg: Config) -> dict[tuple[int, ...], dict[float, float]]:
  """{subset: {overlap: held-out error of the best linear map of it}}."""
  subsets = [tuple(map(int, s)) for s in masks.every_subset(map(str, MODALITIES))]
  found: dict[tuple[int, ...], dict[float, float]] = {s: {} for s in subsets}
  bases = [make_base(seed, cfg.rows, cfg.width) for seed in (0, 1)]
  for w in _provable.OVERLAPS:
    (x, y), (x_test, y_test) = (_provable.overlapping(base, w) for base in bases)
    for subset in found:
      found[subset][w] = latent_quality(view(x, subset), y, heldout=(view(x_test, subset), y_test))
  return found


def number(value: float) -> str:
  """One decimal, and no minus before 0.0."""
  return f"{round(value, 1) + 0.0:.1f}"


def difference(ours: float, paper: float) -> str:
  """In percent of the paper's; absolute where that is 0."""
  return f"{100 * (ours / paper - 1):+.1f} %" if paper > 0 else f"{abs(ours):.0e}"


def worst(cfg: Config, found) -> float:
  """The largest |ours / closed form - 1| over all cells; 0 / 0 counts the absolute error."""
  gaps = []
  for subset, cells in found.items():
    for w, ours in cells.items():
      paper = _provable.overlapping_risk(subset, w, width=cfg.width)
      gaps.append(abs(ours / paper - 1) if paper > 0 else abs(ours))
  return max(gaps)


def risk_table(cfg: Config, found) -> str:
  rows = []
  for subset, cells in found.items():
    row = [name(subset)]
    for w, ours in cells.items():
      paper = _provable.overlapping_risk(subset, w, width=cfg.width)
      row.append(f"{paper:.1f} / {ours:.1f} / {difference(ours, paper)}")
    rows.append(row)
  return _common.table(["modalities", *(f"w = {w}" for w in _provable.OVERLAPS)], rows)


def gain_table(cfg: Config, found) -> str:
  """gamma({1..k}, {1..k-1}): what the k-th modality changes; negative = better."""
  rows = []
  for k in MODALITIES[1:]:
    more, fewer = MODALITIES[:k], MODALITIES[: k - 1]
    row = [f"{name(more)} over {name(fewer)}"]
    for w in _provable.OVERLAPS:
      risk = lambda s, w=w: _provable.overlapping_risk(s, w, width=cfg.width)
      paper, ours = risk(more) - risk(fewer), found[more][w] - found[fewer][w]
      row.append(" / ".join((number(paper), number(ours), f"{ours - paper:+.1f}")))
    rows.append(row)
  return _common.table(["gamma", *(f"w = {w}" for w in _provable.OVERLAPS)], rows)


def train_encoder(x: np.ndarray, y: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
  """Linear encoder [D k, 10] and head [10] by full-batch SGD, rate .005, momentum .9, no bias."""
  rows, target = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
  keys, columns = jax.random.split(jax.random.key(0)), x.shape[1]
  params = (
    jax.random.normal(keys[0], (columns, 10)) / columns**0.5,
    jax.random.normal(keys[1], (10,)) / 10**0.5,
  )
  tx = optax.sgd(0.005, momentum=0.9)
  loss = lambda p: jnp.mean(jnp.square(rows @ p[0] @ p[1] - target))

  def step(carried, _):
    params, state = carried
    updates, state = tx.update(jax.grad(loss)(params), state)
    return (optax.apply_updates(params, updates), state), None

  run = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=steps)[0][0])
  return jax.device_get(run(params))


def trained_table(cfg: Config, overlap: float = 0.5) -> str:
  """A trained encoder, frozen: its own head, a refitted one, and what n examples allow."""
  x, y = make_data(2, cfg.sgd_rows, overlap, cfg.width)
  x_test, y_test = make_data(3, 5 * cfg.sgd_rows, overlap, cfg.width)
  rows = []
  for k in (1, 2, 4):
    subset = MODALITIES[:k]
    encoder, head = train_encoder(view(x, subset), y, cfg.sgd_steps)
    z, z_test = view(x, subset) @ encoder, view(x_test, subset) @ encoder
    own = float(np.mean(np.square(z_test @ head - y_test)))
    refitted = latent_quality(z, y, heldout=(z_test, y_test))
    paper = _provable.overlapping_risk(subset, overlap, width=cfg.width)
    columns = cfg.width * k
    expected = paper * (1 + columns / (cfg.sgd_rows - columns - 1))
    rows.append(
      [
        name(subset),
        f"{paper:.1f}",
        f"{expected:.1f}",
        "n/a" if cfg.smoke else RECORDED_SGD[k],
        f"{own:.1f}",
        f"{refitted:.1f}",
      ]
    )
  header = [
    "modalities",
    "paper (optimum)",
    "expected at n",
    "on record",
    "trained head",
    "refitted head",
  ]
  return _common.table(header, rows)


def crossover_table(cfg: Config, overlap: float = 0.8) -> str:
  """Mean held-out error over seeds with few examples: two modalities have more to fit than one.

  All four determine y exactly, so they have no such crossing; n = 150 and 250 lie beside the 200
  columns of two, where least squares is at its worst.
  """
  rows = []
  for n in cfg.few:
    errors: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for seed in range(cfg.few_seeds):
      x, y = make_data(100 + seed, n, overlap, cfg.width)
      x_test, y_test = make_data(200 + seed, 4000, overlap, cfg.width)
      for k, found in errors.items():
        subset = MODALITIES[:k]
        found.append(latent_quality(view(x, subset), y, heldout=(view(x_test, subset), y_test)))
    mean = [float(np.mean(e)) for e in errors.values()]
    recorded = " / ".join(map(str, RECORDED_FEW.get(n, ("n/a",) * 3)))
    rows.append(
      [n, recorded, " / ".join(f"{m:.1f}" for m in mean), "m1" if mean[0] < mean[1] else "m1 m2"]
    )
  header = [
    "n",
    "on record (m1 / m1 m2 / all)",
    "ours (m1 / m1 m2 / all)",
    "better of the first two",
  ]
  return _common.table(header, rows)


def shrink(cfg: Config) -> Config:
  """The smoke size."""
  return dataclasses.replace(
    cfg, rows=500, width=10, few=(15, 100), few_seeds=2, sgd_rows=200, sgd_steps=300
  )


def av_mnist(cfg: Config) -> None:
  """The real data."""
  train.enable_compilation_cache()
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, fractions=(0.4, 1.0), seeds=2, epochs=1)
  setting = _provable_av_mnist.Setting(
    cfg.train_size, cfg.fractions, cfg.seeds, cfg.epochs, smoke=cfg.smoke
  )
  text = _provable_av_mnist.page(setting, _common.command("provable_mml", cfg))
  _common.write("provable_mml_av_mnist", text, cfg.smoke)


def main(argv=None) -> None:
  """Runs all parts and writes one page; with `--av-mnist`, that page."""
  cfg = tyro.cli(Config, args=argv)
  if cfg.av_mnist:
    av_mnist(cfg)
    return
  cfg = shrink(cfg) if cfg.smoke else cfg
  found = risks(cfg)
  parts = [
    _common.heading(
      "# provable_mml: what a modality is worth, and from how many examples on",
      _common.command("provable_mml", cfg),
      f"data 0 and 1 (tables 1, 2), 2 and 3 (table 3), 100.. and 200.. x {cfg.few_seeds} (table 4)",
    ),
    f"## 1. Error of the best head, {cfg.rows:,} rows\n\npaper (optimum in closed form) / ours / "
    f"difference. Largest difference: {100 * worst(cfg, found):.1f} %.\n\n{risk_table(cfg, found)}\n",
    "## 2. What one modality more changes\n\ngamma(M, N) = eta(M) - eta(N), negative = better: paper "
    f"(closed form) / ours / difference.\n\n{gain_table(cfg, found)}\n",
    f"## 3. Trained encoders, w = 0.5, n = {cfg.sgd_rows:,}\n\nTwo linear layers by full-batch SGD; "
    f"the encoder is frozen and its head refitted.\n\n{trained_table(cfg)}\n",
    f"## 4. Few examples, w = 0.8\n\nHeld-out error, mean of {cfg.few_seeds} seeds, least squares of "
    "minimal norm; the optima are those of table 1. Two modalities lose to one until there are several "
    f"examples per column (they have {2 * cfg.width}, beside which least squares is at its worst); all "
    f"four, which determine y without noise, win with any number.\n\n{crossover_table(cfg)}",
  ]
  _common.write("provable_mml", "\n".join(parts), cfg.smoke)


if __name__ == "__main__":
  main()
