"""What is measured: running metrics, calibration, gradient diagnostics, modality contributions."""

from mmfuse.metrics._beyond import adaptation
from mmfuse.metrics._beyond import disagreement
from mmfuse.metrics._beyond import under_shift
from mmfuse.metrics._calibration import auroc
from mmfuse.metrics._calibration import average_precision
from mmfuse.metrics._calibration import ece
from mmfuse.metrics._collected import Collected
from mmfuse.metrics._collected import ood_auroc
from mmfuse.metrics._calibration import f1
from mmfuse.metrics._contribution import contribution
from mmfuse.metrics._contribution import imbalance
from mmfuse.metrics._contribution import over_subsets
from mmfuse.metrics._contribution import shapley
from mmfuse.metrics._dense import dense
from mmfuse.metrics._diagnostics import conflict
from mmfuse.metrics._diagnostics import cosine
from mmfuse.metrics._hamming import hamming_distances
from mmfuse.metrics._hamming import hamming_ranking
from mmfuse.metrics._hamming import pack_bits
from mmfuse.metrics._latent_quality import latent_quality
from mmfuse.metrics._maps import case_of
from mmfuse.metrics._maps import class_maps
from mmfuse.metrics._maps import segmentation
from mmfuse.metrics._maps import thresholds
from mmfuse.metrics._metric import Metric
from mmfuse.metrics._metric import per_head
from mmfuse.metrics._metric import row_mean
from mmfuse.metrics._neighbours import knn
from mmfuse.metrics._neighbours import neighbour_classes
from mmfuse.metrics._presentation_attack import acer
from mmfuse.metrics._retrieval import RECALL
from mmfuse.metrics._retrieval import average_precision_at_k
from mmfuse.metrics._retrieval import average_precision_of_hits
from mmfuse.metrics._retrieval import chance_at_k
from mmfuse.metrics._retrieval import directions
from mmfuse.metrics._retrieval import map_at_k
from mmfuse.metrics._retrieval import precision_at_recall
from mmfuse.metrics._retrieval import precision_of_hits
from mmfuse.metrics._retrieval import relevance
from mmfuse.metrics._retrieval import relevant_rows
from mmfuse.metrics._retrieval import space_of
from mmfuse.metrics._running import RowMetric
from mmfuse.metrics._running import classification
from mmfuse.metrics._running import multi_label
from mmfuse.metrics._running import regression
from mmfuse.metrics._scores import SCORES
from mmfuse.metrics._scores import Score
from mmfuse.metrics._scores import described
from mmfuse.metrics._scores import score
from mmfuse.metrics._segmentation import confusion
from mmfuse.metrics._segmentation import iou
from mmfuse.metrics._segmentation import mean_iou
from mmfuse.metrics._surface import SURFACE
from mmfuse.metrics._surface import assd
from mmfuse.metrics._surface import slice_scores
from mmfuse.metrics._weak import best_threshold
from mmfuse.metrics._weak import has_weak_masks
from mmfuse.metrics._weak import said_classes
from mmfuse.metrics._weak import thresholded
from mmfuse.metrics._weak import weak_segmentation

__all__ = [
  "RECALL",
  "SCORES",
  "SURFACE",
  "Collected",
  "Metric",
  "RowMetric",
  "Score",
  "acer",
  "adaptation",
  "assd",
  "auroc",
  "average_precision",
  "average_precision_at_k",
  "average_precision_of_hits",
  "best_threshold",
  "case_of",
  "chance_at_k",
  "class_maps",
  "classification",
  "conflict",
  "confusion",
  "contribution",
  "cosine",
  "dense",
  "described",
  "directions",
  "disagreement",
  "ece",
  "f1",
  "hamming_distances",
  "hamming_ranking",
  "has_weak_masks",
  "imbalance",
  "iou",
  "knn",
  "latent_quality",
  "map_at_k",
  "mean_iou",
  "multi_label",
  "neighbour_classes",
  "ood_auroc",
  "over_subsets",
  "pack_bits",
  "per_head",
  "precision_at_recall",
  "precision_of_hits",
  "regression",
  "relevance",
  "relevant_rows",
  "row_mean",
  "said_classes",
  "score",
  "segmentation",
  "shapley",
  "slice_scores",
  "space_of",
  "thresholded",
  "thresholds",
  "under_shift",
  "weak_segmentation",
]
