"""Several complete models, or heads, and one prediction, and their page of the index.

The networks and optimisers of I2M2's own experiments are in `i2m2_recipes`.
"""

from mmfuse.methods._entry import CLASSES, row
from mmfuse.methods.ensembles._deep_ensemble import deep_ensemble
from mmfuse.methods.ensembles._dibs import dibs
from mmfuse.methods.ensembles._diverse import diverse
from mmfuse.methods.ensembles._i2m2 import i2m2
from mmfuse.methods.ensembles._i2m2 import intra
from mmfuse.methods.ensembles._late_average import late_average
from mmfuse.methods.ensembles._shared_trunk import shared_trunk

__all__ = [
  "deep_ensemble",
  "dibs",
  "diverse",
  "i2m2",
  "intra",
  "late_average",
  "shared_trunk",
]

# fmt: off
ROWS = {
  "late_average": row(
    late_average, "baseline", "baseline", about="independent models, averaged", needs=("task",)),
  "i2m2": row(i2m2, "forward", "parity", "madaan2024jointly", tasks=CLASSES),
  "intra": row(intra, "forward", "parity", "madaan2024jointly", as_in=True, tasks=CLASSES),
  "shared_trunk": row(
    shared_trunk, "baseline", "baseline", about="heads on shared encoders, averaged", needs=("task",)),
  "deep_ensemble": row(
    deep_ensemble, "forward", "equations", "lakshminarayanan2017simple", needs=("task",)),
  "dibs": row(
    dibs, "objective", "equations", "sinha2021dibs", {"weight": (0.03, 0.1, 0.3)}, needs=("task",)),
  "diverse": row(
    diverse, "objective", "reconstructed", "pace2020learning", {"lam": (0.3, 1.0, 3.0)}, tasks=CLASSES),
}
# fmt: on
