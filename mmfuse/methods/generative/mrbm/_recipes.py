"""The authors' four recipes for MNIST halves: one objective each, and the numbers it goes with."""

from typing import NamedTuple

# {objective: what it minimises}
OBJECTIVES = {
  "mp": "variation of information, by multi-prediction",
  "pcd": "-log likelihood, by persistent chains",
  "cdpl": "variation of information, by sampled predictions of low free energy (CD-PercLoss)",
  "hybrid": "alpha times that of mp + (1 - alpha) times that of pcd",
}


class Recipe(NamedTuple):
  """Numbers of a training run; those an objective does not use are left as they are."""

  decay: float = 0.005  # of the rate: epsilon / (1 + decay t)
  l2: float = 1e-4
  sparsity_weight: float = 0.1
  sparsity_target: float = 0.1
  steps: int = 5  # n, mean-field iterations of a prediction (mp, hybrid)
  nstop: int = 5  # through how many of them gradients pass in the end (mp, hybrid)
  reveal: float = 0.25  # p, share of revealed target units (mp, hybrid)
  kcd: int = 10  # Gibbs steps in the end (pcd, cdpl, hybrid)
  chains: int = 500  # persistent ones (pcd, hybrid)
  alpha: float = 0.5  # (hybrid)


RECIPES = {
  "mp": Recipe(),
  "pcd": Recipe(sparsity_weight=0.3, sparsity_target=0.05),
  "cdpl": Recipe(),
  "hybrid": Recipe(reveal=0.1),
}


def recipe_of(objective: str, changes: dict) -> Recipe:
  """The recipe of an objective with some numbers changed; ValueError for an unknown name."""
  if objective not in RECIPES:
    raise ValueError(f"unknown objective {objective!r}; expected one of: {', '.join(RECIPES)}")
  unknown = sorted(set(changes) - set(Recipe._fields))
  if unknown:
    raise ValueError(f"a recipe has no {unknown[0]!r}; it has: {', '.join(Recipe._fields)}")
  return RECIPES[objective]._replace(**changes)
