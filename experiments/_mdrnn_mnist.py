"""MNIST halves for `experiments.mdrnn`: all four objectives, a linear SVM, the paper's columns.

The recipe is the authors' (300 epochs of 500 batches of 100, H = 1000, rate .01); the short version
has fewer of all and a larger rate, so that it says which objective is better and not how good it is.
"""

import dataclasses
import time

import numpy as np

from experiments import _common, _halves
from mmfuse import train
from mmfuse.data import _av_mnist_sources
from mmfuse.methods import generative

PAPER = {
  "pcd": (1.57, 14.98, 18.88),
  "cdpl": (1.71, 9.42, 11.02),
  "mp": (1.73, 6.58, 7.27),
}  # from memory
EVERY_C = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)


@dataclasses.dataclass(frozen=True)
class Size:
  """How much of it is run."""

  train: int  # of the 50,000
  validation: int  # of the 10,000
  test: int
  epochs: int
  hidden: int
  rate: float
  costs: tuple[float, ...]  # C of the SVM, chosen on validation rows


FULL = Size(50_000, 10_000, 10_000, 300, 1000, 0.01, EVERY_C)
SHORT = Size(5000, 1000, 10_000, 20, 300, 0.1, (0.01, 0.1, 1))
SMOKE = Size(200, 50, 60, 1, 8, 0.1, (0.1, 1))


def load(size: Size, seed: int):
  """((x, label) of training, validation and test rows), the 60,000 shuffled by the seed."""
  arrays = _av_mnist_sources.read_mnist()
  order = np.random.default_rng(seed).permutation(60_000)
  rows = {"train": order[: size.train], "validation": order[50_000 : 50_000 + size.validation]}
  found = []
  for name, index in (*rows.items(), ("t10k", np.arange(size.test))):
    file = "t10k" if name == "t10k" else "train"
    images = arrays[f"{file}-images-idx3-ubyte"][index].astype(np.float32) / 255
    found.append(
      (_halves.halves(images), arrays[f"{file}-labels-idx1-ubyte"][index].astype(np.int32))
    )
  return found


def classifier(state, fitting, choosing, costs):
  """A linear SVM of h from both halves; C by validation rows, then all rows (LIBLINEAR -s 2)."""
  from sklearn.svm import LinearSVC

  make = lambda c: LinearSVC(C=c, dual=False, max_iter=5000)
  h, g = (_halves.features(state, x, "LR") for x, _ in (fitting, choosing))
  scores = [make(c).fit(h, fitting[1]).score(g, choosing[1]) for c in costs]
  best = make(costs[int(np.argmax(scores))])
  return best.fit(np.concatenate([h, g]), np.concatenate([fitting[1], choosing[1]]))


def measure(size: Size, seeds: int) -> dict[str, np.ndarray]:
  """{objective: error % [seeds, iterations, views]}."""
  methods = {
    o: generative.mdrnn(size.hidden, size.rate, o) for o in ("pcd", "cdpl", "mp", "hybrid")
  }
  found: dict[str, list] = {name: [] for name in methods}
  for seed in range(seeds):
    fitting, choosing, (test, label) = load(size, seed)
    for name, method in methods.items():
      began = time.perf_counter()
      state = train.fit(
        method, _halves.splits_of(*fitting), epochs=size.epochs, batch_size=100, seeds=[seed]
      ).state()
      head = classifier(state, fitting, choosing, size.costs)
      found[name].append(_halves.errors(head, state, test, label))
      print(f"seed {seed}, {name}: {time.perf_counter() - began:.0f} s", flush=True)
  return {name: np.asarray(e) for name, e in found.items()}


def _against_paper(name: str, errors: np.ndarray) -> list[str]:
  """The row of an objective: the paper's three numbers, ours, and ours less the paper's."""
  ours = errors[:, -1]
  if name not in PAPER:
    return [name, "n/a", *_halves.cells(ours), "n/a"]
  difference = " / ".join(f"{d:+.1f}" for d in ours.mean(0) - np.asarray(PAPER[name]))
  return [name, " / ".join(f"~{p}" for p in PAPER[name]), *_halves.cells(ours), difference]


def page(size: Size, seeds: int, command: str) -> str:
  """Runs it, and says so."""
  found = measure(size, seeds)
  text = _common.heading("# mdrnn: MNIST with one half missing", command, f"0..{seeds - 1}")
  what = (
    "the full recipe" if size == FULL else "not the paper's recipe, so its columns are no target"
  )
  text += (
    f"\n{what[0].upper()}{what[1:]}: {size.train} training rows, {size.validation} for C, {size.test} test; "
    f"H = {size.hidden}, {size.epochs} epochs of batches of 100, rate {size.rate}. Gibbs steps and gradient "
    f"iterations, which grow every 10 and 20 epochs, end at {min(10, 1 + (size.epochs - 1) // 10)} and "
    f"{min(5, 1 + (size.epochs - 1) // 20)} (recipe: 10 and 5).\n"
    "Test error %, mean ± half-width of the 95 % t interval over seeds (rows, initialisation, batches); "
    f"{_halves.ITERATIONS[-1]} mean-field steps.\nPaper: from memory, full recipe.\n\n"
    + _common.table(
      ["objective", "paper, L+R / L / R", *_halves.VIEWS, "ours less paper"],
      [_against_paper(n, e) for n, e in found.items()],
    )
    + "\n\n## Less pcd, paired by seed\n\n"
    + _common.table(
      ["objective", *_halves.VIEWS],
      [[n, *_halves.cells((e - found["pcd"])[:, -1])] for n, e in found.items() if n != "pcd"],
    )
    + "\n\n## Mean-field steps at test\n\n"
    + _common.table(["objective, mean-field steps", *_halves.VIEWS], _halves.iteration_rows(found))
    + "\n\nEach objective has the sparsity of its own recipe: the objective is not all that differs.\n"
  )
  return text
