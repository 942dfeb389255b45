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
from mmfuse.objectives._distillation import feature_distillation
from mmfuse.objectives._distillation import logit_distillation
from mmfuse.objectives._mbsd import mbsd
from mmfuse.objectives._mbsd import mutual_distillation
from mmfuse.objectives._mmd import jmmd_loss
from mmfuse.objectives._mmd import mmd_loss
from mmfuse.objectives._mmd import pkt_mmd_loss

__all__ = [
  "cca_loss",
  "cml",
  "feature_distillation",
  "fused",
  "fused_and_unimodal",
  "jmmd_loss",
  "logit_distillation",
  "mbsd",
  "mean_rows",
  "mmd_loss",
  "mutual_distillation",
  "pkt_mmd_loss",
  "row_losses",
  "supervised_losses",
  "task_of",
  "unimodal",
  "weighted_mean",
]
