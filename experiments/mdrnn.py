"""mdrnn: multi-prediction against maximum likelihood, with half of the image missing at test.

Claim: an MRBM trained by multi-prediction (MP) is better than by PCD where a modality is missing.
Paper: Sohn, Shang, Lee, NIPS 2014; MNIST error % there, from memory: PCD 1.57 / 14.98 / 18.88 and MP
  1.73 / 6.58 / 7.27 with L+R / L / R.
Command: python -m experiments.mdrnn --digits
         python -m experiments.mdrnn --smoke
Expected: on record for these settings, error %: PCD 6.84 / 30.8 / 24.8, MP 6.64 / 21.5 / 16.9.
Differences from the paper: 8x8 digits, 1300 / 497 rows, H = 200, batch 50, rate .05, logistic regression.
Results: experiments/results/mdrnn.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import _common
from mmfuse import generative
from mmfuse.core import Batch, Clock

RECORDED = {"mdrnn_pcd": (6.84, 30.8, 24.8), "mdrnn": (6.64, 21.5, 16.9)}
VIEWS = {"L+R": ("L", "R"), "L": ("L",), "R": ("R",)}
TRAIN, ITERATIONS = 1300, (0, 1, 5, 10)


@dataclasses.dataclass(frozen=True)
class Config:
  epochs: int = 300
  hidden: int = 200
  batch_size: int = 50
  rate: float = 0.05
  seed: int = 0
  digits: bool = True
  """The 8x8 digits, the only data so far."""
  smoke: bool = False


def load(seed: int):
  """({L, R: [1797, 32]}, labels), shuffled."""
  from sklearn.datasets import load_digits

  bunch = load_digits()
  order = np.random.default_rng(seed).permutation(len(bunch.target))
  image = (bunch.images / 16)[order].astype(np.float32)
  halves = {"L": image[:, :, :4].reshape(-1, 32), "R": image[:, :, 4:].reshape(-1, 32)}
  return halves, bunch.target[order]


def fit(method, x, cfg: Config):
  """The state after all epochs: one compiled scan."""
  count = TRAIN // cfg.batch_size
  step, key = method.phases[0].step, jax.random.key(cfg.seed)
  data = {m: jnp.asarray(v[:TRAIN]) for m, v in x.items()}

  def batch(index):
    mask = {m: jnp.ones(index.shape, bool) for m in data}
    return Batch({m: v[index] for m, v in data.items()}, None, mask, jnp.ones(index.shape), index)

  def one(epoch, state, i):
    order = jax.random.permutation(jax.random.fold_in(key, epoch), TRAIN)
    index = jax.lax.dynamic_slice(order, (i * cfg.batch_size,), (cfg.batch_size,))
    n = epoch * count + i
    clock = Clock(n, epoch, i, jnp.int32(count), jnp.int32(cfg.epochs))
    return step(state, batch(index), jax.random.fold_in(key, cfg.epochs + n), clock)[0], None

  @jax.jit
  def run(state):
    body = lambda s, e: jax.lax.scan(functools.partial(one, e), s, jnp.arange(count))
    return jax.lax.scan(body, state, jnp.arange(cfg.epochs))[0]

  return run(method.init(key, batch(jnp.arange(TRAIN))))


def features(state, x, present, steps: int = 10) -> np.ndarray:
  mask = {m: jnp.full(len(v), m in present) for m, v in x.items()}
  return np.asarray(generative.infer(state.params, x, mask, steps)[0])


def errors(state, x, label) -> list[list[float]]:
  """Error % [iterations][L+R, L, R] of one classifier of both halves."""
  from sklearn.linear_model import LogisticRegression

  head = LogisticRegression(max_iter=1000).fit(features(state, x, "LR")[:TRAIN], label[:TRAIN])
  test = {m: v[TRAIN:] for m, v in x.items()}
  score = lambda view, n: head.score(features(state, test, view, n), label[TRAIN:])
  return [[100 * (1 - score(v, n)) for v in VIEWS.values()] for n in ITERATIONS]


def main(argv=None) -> None:
  cfg = tyro.cli(Config, args=argv)
  cfg = dataclasses.replace(cfg, epochs=1, hidden=20) if cfg.smoke else cfg
  x, label = load(cfg.seed)
  rows, loops = [], []
  for name in RECORDED:
    method = getattr(generative, name)(cfg.hidden, cfg.rate)
    found = errors(fit(method, x, cfg), x, label)
    record = " / ".join(map(str, RECORDED[name]))
    rows.append([name, record, *(f"{e:.1f}" for e in found[-1])])
    loops += [[f"{name}, {n}", *(f"{e:.1f}" for e in f)] for n, f in zip(ITERATIONS, found)]
  head = _common.heading(
    "# mdrnn: digits with one half missing", "python -m experiments.mdrnn --digits", cfg.seed)  # fmt: skip
  first = _common.table(["method", "on record", *VIEWS], rows)
  second = _common.table(["method, mean-field steps", *VIEWS], loops)
  text = f"{head}\nTest error %, one run.\n\n{first}\n\n## Mean-field steps at test\n\n{second}"
  _common.write("mdrnn", text, cfg.smoke)


if __name__ == "__main__":
  main()
