"""Representations of all modalities in one space, learnt without labels, and their page of the index.

Each row serves every task of a label with a linear head, and retrieval as it is; but for umurl, which
joins what one modality, a skeleton, gives: there is no other to retrieve.
"""

from mmfuse.methods._entry import ALL_TASKS
from mmfuse.methods._entry import row
from mmfuse.methods.representation._cca import cca
from mmfuse.methods.representation._cmimh import cmimh
from mmfuse.methods.representation._contrastive import contrastive_towers
from mmfuse.methods.representation._umurl import umurl
from mmfuse.names import RETRIEVAL

__all__ = ["cca", "cmimh", "contrastive_towers", "umurl"]

_TASKS = (*ALL_TASKS, RETRIEVAL)

# fmt: off
ROWS = {
  "cca": row(
    cca, "schedule", "equations", "hotelling1936relations", {"components": (5, 10, 20)},
    tasks=_TASKS, needs=("task",)),
  "contrastive": row(
    contrastive_towers, "objective", "equations", "radford2021learning",
    {"temperature": (0.03, 0.07, 0.2)}, tasks=_TASKS, needs=("task",)),
  "cmimh": row(
    cmimh, "objective", "reconstructed", "hoang2023multimodal", {"gap": (0.0, 0.1, 1.0)},
    tasks=_TASKS, needs=("task",)),
  "umurl": row(umurl, "objective", "parity", "sun2023unified", {"inter": (1.0, 5.0, 25.0)}),
}
# fmt: on
