"""Names of tasks, each written once; read by the command line before JAX is imported."""

from typing import Literal, get_args

TaskName = Literal["classification", "multilabel", "regression", "generation"]
TASKS: tuple[str, ...] = get_args(TaskName)
CLASSIFICATION, MULTILABEL, REGRESSION, GENERATION = TASKS
