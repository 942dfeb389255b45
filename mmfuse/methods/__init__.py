"""THE INDEX: every method by name, its builder, paper, kind, fidelity and file.

Each family is a package that ends in its page of the index, `ROWS`. A builder is
`build(model, tx, **hyper) -> Method`; what else it must know stands in `Entry.needs`. Entries are
callable: `METHODS["mimo"](model, 1e-2)`.
"""

from mmfuse.methods import (
  balancing,
  baselines,
  ensembles,
  generative,
  heads,
  missing,
  representation,
  segmentation,
)
from mmfuse.methods._entry import ALL_TASKS
from mmfuse.methods._entry import CLASSES
from mmfuse.methods._entry import FACTS
from mmfuse.methods._entry import LABELLED
from mmfuse.methods._entry import WITH_MAPS
from mmfuse.methods._entry import Entry
from mmfuse.methods._entry import of_rate
from mmfuse.names import RETRIEVAL, SEGMENTATION, closest

__all__ = [
  "ALL_TASKS",
  "BASELINES_OF",
  "CLASSES",
  "DEFAULT",
  "DEFAULT_OF",
  "FACTS",
  "FAMILY_NAMES",
  "HEADS",
  "LABELLED",
  "METHODS",
  "SMOKE",
  "WITH_MAPS",
  "Entry",
  "citation",
  "get",
  "of_rate",
]


def _rows(*families) -> dict[str, Entry]:
  """The pages of some families, one after the other."""
  return {
    name: entry._replace(family=family.__name__.rpartition(".")[2])
    for family in families
    for name, entry in family.ROWS.items()
  }


METHODS: dict[str, Entry] = _rows(
  baselines, ensembles, missing, balancing, generative, representation, segmentation
)
# I2M2's joint expert alone is `joint`.
METHODS["inter"] = METHODS["joint"]._replace(
  paper=f"joint, {METHODS['intra'].paper}", cite=METHODS["intra"].cite, alias_of="joint"
)
METHODS |= _rows(heads)  # last: under one `--fusion` they are another axis
HEADS = tuple(heads.ROWS)
FAMILY_NAMES = tuple(dict.fromkeys(entry.family for entry in METHODS.values()))

# What `compare` runs unless told otherwise.
DEFAULT = (
  "unimodal",
  "late_average",
  "joint",
  "uniform",
  "ogm_ge",
  "mimo",
  "mmpareto",
  "pcgrad",
  "cagrad",
  "bogc",
)
SMOKE = ("joint", "uniform", "mimo")
# The same where the task is not one of a label that is predicted.
DEFAULT_OF = {
  RETRIEVAL: ("cca", "contrastive", "cmimh", "unseen_interaction"),
  SEGMENTATION: ("unimodal", "joint", "uniform", "dropout", "shaspec", "dmrnet", "mmanet"),
}
# What every row of a table is compared with, where it is not `joint` and `uniform`.
BASELINES_OF = {RETRIEVAL: ("cca",)}


def get(name: str) -> Entry:
  """The entry of a name; an unknown one raises ValueError with the closest names."""
  if name in METHODS:
    return METHODS[name]
  raise ValueError(f"unknown method {name!r}; {closest(name, METHODS)}")


def citation(name: str) -> str:
  """BibTeX of a method's paper; "" for a baseline without one."""
  return get(name).cite
