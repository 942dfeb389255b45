"""Where a log goes besides `Result.logs`: functions for `fit(on_epoch=...)`."""

import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Writer = Callable[[dict], None]


def jsonl_writer(path: str | os.PathLike) -> Writer:
  """Appends one line per epoch and run, at once: a killed run keeps what it logged."""
  file = pathlib.Path(path)
  file.parent.mkdir(parents=True, exist_ok=True)

  def write(entry: dict) -> None:
    with file.open("a") as out:
      out.write(json.dumps(entry) + "\n")

  return write


def scalars(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
  """The numbers of a nested log entry under "/"-joined names; lists are numbered."""
  for name, value in entry.items():
    if isinstance(value, Mapping):
      yield from scalars(value, f"{prefix}{name}/")
    elif isinstance(value, list):
      yield from scalars({str(i): v for i, v in enumerate(value)}, f"{prefix}{name}/")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
      yield f"{prefix}{name}", float(value)


def tensorboard_writer(folder: str | os.PathLike) -> Writer:
  """A TensorBoard event file per run (`pip install 'mmfuse[tb]'`)."""
  try:
    from tensorboardX import SummaryWriter
  except ImportError as error:
    raise ImportError("TensorBoard files need tensorboardX: pip install 'mmfuse[tb]'") from error
  writers: dict[str, Any] = {}

  def write(entry: dict) -> None:
    rate = entry["learning_rate"]
    run = f"seed{entry['seed']}" + ("" if rate is None else f"-lr{rate:g}")
    if run not in writers:
      writers[run] = SummaryWriter(os.path.join(folder, run))
    for name, value in scalars(entry):
      writers[run].add_scalar(f"{entry['phase']}/{name}", value, entry["epoch"])
    writers[run].flush()

  return write


def wandb_writer(**options: Any) -> Writer:
  """A Weights & Biases run (`pip install 'mmfuse[wandb]'`); `options` go to `wandb.init`."""
  try:
    import wandb
  except ImportError as error:
    raise ImportError("logging to W&B needs wandb: pip install 'mmfuse[wandb]'") from error
  run = wandb.init(**options)

  def write(entry: dict) -> None:
    run.log({f"seed{entry['seed']}/{entry['phase']}/{k}": v for k, v in scalars(entry)})

  return write
