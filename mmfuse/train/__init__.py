"""Training: the supervised builder, the one loop, evaluation, checkpoints."""

from mmfuse.train._budget import FEW_STEPS
from mmfuse.train._budget import LEAST_STEPS
from mmfuse.train._budget import Budget
from mmfuse.train._budget import budget
from mmfuse.train._cache import cache_dir
from mmfuse.train._cache import enable_compilation_cache
from mmfuse.train._cache import release_programs
from mmfuse.train._checkpoint import Checkpointer
from mmfuse.train._checkpoint import load_weights
from mmfuse.train._checkpoint import remove_checkpoints
from mmfuse.train._checkpoint import save_weights
from mmfuse.train._collect import collect
from mmfuse.train._collect import part_of
from mmfuse.train._cost import Cost
from mmfuse.train._cost import cost_of
from mmfuse.train._cost import step_cost
from mmfuse.train._evaluate import View
from mmfuse.train._evaluate import absent
from mmfuse.train._evaluate import evaluate
from mmfuse.train._evaluate import evaluate_subsets
from mmfuse.train._evaluate import evaluate_views
from mmfuse.train._evaluate import judged
from mmfuse.train._evaluate import modality_values
from mmfuse.train._evaluate import predict_split
from mmfuse.train._evaluate import subset_view
from mmfuse.train._evaluate import to_batch
from mmfuse.train._fit import fit
from mmfuse.train._initial import initial
from mmfuse.train._memory import keep_freed_memory
from mmfuse.train._optimizer import SCHEDULES
from mmfuse.train._optimizer import adam
from mmfuse.train._optimizer import clip_global_norm
from mmfuse.train._optimizer import has_learning_rate
from mmfuse.train._optimizer import scale_by_progress
from mmfuse.train._optimizer import set_learning_rate
from mmfuse.train._optimizer import sgd
from mmfuse.train._probe import linear_probe
from mmfuse.train._result import Result
from mmfuse.train._result import RunLog
from mmfuse.train._result import validation_scores
from mmfuse.train._selection import Selection
from mmfuse.train._selection import parse as parse_select
from mmfuse.train._supervised import counted
from mmfuse.train._supervised import supervised
from mmfuse.train._timing import interleaved_step_times
from mmfuse.train._writers import jsonl_writer
from mmfuse.train._writers import tensorboard_writer
from mmfuse.train._writers import wandb_writer

__all__ = [
  "FEW_STEPS",
  "LEAST_STEPS",
  "SCHEDULES",
  "Budget",
  "Checkpointer",
  "Cost",
  "Result",
  "RunLog",
  "Selection",
  "View",
  "absent",
  "adam",
  "budget",
  "cache_dir",
  "clip_global_norm",
  "collect",
  "cost_of",
  "counted",
  "enable_compilation_cache",
  "evaluate",
  "evaluate_subsets",
  "evaluate_views",
  "fit",
  "has_learning_rate",
  "initial",
  "interleaved_step_times",
  "jsonl_writer",
  "judged",
  "keep_freed_memory",
  "linear_probe",
  "load_weights",
  "modality_values",
  "parse_select",
  "part_of",
  "predict_split",
  "release_programs",
  "remove_checkpoints",
  "save_weights",
  "scale_by_progress",
  "set_learning_rate",
  "sgd",
  "step_cost",
  "subset_view",
  "supervised",
  "tensorboard_writer",
  "to_batch",
  "validation_scores",
  "wandb_writer",
]
