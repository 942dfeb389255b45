"""What both experiments on image halves share: training rows, features, the table's numbers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import _common
from mmfuse import data
from mmfuse.methods.generative import mrbm

VIEWS = {"L+R": ("L", "R"), "L": ("L",), "R": ("R",)}
ITERATIONS = (0, 1, 5, 10)  # mean-field steps at test
CHUNK = 5000  # rows whose h is inferred at a time


_infer = jax.jit(mrbm.infer)  # the number of steps is traced: one program for all of them


def halves(images: np.ndarray) -> dict[str, np.ndarray]:
  """{L, R: [N, D / 2]} of images [N, rows, columns]: the left and the right columns."""
  middle = images.shape[2] // 2
  parts = {"L": images[:, :, :middle], "R": images[:, :, middle:]}
  return {m: x.reshape(len(x), -1) for m, x in parts.items()}


def splits_of(x: dict[str, np.ndarray], label: np.ndarray) -> data.Splits:
  """Rows in [0, 1] to train on as they are, and nothing to select by."""
  rows = np.arange(len(label), dtype=np.int32)
  split = data.Split(x, label, {m: np.ones(len(rows), bool) for m in x}, rows, None)
  return data.Splits(
    name="halves",
    parts={"train": split},
    task="classification",
    num_outputs=10,
    class_names=(),
    encoders={},
    scaler=None,
    fingerprint="",
  )


def features(
  state, x: dict[str, np.ndarray], present: Sequence[str], steps: int = 10
) -> np.ndarray:
  """h [N, H], given the halves that are present."""
  found = []
  for start in range(0, len(x["L"]), CHUNK):
    part = {m: jnp.asarray(v[start : start + CHUNK]) for m, v in x.items()}
    mask = {m: jnp.full(len(v), m in present) for m, v in part.items()}
    found.append(np.asarray(_infer(state.params, part, mask, steps)[0]))
  return np.concatenate(found)


def errors(head, state, test: dict[str, np.ndarray], label: np.ndarray) -> list[list[float]]:
  """Error % [iterations][L+R, L, R] of one classifier of h."""
  score = lambda view, n: head.score(features(state, test, view, n), label)
  return [[100 * (1 - score(view, n)) for view in VIEWS.values()] for n in ITERATIONS]


def cells(errors: np.ndarray) -> list[str]:
  """The three views of errors [seeds, views]."""
  return [_common.interval(errors[:, v]) for v in range(len(VIEWS))]


def iteration_rows(found: dict[str, np.ndarray]) -> list[list[str]]:
  """A row per method and number of mean-field steps, of errors [seeds, iterations, views]."""
  return [
    [f"{name}, {n}", *cells(e[:, i])] for name, e in found.items() for i, n in enumerate(ITERATIONS)
  ]
