"""Representations learnt without labels, and their page of the index: each with a linear head.

`mdrnn` and `mdrnn_deep` are the models alone; energies, samples and inference are in `mrbm`.
"""

from mmfuse.methods._entry import row
from mmfuse.methods.generative._mdrnn import mdrnn
from mmfuse.methods.generative._mdrnn_deep import mdrnn_deep
from mmfuse.methods.generative._mdrnn_with_head import mdrnn_pcd_with_head
from mmfuse.methods.generative._mdrnn_with_head import mdrnn_with_head

__all__ = ["mdrnn", "mdrnn_deep", "mdrnn_pcd_with_head", "mdrnn_with_head"]

_RATES = (0.03, 0.1, 0.3)  # of plain gradients

# fmt: off
ROWS = {
  "mdrnn": row(
    mdrnn_with_head, "schedule", "parity", "sohn2014improved", {"reveal": (0.0, 0.25, 0.5)},
    needs=("learning_rate",), rates=_RATES),
  "mdrnn_pcd": row(
    mdrnn_pcd_with_head, "schedule", "parity", "sohn2014improved", {"kcd": (1, 5, 10)},
    as_in=True, needs=("learning_rate",), rates=_RATES),
}
# fmt: on
