"""provable_mml on AV-MNIST: what a second modality adds to a trained latent space, from how many rows on."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from experiments import _common
from mmfuse import data, encoders, fusion, methods, metrics, report, train
from mmfuse.protocol._config import cores

SUBSETS = {"image": ("image",), "audio": ("audio",), "both": ("audio", "image")}
RIDGE = 1e-3  # of the refitted head, in every cell: few rows separate any classes


@dataclasses.dataclass(frozen=True)
class Setting:
  """What every cell shares."""

  train_size: int
  fractions: tuple[float, ...]
  seeds: int
  epochs: int
  learning_rate: float = 0.03
  batch_size: int = 64
  smoke: bool = False


class Run(NamedTuple):
  """Test accuracies of one encoder."""

  trained: float  # of the head it was trained with
  refitted: float  # of a new head on its frozen features: 1 - eta


def load(cfg: Setting) -> data.Splits:
  """AV-MNIST; a smoke run takes blobs and tones."""
  table = (
    data.load("av_mnist", fake=True)
    if cfg.smoke
    else data.load("av_mnist", train_size=cfg.train_size)
  )
  return table.splits()


def draw(label: np.ndarray, fraction: float, seed: int) -> np.ndarray:
  """Rows of a fraction, as many of each class as in all rows but at least one, the same for all subsets."""
  rng, rows = np.random.default_rng(seed), []
  for c in np.unique(label):
    mine = rng.permutation(np.flatnonzero(label == c))
    rows.append(mine[: max(1, round(fraction * len(mine)))])
  return np.sort(np.concatenate(rows))


def make_method(cfg: Setting, splits: data.Splits, subset: tuple[str, ...]):
  """LeNets, concatenation, one linear head: joint training of the modalities of a subset."""
  lenet = lambda m: encoders.by_name("lenet", splits.train.inputs[m].shape, np.dtype(np.float32))
  model = fusion.LateFusion({m: lenet(m) for m in subset}, splits.num_outputs)
  return methods.METHODS["joint"](model, tx=train.sgd(cfg.learning_rate, schedule="cosine"))


def measure(cfg: Setting, splits: data.Splits, method, fraction: float, seed: int) -> Run:
  """Trains on a fraction to the last step, freezes, refits, and judges both heads on the test rows.

  The rows of a fraction are repeated up to the number of all: every run takes as many steps, and one
  program serves all fractions. No validation row is read: beside a hundredth of the training rows they
  would be most of what is known.
  """
  rows = draw(splits.train.label, fraction, seed)
  part = splits.train.rows(np.resize(rows, len(splits.train)))
  few = splits.with_parts(train=part, validation=None, test=None)
  state = train.fit(
    method, few, epochs=cfg.epochs, batch_size=cfg.batch_size, seeds=[seed], diagnose=False
  ).state()
  seen, judged = (train.predict_split(method, state, s) for s in (part, splits.test))
  label = splits.test.label
  eta = metrics.latent_quality(
    {m: h[: len(rows)] for m, h in seen.features.items()},
    part.label[: len(rows)],
    heldout=(judged.features, label),
    ridge=RIDGE,
  )
  return Run(100 * float(np.mean(judged.logits.argmax(-1) == label)), 100 * (1 - eta))


def cells(cfg: Setting, splits: data.Splits) -> dict[float, dict[str, list[Run]]]:
  """{fraction: {subset: a run per seed}}; after the first has compiled, one run per core at a time."""
  found: dict[float, dict[str, list[Run]]] = {f: {} for f in cfg.fractions}
  for name, subset in SUBSETS.items():
    method = make_method(cfg, splits, subset)
    for fraction in cfg.fractions:
      run = functools.partial(measure, cfg, splits, method, fraction)
      with ThreadPoolExecutor(cores()) as pool:
        found[fraction][name] = [run(0), *pool.map(run, range(1, cfg.seeds))]
    train.release_programs()
  return found


def tables(found: dict[float, dict[str, list[Run]]], rows: int) -> tuple[str, str]:
  """(refitted heads and gamma, heads as trained)."""
  refit, trained = [], []
  for fraction, runs in found.items():
    lead = [f"{fraction:g}", round(fraction * rows), "n/a"]
    value = {name: [r.refitted for r in runs[name]] for name in SUBSETS}
    gamma = [report.paired(value["both"], value[name]) for name in ("image", "audio")]
    refit.append(
      [
        *lead,
        *(_common.interval(v) for v in value.values()),
        *(_common.figure(g, "+") for g in gamma),
      ]
    )
    own = {name: [r.trained for r in runs[name]] for name in SUBSETS}
    trained.append(
      [
        *lead[:2],
        *(_common.interval(v) for v in own.values()),
        _common.figure(report.paired(own["both"], own["image"]), "+"),
      ]
    )
  return (
    _common.table(
      ["fraction", "rows", "paper", *SUBSETS, "gamma(both, image)", "gamma(both, audio)"], refit
    ),
    _common.table(["fraction", "rows", *SUBSETS, "both less image"], trained),
  )


def page(cfg: Setting, command: str) -> str:
  """The page of one run."""
  splits = load(cfg)
  rows = len(splits.train.label)
  refit, trained = tables(cells(cfg, splits), rows)
  return "\n".join(
    [
      _common.heading(
        f"# provable_mml on AV-MNIST: image, audio and both, {rows:,} training rows",
        command,
        f"0..{cfg.seeds - 1}: the rows of a fraction, initialisation and batch order",
      ),
      f"LeNets and one linear head trained on a fraction of the training rows, repeated up to {rows:,} an "
      f"epoch ({cfg.epochs} epochs of SGD, momentum .9, rate {cfg.learning_rate} falling by a cosine, batch "
      f"{cfg.batch_size}; the last step counts), then frozen. Test accuracy in percent "
      f"({len(splits.test.label):,} rows), mean ± half-width of the 95 % t interval over {cfg.seeds} seeds; "
      "gamma(M, N) = accuracy of M - accuracy of N, paired, positive = M is better. Nothing was searched. "
      "The paper has no figure for this set: n/a.\n",
      "## 5. Refitted heads\n\nMultinomial logistic regression on the frozen features, ridge "
      f"{RIDGE}: 1 - eta.\n\n"
      f"{refit}\n",
      f"## 6. Heads as trained\n\n{trained}",
    ]
  )
