"""What is measured: running metrics, calibration, gradient diagnostics, modality contributions."""

from mmfuse.metrics._calibration import auroc
from mmfuse.metrics._calibration import average_precision
from mmfuse.metrics._calibration import ece
from mmfuse.metrics._contribution import contribution
from mmfuse.metrics._contribution import imbalance
from mmfuse.metrics._contribution import shapley
from mmfuse.metrics._diagnostics import conflict
from mmfuse.metrics._diagnostics import cosine
from mmfuse.metrics._latent_quality import latent_quality
from mmfuse.metrics._running import TASKS
from mmfuse.metrics._running import Metric
from mmfuse.metrics._running import classification
from mmfuse.metrics._running import for_task
from mmfuse.metrics._running import loss_name
from mmfuse.metrics._running import majority
from mmfuse.metrics._running import multilabel
from mmfuse.metrics._running import primary
from mmfuse.metrics._running import regression

__all__ = [
  "TASKS",
  "Metric",
  "auroc",
  "average_precision",
  "classification",
  "conflict",
  "contribution",
  "cosine",
  "ece",
  "for_task",
  "imbalance",
  "latent_quality",
  "loss_name",
  "majority",
  "multilabel",
  "primary",
  "regression",
  "shapley",
]
