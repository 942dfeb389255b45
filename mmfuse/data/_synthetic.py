"""synthetic_1 and synthetic_2: two modalities, one learnt fast, one slowly, by two mechanisms.

Both have 8 classes, 2,400 training, 800 validation and 2,400 test rows. A has one Gaussian cluster
per class; B has three per class, of which a linear map reads a part only. All clusters have unit
noise, and the signal is the standard deviation of a cluster centre, per column.

Set 1: A `[20]` is easy, but in 30 % of the rows it shows a wrong class (the label is right), so its
loss stays high for good; B `[60]` is hard. A rule that follows the largest loss is misled here.
Set 2: A `[300]` has a weak signal in many columns, which a net memorises within a few epochs, and
no wrong class; B is hard. A rule that follows the largest loss helps here.

The constants were chosen so that encoders of widths 48-48 (SGD, momentum .9, rate .03, batch 64)
land in the regime that a small study of MIMO reports (in brackets). Fused accuracy / ridge probe of
A / of B on the test rows, mean of 3 seeds:
set 1, 25 epochs: joint .880/.686/.806 (.883/.706/.803), uniform .891/.675/.856 (.900/.688/.860);
set 2, 15 epochs: joint .926/.834/.648 (.919/.832/.628), uniform .951/.858/.805 (.961/.872/.792).
"""

from typing import NamedTuple

import numpy as np

from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._table import Table

RECIPE = "synthetic-1"
CLASSES, CLUSTERS = 8, 3
SIZES = {"train": 2400, "validation": 800, "test": 2400}


class Recipe(NamedTuple):
  """Constants of a set."""

  seed: int
  columns: dict[str, int]  # {modality: D}
  signal: dict[str, float]  # {modality: standard deviation of the cluster centres; noise 1}
  wrong: float  # share of rows in which A shows another class


RECIPES = {
  1: Recipe(1, {"A": 20, "B": 60}, {"A": 1.6, "B": 0.54}, 0.3),
  2: Recipe(2, {"A": 300, "B": 60}, {"A": 0.18, "B": 0.49}, 0.0),
}


def table(number: int, **signal: float) -> Table:
  """The table of set `number`, 1 or 2: `A` and `B` float32 `[5600, D]`, labels int32 `[5600]`.

  signal: {modality: standard deviation of its cluster centres} instead of the recipe's; all that is
  drawn stays.
  """
  recipe = RECIPES[number]
  recipe = recipe._replace(signal={**recipe.signal, **signal})
  rng, rows = np.random.default_rng(recipe.seed), sum(SIZES.values())
  label = rng.permutation(rows) % CLASSES  # equally many of each class
  other = (label + rng.integers(1, CLASSES, rows)) % CLASSES
  shown = np.where(rng.random(rows) < recipe.wrong, other, label)
  centres = {
    m: recipe.signal[m] * rng.normal(size=(CLASSES, CLUSTERS, d))
    for m, d in sorted(recipe.columns.items())
  }
  noise = {m: rng.normal(size=(rows, d)) for m, d in sorted(recipe.columns.items())}
  arrays = {
    "A": centres["A"][shown, 0] + noise["A"],
    "B": centres["B"][label, rng.integers(0, CLUSTERS, rows)] + noise["B"],
    "label": label,
    "split": np.repeat(list(SIZES), list(SIZES.values())),
  }
  return table_from_arrays(arrays, name=f"synthetic_{number}", recipe=RECIPE)
