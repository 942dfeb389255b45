"""What each balancing rule promises, measured on problems with known answers: docs/rules.md.

Problems: quadratics L_k(x) = s_k (1 + 1/2 |x - c_k|^2 over its axes) of three objectives; a pair is
three of which one is absent. Rules that learn are warmed first: 30 updates over epochs 0 to 9 on
the same problem, whose x stays where it is. The next update is then measured, with three keys; the
Pareto set on 200 steps of x <- x - .2 (1 - t / 200) d from a fresh rule. No network is trained.

Claim: every property that a rule's documentation promises is there; the others are measured too.
Command: python -m experiments.rule_properties            (half a minute; writes docs/rules.md)
         python -m experiments.rule_properties --smoke    (prints it only)
Expected: no bold "no". tests/balancing/test_rule_properties.py measures every promise again.
"""

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._common import table
from mmfuse import balancing, tree
from mmfuse.balancing import _min_norm
from mmfuse.balancing._aligned_mtl import aligned_mtl
from mmfuse.balancing._dualproj import dualproj
from mmfuse.balancing._dwa import dwa
from mmfuse.balancing._excess_mtl import excess_mtl
from mmfuse.balancing._fairgrad import fairgrad
from mmfuse.balancing._famo import famo
from mmfuse.balancing._gblending import aggregate_by_gblending
from mmfuse.balancing._graddrop import graddrop
from mmfuse.balancing._gradnorm import gradnorm
from mmfuse.balancing._gradvac import gradvac
from mmfuse.balancing._imtl_g import imtl_g
from mmfuse.balancing._imtl_l import imtl_l
from mmfuse.balancing._moco import moco
from mmfuse.balancing._modo import modo
from mmfuse.balancing._nash_mtl import nash_mtl
from mmfuse.balancing._rlw import rlw
from mmfuse.balancing._sdmgrad import sdmgrad
from mmfuse.balancing._upgrad import upgrad
from mmfuse.balancing._uw import uw
from mmfuse.core import Clock

OBJECTIVES, DIM, STEPS, RATE = 3, 6, 200, 0.2
PAGE = pathlib.Path(__file__).parent.parent / "docs" / "rules.md"
LABELS = {"a": tree.Owner("a", "encoder", tuple(range(OBJECTIVES)))}


class Property(NamedTuple):
  """One column."""

  title: str
  meaning: str
  holds: Callable[[float], bool]


PROPERTIES = {
  "descends": Property(
    "descends all",
    "smallest cosine of d and any g_k on conflicting gradients, at least -.001",
    lambda x: x >= -1e-3,
  ),
  "pareto": Property(
    "Pareto set",
    "largest distance to the Pareto set after 200 steps (the smallest norm of a convex "
    "combination of the gradients), below .01",
    lambda x: x < 1e-2,
  ),
  "scale": Property(
    "loss scale",
    "smallest cosine of d before and after one loss is multiplied by 100, above .999",
    lambda x: x > 0.999,
  ),
  "simplex": Property(
    "simplex",
    "largest of |sum of the weights - 1| and -(smallest weight), below .0001",
    lambda x: x < 1e-4,
  ),
  "permutation": Property(
    "order",
    "largest relative change of d when the first two objectives change places, at one key, below "
    ".001",
    lambda x: x < 1e-3,
  ),
  "plain_sum": Property(
    "plain sum",
    "smallest cosine of d and the sum of the gradients where none conflict, above .9999",
    lambda x: x > 0.9999,
  ),
  "finite": Property(
    "zero, absent",
    "share of updates that are finite and give the absent exactly weight 0, with a zero gradient, "
    "all zero, one or all absent: 1",
    lambda x: x == 1,
  ),
}

# name: (factory of K, the properties its documentation promises). One line a rule.
RULES: dict[str, tuple[Callable[[int], Any], set[str]]] = {
  "uniform": (balancing.uniform, {"permutation", "plain_sum", "finite"}),
  "mimo": (balancing.mimo, {"finite"}),
  "stch": (balancing.stch, {"permutation", "finite"}),
  "mmpareto": (balancing.mmpareto, {"plain_sum", "finite"}),
  "mgda": (balancing.mgda, {"descends", "pareto", "simplex", "permutation", "finite"}),
  "pcgrad": (balancing.pcgrad, {"plain_sum", "finite"}),
  "cagrad": (balancing.cagrad, {"permutation", "finite"}),
  "bogc": (balancing.bogc, {"simplex", "permutation", "finite"}),
  "imtl_g": (imtl_g, {"permutation", "finite"}),
  "nash_mtl": (nash_mtl, {"descends", "pareto", "scale", "permutation", "finite"}),
  "aligned_mtl": (aligned_mtl, {"permutation", "finite"}),
  "fairgrad": (fairgrad, {"descends", "pareto", "scale", "permutation", "finite"}),
  "fairgrad_5": (functools.partial(fairgrad, alpha=5.0), {"descends", "permutation", "finite"}),
  "upgrad": (upgrad, {"descends", "pareto", "permutation", "plain_sum", "finite"}),
  "dualproj": (dualproj, {"descends", "pareto", "permutation", "plain_sum", "finite"}),
  "gradnorm": (gradnorm, {"permutation", "finite"}),
  "graddrop": (graddrop, {"plain_sum", "finite"}),
  "gradvac": (gradvac, {"finite"}),
  "moco": (moco, {"simplex", "permutation", "finite"}),
  "modo": (modo, {"simplex", "permutation", "finite"}),
  "sdmgrad": (sdmgrad, {"simplex", "permutation", "finite"}),
  "excess_mtl": (excess_mtl, {"permutation", "finite"}),
  "uw": (uw, {"permutation", "finite"}),
  "imtl_l": (imtl_l, {"permutation", "finite"}),
  "famo": (famo, {"simplex", "permutation", "finite"}),
  "dwa": (dwa, {"permutation", "finite"}),
  "rlw": (rlw, {"simplex", "finite"}),
  "gblending": (aggregate_by_gblending, {"simplex", "permutation", "finite"}),
}


# Problems


class Problem(NamedTuple):
  """Three quadratics; stacked along a leading axis [N] where they are run."""

  start: np.ndarray  # [D]
  centres: np.ndarray  # [K, D]
  axes: np.ndarray  # [K, D], 1 where the objective has curvature
  scale: np.ndarray  # [K]
  present: np.ndarray  # bool [K]


def problem(centres, *, start=None, axes=None, scale=(1, 1, 1), present=(1, 1, 1)) -> Problem:
  """Lists shorter than D or K are filled with zeros."""

  def fill(rows, height):
    out = np.zeros((height, DIM), np.float32)
    for row, values in zip(out, np.atleast_2d(rows)):
      row[: len(values)] = values
    return out

  axes = np.ones((OBJECTIVES, DIM), np.float32) if axes is None else fill(axes, OBJECTIVES)
  first = np.zeros(DIM, np.float32) if start is None else fill(start, 1)[0]
  weights = np.asarray(scale, np.float32)
  return Problem(first, fill(centres, OBJECTIVES), axes, weights, np.asarray(present, bool))


def probe(grads, **kind) -> Problem:
  """The problem whose gradients at 0 are the given ones [K, D]."""
  return problem(-np.asarray(grads, np.float32), **kind)


PAIR = (1, 1, 0)
# Runs. The axes of the orthogonal pair are not shared: where one objective is at its minimum, any
# value of the other is (weakly) Pareto-stationary.
RUNS = {
  "conflicting pair": problem([[1, 0], [-1, 0]], start=[2, 1.5, -1], present=PAIR),
  "aligned pair": problem([[1, 1], [1, 1]], start=[-1, 2, 1], present=PAIR),
  "orthogonal pair": problem(
    [[1, 1, 0, 0], [0, 0, -1, 2]], axes=[[1, 1, 0, 0], [0, 0, 1, 1]], present=PAIR
  ),
  "three objectives": problem([[1, 0], [-1, 0.5], [0, -1.5]], start=[2, 1.5, -1, 1]),
}
ORDER = np.array([1, 0, 2])
KEYS, WARM = 3, 30  # keys of the measured update; updates before it


def conflicting(seed: int) -> np.ndarray:
  """Gradients [K, D] of different lengths: odd seeds all but cancel in the mean."""
  grads = np.random.default_rng(seed).normal(size=(OBJECTIVES, DIM))
  if seed % 2:
    grads = grads - 0.9 * grads.mean(0)
  return grads * np.array([[1.0], [0.5], [2.0]])


def acute(seed: int) -> np.ndarray:
  """Gradients [K, D] with positive products throughout."""
  return np.abs(conflicting(seed)) + 0.1


SEEDS = range(4)
SCALED = [(1, 100, 1), (1, 1, 0.01)]
PROBES: dict[str, list[Problem]] = {
  "plain": [probe(conflicting(s), present=p) for s in SEEDS for p in ((1, 1, 1), PAIR)],
  "permuted": [probe(conflicting(s)[ORDER]) for s in SEEDS],
  "scaled": [probe(conflicting(s), scale=k) for s in SEEDS for k in SCALED],
  "acute": [probe(acute(s), present=p) for s in SEEDS for p in ((1, 1, 1), PAIR)],
  "edge": [
    probe(conflicting(0) * np.array([[1.0], [0.0], [1.0]])),
    probe(np.zeros((OBJECTIVES, DIM))),
    probe(conflicting(0), present=(1, 0, 1)),
    probe(conflicting(0), present=(0, 1, 1)),
    probe(conflicting(0), present=(0, 0, 0)),
    probe(np.tile(conflicting(0)[:1], (OBJECTIVES, 1))),
    probe(conflicting(0)[:1] * np.array([[1.0], [-2.0], [0.5]])),
  ],
}


def stack(problems: list[Problem]) -> Problem:
  """[N, ...] of each field."""
  return Problem(*(np.stack(field) for field in zip(*problems)))


# Running a rule


def losses_of(x, p: Problem):
  """[K], absent ones 0 as in training."""
  losses = p.scale * (1.0 + 0.5 * jnp.sum(p.axes * (x[None] - p.centres) ** 2, axis=1))
  return jnp.where(p.present, losses, 0.0)


def make_step(factory: Callable[[int], Any]) -> tuple[Any, Callable[..., Any]]:
  """(rule, step(x, state, problem, key, clock, rate) -> (x, state, d, weights)), over N at once."""
  rule = factory(OBJECTIVES)

  def step(x, state, p, key, clock, rate):
    losses, before = losses_of(x, p), state
    grads = (p.present * p.scale)[:, None] * p.axes * (x[None] - p.centres)
    direction, state = rule.update(
      {"a": grads},
      state,
      {"a": x},
      losses=losses,
      present=p.present,
      key=key,
      clock=clock,
      owners=LABELS,
    )
    weights = state.weights
    if isinstance(rule, balancing.Weighting):  # its state need not hold what it multiplies by
      weights, _ = rule.weigh(losses, before, {"a": x}, present=p.present, key=key, clock=clock)
    moved = x - rate * direction["a"]
    if getattr(rule, "after", None) is not None:
      state = rule.after(losses_of(moved, p), state)
    return moved, state, direction["a"], weights

  return rule, jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None, None, None)))


def clock_at(step: int, epoch: int) -> Clock:
  """Ten batches an epoch, twenty epochs."""
  return Clock(*(jnp.int32(n) for n in (step, epoch, step % 10, 10, 20)))


def fresh(rule, count: int):
  """The initial state, N times."""
  state = rule.init({"a": jnp.zeros(DIM, jnp.float32)})
  return jax.tree.map(lambda leaf: jnp.tile(leaf[None], (count,) + (1,) * leaf.ndim), state)


def measure(factory: Callable[[int], Any]) -> dict[str, float]:
  """{property: number}; one compilation."""
  rule, step = make_step(factory)
  batch = stack([p for group in PROBES.values() for p in group])
  count = len(batch.start)
  keys, still = jax.random.split(jax.random.key(0), WARM + KEYS), jnp.float32(0)
  x, state = batch.start, fresh(rule, count)
  for t, key in enumerate(keys[:WARM]):
    x, state, _, _ = step(x, state, batch, key, clock_at(t, t // 3), still)
  measured = [step(x, state, batch, key, clock_at(100, 10), still)[2:] for key in keys[WARM:]]
  groups, at = {}, 0
  for name, members in PROBES.items():
    part = slice(at, at + len(members))
    groups[name] = (
      Problem(*(np.concatenate([f[part]] * KEYS) for f in batch)),
      *(np.concatenate([np.asarray(a[part]) for a in found]) for found in zip(*measured)),
    )
    at += len(members)
  found = {name: MEASURES[name](groups) for name in MEASURES}
  return {**found, "pareto": distance_after(rule, step, count)}


def _gradients(p: Problem) -> np.ndarray:
  return -(p.present * p.scale)[..., None] * p.axes * p.centres


def _cosines(a, b):
  """Of the last axis; 0 where one is zero."""
  norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
  return np.sum(a * b, axis=-1) / np.where(norms > 1e-12, norms, np.inf)


def _descends(groups):
  p, d, _ = groups["plain"]
  return float(np.where(p.present, _cosines(d[:, None], _gradients(p)), np.inf).min())


def _scale(groups):
  plain = groups["plain"][1][::2]  # those with all objectives
  return float(_cosines(np.repeat(plain, len(SCALED), axis=0), groups["scaled"][1]).min())


def _simplex(groups):
  weights = groups["plain"][2]
  return float(max(np.abs(weights.sum(1) - 1).max(), -weights.min(), 0))


def _permutation(groups):
  plain, permuted = groups["plain"][1][::2], groups["permuted"][1]
  norms = np.maximum(np.linalg.norm(plain, axis=1), 1e-12)
  change = np.linalg.norm(plain - permuted, axis=1) / norms
  return float(change.max())


def _plain_sum(groups):
  p, d, _ = groups["acute"]
  return float(_cosines(d, _gradients(p).sum(1)).min())


def _finite(groups):
  p, d, w = groups["edge"]
  finite = np.isfinite(d).all(1) & np.isfinite(w).all(1)
  return float((finite & (p.present | (w == 0)).all(1)).mean())


MEASURES = {
  "descends": _descends,
  "scale": _scale,
  "simplex": _simplex,
  "permutation": _permutation,
  "plain_sum": _plain_sum,
  "finite": _finite,
}

_min_norm = jax.jit(jax.vmap(_min_norm.min_norm))


def stationarity(x: np.ndarray, p: Problem) -> np.ndarray:
  """[N], smallest norm of a convex combination of the gradients: 0 on the Pareto set.

  With curvature 1 on all axes it is the distance to the hull of the minima.
  """
  grads = (p.axes * (x[:, None] - p.centres)).astype(np.float32)
  weights = np.asarray(_min_norm(np.einsum("nkd,njd->nkj", grads, grads), p.present))
  return np.linalg.norm(np.einsum("nk,nkd->nd", weights, grads), axis=-1)


def distance_after(rule, step, count: int) -> float:
  """The largest distance to the Pareto set, over the runs."""
  problems = list(RUNS.values())
  batch = stack([problems[i % len(problems)] for i in range(count)])  # the shape of the probes
  x, state, keys = batch.start, fresh(rule, count), jax.random.split(jax.random.key(1), STEPS)
  for t in range(STEPS):
    rate = jnp.float32(RATE * (1 - t / STEPS))
    x, state, _, _ = step(x, state, batch, keys[t], clock_at(t, t // 10), rate)
  worst = float(stationarity(np.asarray(x), batch).max())
  return worst if np.isfinite(worst) else float("inf")


# The page

# Every measured `no` that surprises, with its reason.
NOTES = [
  "- `imtl_g`, three objectives: the weights may be negative, and equal projections may all be zero",
  "  before the Pareto set is reached; it then stands still.",
  "- `imtl_g`, loss scale: measured here, not promised: where the raw weights do not sum to a positive",
  "  number, its guard takes equal weights.",
  "- `fairgrad_5`, three objectives: it approaches slowly, with a direction whose length stays 1; after",
  "  1000 steps the distance is .03.",
  "- `bogc`, orthogonal pair: where an objective's gradient is zero without noise, its variance is",
  "  zero too, and the others are ignored there; owners that name the rows of a leaf avoid it.",
  "- `pcgrad`, `gradvac`: with three objectives a projection can bring back a conflict removed before,",
  "  and d depends on the order in which the objectives meet, which is drawn: at one key, objectives",
  "  that change places meet in another order. A pair has no order.",
  "- `mimo`, `mmpareto`: the first objective is the fused one. `rlw`: its weights are drawn by place.",
  "- `famo` moves its weights by what the losses fall, which is nothing while the parameters stand.",
]


def cell(name: str, value: float, promised: bool) -> str:
  """`yes` or `no`, the number, and the promise in bold."""
  word = "yes" if PROPERTIES[name].holds(value) else "no"
  return f"**{word}** {value:.2g}" if promised else f"{word} {value:.2g}"


def render(measured: dict[str, dict[str, float]]) -> str:
  """The page, from {rule: {property: number}}."""
  head = ["rule", *(p.title for p in PROPERTIES.values())]
  rows = [
    [f"`{rule}`", *(cell(name, values[name], name in RULES[rule][1]) for name in PROPERTIES)]
    for rule, values in measured.items()
  ]
  lines = [
    "# What the balancing rules promise, and what is measured",
    "",
    "Written by `python -m experiments.rule_properties`; a test measures every promise again.",
    "**Bold** = promised by the rule's documentation; then the measured number. Quadratics of three",
    "objectives with known Pareto sets, every rule with its defaults. `no` without bold breaks no",
    "promise: it is how the rule is meant. Rules that learn are warmed first: 30 updates over ten",
    "epochs on the same problem, whose parameters stay where they are; the Pareto set is approached",
    "from a fresh state.",
    "",
    table(head, rows),
    "",
    *(f"- **{p.title}**: {p.meaning}." for p in PROPERTIES.values()),
    "",
    f"The distance is the largest over {', '.join(RUNS)}, at",
    f"step size {RATE} falling to 0: it depends on a rule's own scale as well as on where it ends.",
    "",
    *NOTES,
    "",
  ]
  return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
  """Measures every rule and writes docs/rules.md (`--smoke`: prints it only)."""
  text = render({name: measure(factory) for name, (factory, _) in RULES.items()})
  print(text)
  if "--smoke" not in (sys.argv[1:] if argv is None else argv):
    PAGE.write_text(text)


if __name__ == "__main__":
  main()
