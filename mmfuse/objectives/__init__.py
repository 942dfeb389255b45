"""What is minimised: objectives map (Outputs, Batch) to named scalars."""

from mmfuse.objectives._cca import cca_loss
from mmfuse.objectives._classification import fused
from mmfuse.objectives._classification import fused_and_unimodal
from mmfuse.objectives._classification import mean_rows
from mmfuse.objectives._classification import row_losses
from mmfuse.objectives._classification import supervised_losses
from mmfuse.objectives._classification import task_of
from mmfuse.objectives._classification import unimodal
from mmfuse.objectives._classification import weighted_mean
from mmfuse.objectives._cml import cml
from mmfuse.objectives._mbsd import mbsd
from mmfuse.objectives._mbsd import mutual_distillation
from mmfuse.objectives._vicreg import vicreg_loss

__all__ = [
  "cca_loss",
  "cml",
  "fused",
  "fused_and_unimodal",
  "mbsd",
  "mean_rows",
  "mutual_distillation",
  "row_losses",
  "supervised_losses",
  "task_of",
  "unimodal",
  "vicreg_loss",
  "weighted_mean",
]
