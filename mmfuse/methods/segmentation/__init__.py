"""What says where something is: maps as large as an image, and their page of the index."""

from mmfuse.methods._entry import CLASSES, row
from mmfuse.methods.segmentation._wss_cmer import wss_cmer

__all__ = ["wss_cmer"]

ROWS = {
  "wss_cmer": row(
    wss_cmer, "objective", "parity", "patel2022weakly", {"cross": (0.3, 1.0, 3.0)}, tasks=CLASSES
  ),
}
