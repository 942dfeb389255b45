"""What every experiment shares: how a result file is headed, and how its tables are written."""

import dataclasses
import datetime
import json
import pathlib
import platform
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mmfuse import data, protocol, report, train
from mmfuse.protocol._config import cores

RESULTS = pathlib.Path(__file__).parent / "results"


class Compared(NamedTuple):
  """What a comparison leaves."""

  summary: report.Summary
  records: list[dict]  # results.jsonl
  lines: list[dict]  # baselines.json


def compared(
  name: str,
  *,
  given: data.Table | None = None,
  own: Mapping[str, Callable[..., Any]] | None = None,
  **options: Any,
) -> Compared:
  """The shared protocol in a folder that is thrown away.

  Args:
    name: of the experiment, for the command.
    given: a table, default None: the one that `data` of the options names.
    own: {row: builder} beside the methods of the options, default none.
    options: of `protocol.Compare`.
  """
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch) / "run"
    cfg = protocol.Compare(out=str(folder), **options)
    said = f"python -m experiments.{name}"
    summary = protocol.run(cfg, command=said, table=given, methods=own)
    lines = json.loads((folder / "baselines.json").read_text())
    return Compared(summary, report.read_jsonl(folder / "results.jsonl"), lines)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """A markdown table; numbers are right-aligned."""
  lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
  return "\n".join([*lines, *("| " + " | ".join(str(c) for c in row) + " |" for row in rows)])


def figure(
  found: report.Estimate | report.Difference | None,
  sign: str = "",
  scale: float = 1,
  digits: int = 1,
) -> str:
  """mean ± half-width of the 95 % t interval, times `scale`; n/a of nothing. sign "+": of differences."""
  if found is None:
    return "n/a"
  half = "" if found.half is None else f" ± {scale * found.half:.{digits}f}"
  return f"{scale * found.mean:{sign}.{digits}f}{half}"


def interval(values, digits: int = 1) -> str:
  """`figure` of values, one per seed."""
  return figure(report.estimate(list(values)), digits=digits)


def less(a, b) -> list[float]:
  """The differences of paired values."""
  return [x - y for x, y in zip(a, b, strict=True)]


def command(name: str, cfg: Any) -> str:
  """What makes this page again: the experiment and every flag that is not at its default."""
  words = ["python", "-m", f"experiments.{name}"]
  for field in dataclasses.fields(cfg):
    value, flag = getattr(cfg, field.name), "--" + field.name.replace("_", "-")
    if value == field.default:
      continue
    if isinstance(value, bool):
      words.append(flag if value else flag.replace("--", "--no-", 1))
    else:
      words += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
  return shlex.join(words)


def heading(claim: str, command: str, seeds: object) -> str:
  """Claim, command, date, machine, versions, seeds: a committed number names all of them."""
  import flax
  import optax

  import mmfuse

  device = jax.devices()[0]
  cpu = f"{cores()} cores, " if device.platform == "cpu" else ""
  return "\n".join(
    [
      claim,
      "",
      f"- command: `{command}`",
      f"- date: {datetime.date.today().isoformat()}; device: {cpu}{device.device_kind}",
      f"- versions: mmfuse {mmfuse.__version__}, Python {platform.python_version()}, jax {jax.__version__}, "
      f"flax {flax.__version__}, optax {optax.__version__}",
      f"- seeds: {seeds}",
      "",
    ]
  )


def print_json(measure: Callable[[Any], dict], cfg: Any) -> dict:
  """What a benchmark measured, printed and returned."""
  train.enable_compilation_cache()
  result = measure(cfg)
  print(json.dumps(result, indent=1))
  return result


def write(name: str, text: str, smoke: bool) -> None:
  """Prints; a full run also writes `experiments/results/<name>.md`."""
  print(text)
  if not smoke:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text.rstrip() + "\n")
    print(f"\nwritten to experiments/results/{name}.md")


def write_json(name: str, found: Mapping[str, Any], smoke: bool) -> None:
  """A full run writes `experiments/results/<name>.json`, the numbers of a page."""
  if not smoke:
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
