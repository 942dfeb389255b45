"""What every method is measured by, and their page of the index."""

from mmfuse.methods._entry import WITH_MAPS
from mmfuse.methods._entry import row
from mmfuse.methods.baselines._plain import joint
from mmfuse.methods.baselines._plain import plain_sum
from mmfuse.methods.baselines._plain import single

__all__ = ["joint", "plain_sum", "single"]

# fmt: off
ROWS = {
  "unimodal": row(
    single, "baseline", "baseline", about="each modality alone", needs=("modality",),
    tasks=WITH_MAPS),
  "joint": row(joint, "baseline", "baseline", about="fused loss only", tasks=WITH_MAPS),
  "uniform": row(
    plain_sum, "baseline", "baseline", about="sum of fused and uni-modal losses", tasks=WITH_MAPS),
}
# fmt: on
