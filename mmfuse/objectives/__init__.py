"""What is minimised: objectives map (Outputs, Batch) to named scalars."""

from mmfuse.objectives._classification import fused
from mmfuse.objectives._classification import fused_and_unimodal
from mmfuse.objectives._classification import row_losses
from mmfuse.objectives._classification import supervised_losses
from mmfuse.objectives._classification import task_of
from mmfuse.objectives._classification import unimodal
from mmfuse.objectives._classification import weighted_mean

__all__ = [
    "fused",
    "fused_and_unimodal",
    "row_losses",
    "supervised_losses",
    "task_of",
    "unimodal",
    "weighted_mean",
]
