"""Words that several packages share, each written once: tasks, heads, losses. Imports nothing."""

from typing import Literal, get_args

TaskName = Literal["classification", "multilabel", "regression"]
TASKS: tuple[str, ...] = get_args(TaskName)
CLASSIFICATION, MULTILABEL, REGRESSION = TASKS
