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
from mmfuse.objectives._cross_entropy import cross_entropy_loss
from mmfuse.objectives._dense import dense_loss
from mmfuse.objectives._dense import multi_scale_loss
from mmfuse.objectives._kl import kl_losses
from mmfuse.objectives._margin import dense_margin_distillation
from mmfuse.objectives._margin import margin_distillation
from mmfuse.objectives._margin import similarity_distillation
from mmfuse.objectives._distillation import feature_distillation
from mmfuse.objectives._distillation import logit_distillation
from mmfuse.objectives._mbsd import mbsd
from mmfuse.objectives._mbsd import mutual_distillation
from mmfuse.objectives._mmd import jmmd_loss
from mmfuse.objectives._mmd import mmd_loss
from mmfuse.objectives._mmd import pkt_mmd_loss
from mmfuse.objectives._vicreg import variance_covariance_loss
from mmfuse.objectives._vicreg import vicreg_loss

__all__ = [
  "cca_loss",
  "cml",
  "cross_entropy_loss",
  "dense_loss",
  "dense_margin_distillation",
  "feature_distillation",
  "fused",
  "fused_and_unimodal",
  "jmmd_loss",
  "kl_losses",
  "logit_distillation",
  "margin_distillation",
  "mbsd",
  "mean_rows",
  "mmd_loss",
  "multi_scale_loss",
  "mutual_distillation",
  "pkt_mmd_loss",
  "row_losses",
  "similarity_distillation",
  "supervised_losses",
  "task_of",
  "unimodal",
  "variance_covariance_loss",
  "vicreg_loss",
  "weighted_mean",
]
