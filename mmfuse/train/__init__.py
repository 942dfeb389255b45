"""Training: the supervised builder, the one loop, composition, evaluation, checkpoints."""

from mmfuse.train._budget import FEW_STEPS
from mmfuse.train._budget import LEAST_STEPS
from mmfuse.train._budget import Budget
from mmfuse.train._budget import budget
from mmfuse.train._cache import cache_dir
from mmfuse.train._cache import enable_compilation_cache
from mmfuse.train._cache import release_programs
from mmfuse.train._check_method import check_method
from mmfuse.train._check_trees import MethodError
from mmfuse.train._checkpoint import Checkpointer
from mmfuse.train._checkpoint import load_weights
from mmfuse.train._checkpoint import remove_checkpoints
from mmfuse.train._checkpoint import save_weights
from mmfuse.train._collect import by_heads
from mmfuse.train._collect import collect
from mmfuse.train._collect import collect_curves
from mmfuse.train._collect import part_of
from mmfuse.train._compose import only_phase
from mmfuse.train._compose import parts
from mmfuse.train._compose import remember
from mmfuse.train._compose import restore
from mmfuse.train._compose import then
from mmfuse.train._compose import weights_of
from mmfuse.train._compose import with_memory
from mmfuse.train._compose import with_share
from mmfuse.train._cost import Cost
from mmfuse.train._cost import cost_of
from mmfuse.train._counted import counted
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
from mmfuse.train._fitted import fitted
from mmfuse.train._initial import init_module
from mmfuse.train._initial import initial
from mmfuse.train._lens import Lens
from mmfuse.train._lens import lift
from mmfuse.train._memory import keep_freed_memory
from mmfuse.train._minimise import Aux
from mmfuse.train._minimise import Player
from mmfuse.train._minimise import alternate
from mmfuse.train._minimise import minimise
from mmfuse.train._optimizer import SCHEDULES
from mmfuse.train._optimizer import adam
from mmfuse.train._optimizer import clip_global_norm
from mmfuse.train._optimizer import has_learning_rate
from mmfuse.train._optimizer import scale_by_epoch
from mmfuse.train._optimizer import scale_by_progress
from mmfuse.train._optimizer import set_learning_rate
from mmfuse.train._optimizer import sgd
from mmfuse.train._optimizer import unsearched
from mmfuse.train._outputs_of import Width
from mmfuse.train._outputs_of import outputs_of
from mmfuse.train._over_split import on_batch
from mmfuse.train._over_split import over_split
from mmfuse.train._over_split import validation_of
from mmfuse.train._owned import moving_only
from mmfuse.train._probe import linear_probe
from mmfuse.train._result import Result
from mmfuse.train._result import RunLog
from mmfuse.train._result import validation_scores
from mmfuse.train._selection import Selection
from mmfuse.train._selection import parse as parse_select
from mmfuse.train._supervised import supervised
from mmfuse.train._timing import interleaved_step_times
from mmfuse.train._with_head import with_head
from mmfuse.train._wrapped import Wrapped
from mmfuse.train._wrapped import frozen
from mmfuse.train._wrapped import heads_only
from mmfuse.train._writers import jsonl_writer
from mmfuse.train._writers import tensorboard_writer
from mmfuse.train._writers import wandb_writer

__all__ = [
  "FEW_STEPS",
  "LEAST_STEPS",
  "SCHEDULES",
  "Aux",
  "Budget",
  "Checkpointer",
  "Cost",
  "Lens",
  "MethodError",
  "Player",
  "Result",
  "RunLog",
  "Selection",
  "View",
  "Width",
  "Wrapped",
  "absent",
  "adam",
  "alternate",
  "budget",
  "by_heads",
  "cache_dir",
  "check_method",
  "clip_global_norm",
  "collect",
  "collect_curves",
  "cost_of",
  "counted",
  "enable_compilation_cache",
  "evaluate",
  "evaluate_subsets",
  "evaluate_views",
  "fit",
  "fitted",
  "frozen",
  "has_learning_rate",
  "heads_only",
  "init_module",
  "initial",
  "interleaved_step_times",
  "jsonl_writer",
  "judged",
  "keep_freed_memory",
  "lift",
  "linear_probe",
  "load_weights",
  "minimise",
  "modality_values",
  "moving_only",
  "on_batch",
  "only_phase",
  "outputs_of",
  "over_split",
  "parse_select",
  "part_of",
  "parts",
  "predict_split",
  "release_programs",
  "remember",
  "remove_checkpoints",
  "restore",
  "save_weights",
  "scale_by_epoch",
  "scale_by_progress",
  "set_learning_rate",
  "sgd",
  "subset_view",
  "supervised",
  "tensorboard_writer",
  "then",
  "to_batch",
  "unsearched",
  "validation_of",
  "validation_scores",
  "wandb_writer",
  "weights_of",
  "with_head",
  "with_memory",
  "with_share",
]
