"""What a `fit` is going to do, checked: epochs and rows a step of each phase, what selects."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmfuse import metrics as metrics_lib
from mmfuse import tasks
from mmfuse.core import LAST, Method, Phase
from mmfuse.train import _budget as budget_lib
from mmfuse.train import _evaluate, _selection
from mmfuse.train._initial import check_signatures

LOOPS = ("auto", "scan", "python")


class Plan(NamedTuple):
  """What all runs of one `fit` share."""

  method: Method
  data: Any  # `data.Splits`; train and validation alone are read
  metric: metrics_lib.Metric  # of the task; a phase's own goes before it
  select: str
  epochs: dict[str, int]  # {phase: n}
  batch_size: dict[str, int]  # {phase: rows a step}
  patience: int | None
  mesh: Mesh | None
  loop: str  # one of LOOPS
  stacked: bool  # several runs at once, state leaves [S, ...]
  diagnose: bool
  on_epoch: Callable[[dict], None] | None

  @property
  def num_rows(self) -> int:
    """Training rows."""
    return _num_rows(self.data)

  @property
  def splits(self) -> dict[str, Any]:
    """What hooks get: no truth, which is for scores alone."""
    return without_truth({"train": self.data.train, "validation": self.data.validation})

  def place(self, host: Any) -> Any:
    """Arrays on the device(s), replicated over a mesh; copies, which alone may be donated."""
    if self.mesh is None:
      return jax.tree.map(jnp.array, host)
    everywhere = NamedSharding(self.mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.device_put(jnp.array(x), everywhere), host)

  def steps_per_epoch(self, phase: Phase) -> int:
    """Of an epoch that sees every row."""
    return budget_lib.steps_per_epoch(self.num_rows, self.batch_size[phase.name])


def without_truth(parts: dict[str, Any]) -> dict[str, Any]:
  """The parts without the arrays `truth_<name>` of the data, where they hold some."""
  bare = lambda part: part.replace(truth={}) if getattr(part, "truth", None) else part
  return {name: bare(part) for name, part in parts.items()}


def _num_rows(data: Any) -> int:
  return len(next(iter(data.train.mask.values())))


def make_plan(
  method: Method,
  data: Any,
  *,
  epochs: Any,
  batch_size: Any,
  steps: int | None = None,
  select: str | None = None,
  patience: int | None = None,
  mesh: Mesh | None = None,
  loop: str = "auto",
  stacked: bool = False,
  diagnose: bool = False,
  on_epoch: Callable[[dict], None] | None = None,
) -> Plan:
  """The plan of `fit` with these arguments; all but `stacked` (several runs at once) are `fit`'s."""
  if loop not in LOOPS:
    raise ValueError(f"unknown loop {loop!r}; expected auto, scan or python")
  check_signatures(method)
  rows, task = _num_rows(data), tasks.get(data.task)
  if rows == 0:
    raise ValueError("the training split is empty")
  _check_selection(method, data, select)
  usual = budget_lib.budget(rows, batch_size if isinstance(batch_size, int) else None)
  batch_size = usual.batch_size if batch_size is None else batch_size
  epochs = usual.epochs if epochs is None else epochs
  sizes = {p.name: min(_per_phase(batch_size, p, "batch_size"), rows) for p in method.phases}
  _check_mesh(mesh, sizes)
  return Plan(
    method=method,
    data=data,
    metric=tasks.metric_of(data),
    # what is judged by whole parts is judged once, at the end of the run
    select=LAST if task.collected is not None else select or task.primary,
    epochs=_epochs_of(method, epochs, steps, rows, sizes),
    batch_size=sizes,
    patience=patience,
    mesh=mesh,
    loop=loop,
    stacked=stacked,
    diagnose=diagnose,
    on_epoch=on_epoch,
  )


def _check_selection(method: Method, data: Any, select: str | None) -> None:
  judging = any((p.select or select) != LAST for p in method.phases)
  if judging and data.validation is not None and not _evaluate.judged(data.validation).any():
    raise ValueError(
      "no validation row has a known label and a weight above 0: there is nothing to "
      "select an epoch by; give some, or select='last'"
    )
  for phase in method.phases:
    _selection.check(phase.select or select, data.validation)


def _check_mesh(mesh: Mesh | None, sizes: Mapping[str, int]) -> None:
  devices = 1 if mesh is None else mesh.shape["data"]
  for name, size in sizes.items():
    if size % devices:
      raise ValueError(f"batch_size {size} of phase {name!r} does not split over {devices} devices")


def _per_phase(value: Any, phase: Phase, what: str) -> int:
  """The number for one phase of a number for all or of {phase: number}."""
  if isinstance(value, Mapping):
    if phase.name not in value:
      raise ValueError(f"{what} names no value for phase {phase.name!r}; given: {', '.join(value)}")
    value = value[phase.name]
  if value != value or value < 1:
    raise ValueError(f"{what} must be at least 1, got {value}")
  return int(value)


def _epochs_of(
  method: Method, epochs: Any, steps: int | None, rows: int, sizes: Mapping[str, int]
) -> dict[str, int]:
  """{phase: epochs}, as given or one number shared out; `steps` go before `epochs`."""
  if steps is not None:
    if steps < 1:
      raise ValueError(f"steps must be at least 1, got {steps}")
    size = sizes[method.phases[-1].name]
    epochs = -(-steps // budget_lib.steps_per_epoch(rows, size))
  if isinstance(epochs, Mapping):
    return {p.name: _per_phase(epochs, p, "epochs") for p in method.phases}
  return _shared_out(method, _per_phase(epochs, method.phases[-1], "epochs"))


def _shared_out(method: Method, total: int) -> dict[str, int]:
  """`total` epochs by `Phase.share`, at least one each where that is no more than the budget."""
  # Cumulative shares are rounded, so that the phases add up to the budget.
  out, before = {}, 0.0
  for p in method.phases:
    out[p.name] = max(1, round(total * (before + p.share)) - round(total * before))
    before += p.share
  for _ in range(sum(out.values()) - max(len(out), round(total * before))):
    out[max(out, key=out.__getitem__)] -= 1  # what a small share was raised to one epoch by
  return out
