"""BOGC: does trusting each objective by the precision of its gradient bring the step closer to the truth?

Claims: (1) where two objectives estimate the same gradient with unequal noise, evidence weights give a
  smaller direction error than the plain mean (a fact of statistics, tested without training); (2) on real
  gradients of watch_imu the objectives do not share their mean, so this need not hold: measured against
  the full-batch mean gradient; (3) accuracy differs from `uniform` by at most a point or two.
Paper: Guo et al., arXiv 2505.23071, 2025; weights reconstructed, no code or tables seen: no "paper" column.
Command: python -m experiments.bogc              (about 5 minutes on 2 cores)
         python -m experiments.bogc --smoke      (a minute)
Expected: (1) error ratio .2 for large evidence, near 1 for small; (2) about .91, of which a shorter
  step may be part; (3) within noise. Results: experiments/results/bogc.md.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import _common
from mmfuse import data, methods, protocol, report, train
from mmfuse.balancing import _bogc
from mmfuse.core import Clock


@dataclasses.dataclass(frozen=True)
class Config:
  seeds: int = 5
  epochs: int = 30
  batches: int = 40
  """Mini-batches drawn for the direction error."""
  parts: int = 8
  """Row groups of a batch that a variance is taken over."""
  smoke: bool = False


def bogc_parts(model, learning_rate=0.03, *, tx=None):
  """BOGC with the variance over 4 parts of the batch instead of over steps."""
  return methods.METHODS["bogc"](model, learning_rate, tx=tx, variance="parts", parts=4)


def shared_mean_error(
  scale: float, dims: int = 2000, draws: int = 200, parts: int = 8
) -> tuple[float, float]:
  """Relative L2 error (plain mean, evidence weights) where both objectives have the same true gradient.

  Noise sd of the objectives' per-part gradients: .3 and 3, swapped over half the coordinates.
  """
  rng = np.random.default_rng(0)
  truth = rng.normal(size=dims)
  sd = np.stack([np.where(np.arange(dims) % 2, 0.3, 3.0), np.where(np.arange(dims) % 2, 3.0, 0.3)])
  plain, weighted = [], []
  for _ in range(draws):
    sample = truth + sd * rng.normal(size=(parts, 2, dims))
    mean, var = sample.mean(0), sample.var(0, ddof=1) / parts
    w = np.asarray(_bogc.evidence_weights(jnp.asarray(var, jnp.float32), evidence_scale=scale))
    size = np.linalg.norm(truth)
    plain.append(np.linalg.norm(mean.mean(0) - truth) / size)
    weighted.append(np.linalg.norm((w * mean).sum(0) - truth) / size)
  return float(np.mean(plain)), float(np.mean(weighted))


def encoder_rows(method, state, batch):
  """Per-objective gradients of the encoders, [2, D]: fused row and own row, all encoders joined."""
  clock = Clock(*(jnp.int32(0),) * 5)
  stacked = method.functions["gradients"](state, batch, jax.random.key(0), clock)
  names = sorted(batch.inputs)  # row 0 is the fused objective, row 1 + i the i-th modality's own
  return jnp.concatenate(
    [
      jnp.stack([g[0].ravel(), g[1 + i].ravel()])
      for i, m in enumerate(names)
      for g in jax.tree.leaves(stacked[m])
    ],
    axis=1,
  )


def rows_of(batch, index):
  """The rows `index` of a batch."""
  return jax.tree.map(lambda x: jnp.asarray(x[index]), batch)


def real_gradient_error(cfg: Config, scales: tuple[float, ...]) -> list[tuple]:
  """Direction error on watch_imu after 3 epochs of `uniform`: mini-batches of 64 against all rows."""
  splits = data.load("watch_imu").splits().sealed()
  method = methods.METHODS["uniform"](protocol.make_model(splits))
  state = train.fit(method, splits, epochs=1 if cfg.smoke else 3).state()
  every = train.to_batch(splits.train)
  gradients = jax.jit(lambda batch: encoder_rows(method, state, batch))
  truth = np.asarray(gradients(jax.tree.map(jnp.asarray, every)))  # [2, D]
  target = truth.mean(0)
  rng = np.random.default_rng(0)
  per_part = 64 // cfg.parts
  rows = []
  errors: dict[float, list[float]] = {s: [] for s in scales}
  plain: list[float] = []
  for _ in range(3 if cfg.smoke else cfg.batches):
    picked = rng.permutation(len(every.index))[:64].reshape(cfg.parts, per_part)
    sample = np.stack([np.asarray(gradients(rows_of(every, part))) for part in picked])
    mean, var = sample.mean(0), sample.var(0, ddof=1) / cfg.parts
    size = np.linalg.norm(target)
    plain.append(np.linalg.norm(mean.mean(0) - target) / size)
    for s in scales:
      w = np.asarray(_bogc.evidence_weights(jnp.asarray(var, jnp.float32), evidence_scale=s))
      errors[s].append(np.linalg.norm((w * mean).sum(0) - target) / size)
  for s in scales:
    ratio = np.asarray(errors[s]) / np.asarray(plain)
    rows.append(
      (
        f"{s:g}",
        f"{np.mean(plain):.3f}",
        f"{np.mean(errors[s]):.3f}",
        f"{ratio.mean():.3f} ± {1.96 * ratio.std(ddof=1) / len(ratio) ** 0.5:.3f}",
      )
    )
  return rows


def accuracy(cfg: Config) -> report.Summary:
  """watch_imu under the shared protocol."""
  return _common.compared(
    "bogc",
    own={"bogc_parts": bogc_parts},
    data="watch_imu",
    methods=("joint", *(() if cfg.smoke else ("uniform", "bogc"))),
    seeds=cfg.seeds,
    epochs=cfg.epochs,
    smoke=cfg.smoke,
  ).summary


def main(argv=None) -> None:
  """Runs the three parts and writes one page."""
  cfg = tyro.cli(Config, args=argv)
  train.enable_compilation_cache()
  scales = (1e-6, 1e-4, 1e-2, 1.0)
  parts = [
    _common.heading(
      "# bogc: direction error, then accuracy",
      _common.command("bogc", cfg),
      f"0..{cfg.seeds - 1} (accuracy); one state, {cfg.batches} mini-batches (direction)",
    )
  ]
  shared = [
    (f"{s:g}", *shared_mean_error(s, draws=5 if cfg.smoke else 200))
    for s in (1e-3, 1e-2, 1e-1, 1.0, 100.0)
  ]
  parts.append(
    "## 1. Two objectives with one true gradient and unequal noise (simulation)\n\n"
    + _common.table(
      ["evidence_scale", "plain mean", "evidence weights", "ratio"],
      [(s, f"{p:.3f}", f"{w:.3f}", f"{w / p:.3f}") for s, p, w in shared],
    )
  )
  parts.append(
    "\n## 2. Real gradients of the encoders (watch_imu, batch 64, variance over "
    f"{cfg.parts} parts)\n\nRelative L2 error to the full-batch mean of the fused and own gradients; "
    "ratio: mean and 95 % interval over mini-batches. A zero step would score 1, so part of a ratio "
    "below 1 may be a shorter step rather than a better direction.\n\n"
    + _common.table(
      ["evidence_scale", "plain mean", "evidence weights", "ratio"],
      real_gradient_error(cfg, scales),
    )
  )
  parts.append(f"\n## 3. Accuracy\n\n{report.markdown(accuracy(cfg))}\n")
  _common.write("bogc", "\n".join(parts), cfg.smoke)


if __name__ == "__main__":
  main()
