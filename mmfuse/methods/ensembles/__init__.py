"""Several complete models and one prediction, and their page of the index.

The networks and optimisers of I2M2's own experiments are in `i2m2_recipes`.
"""

from mmfuse.methods._entry import CLASSES, row
from mmfuse.methods.ensembles._i2m2 import i2m2
from mmfuse.methods.ensembles._i2m2 import intra
from mmfuse.methods.ensembles._late_average import late_average

__all__ = ["i2m2", "intra", "late_average"]

# fmt: off
ROWS = {
  "late_average": row(
    late_average, "baseline", "baseline", about="independent models, averaged", needs=("task",)),
  "i2m2": row(i2m2, "forward", "parity", "madaan2024jointly", tasks=CLASSES),
  "intra": row(intra, "forward", "parity", "madaan2024jointly", as_in=True, tasks=CLASSES),
}
# fmt: on
