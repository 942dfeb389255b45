"""What is minimised: objectives map (Outputs, Batch) to named scalars."""

from mmfuse.objectives._amco import amco_ratio
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
from mmfuse.objectives._lfm import lfm
from mmfuse.objectives._mbsd import mbsd
from mmfuse.objectives._mbsd import mutual_distillation
from mmfuse.objectives._opm import opm_drop_rates
from mmfuse.objectives._prototypes import class_sums
from mmfuse.objectives._prototypes import pmr_coefficients
from mmfuse.objectives._prototypes import prototype_logits
from mmfuse.objectives._prototypes import prototypes
from mmfuse.objectives._reconboost import reconboost_loss

__all__ = [
  "amco_ratio",
  "cca_loss",
  "class_sums",
  "cml",
  "fused",
  "fused_and_unimodal",
  "lfm",
  "mbsd",
  "mean_rows",
  "mutual_distillation",
  "opm_drop_rates",
  "pmr_coefficients",
  "prototype_logits",
  "prototypes",
  "reconboost_loss",
  "row_losses",
  "supervised_losses",
  "task_of",
  "unimodal",
  "weighted_mean",
]
