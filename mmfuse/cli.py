"""The command line: mmfuse compare | methods | data | predict | cite. Heavy imports wait until needed."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from mmfuse.protocol._config import Compare, UsageError


@dataclasses.dataclass(frozen=True)
class Methods:
  """List the methods: name, kind, family, fidelity, paper, file."""

  json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Print JSON."""


@dataclasses.dataclass(frozen=True)
class Data:
  """List the built-in data sets: what, size, licence, how each is had."""

  json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Print JSON."""


@dataclasses.dataclass(frozen=True)
class Predict:
  """Probabilities for new rows, as CSV, from a finished run."""

  run: Annotated[str, tyro.conf.Positional]
  """Output folder of `mmfuse compare`."""
  data: str
  """An .npz with the same modalities."""
  method: str | None = None
  """A row of the run; default: the best by validation."""
  seed: int | None = None
  """Which of its runs; default: the first."""
  out: str | None = None
  """File to write; default: standard output."""


@dataclasses.dataclass(frozen=True)
class Cite:
  """BibTeX of a method, or of every method of a run."""

  what: Annotated[str, tyro.conf.Positional]
  """A method's name or an output folder."""


COMMANDS = {"compare": Compare, "methods": Methods, "data": Data, "predict": Predict, "cite": Cite}


def _compare(cfg: Compare, command: str) -> int:
  cfg.check()
  if cfg.threads is not None:
    _limit_threads(cfg.threads)
  from rich.console import Console

  from mmfuse import protocol, report

  summary = protocol.run(cfg, command)
  Console().print(report.terminal(summary))
  print(report.caption(summary))
  print(report.sentence(summary))
  print(f"written to {protocol.output_folder(cfg)}/ (index.html shows it all)")
  return 1 if any(why.startswith("failed:") for why in summary.unavailable.values()) else 0


def _limit_threads(threads: int) -> None:
  """XLA:CPU sizes its pool by the cores a process may use; it must be said before JAX starts."""
  if "jax" in sys.modules and threads != len(os.sched_getaffinity(0)):
    print("warning: --threads has no effect once JAX is running", file=sys.stderr)
    return
  cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, cores[:threads])


def _methods(args: Methods) -> int:
  from mmfuse import methods

  rows = [{"name": name, "kind": e.kind, "family": e.family, "fidelity": e.fidelity, "paper": e.paper, "file": e.file}
          for name, e in methods.METHODS.items()]
  return _list(rows, args.json)


def _data(args: Data) -> int:
  from mmfuse import data

  return _list(data.describe(), args.json)


def _list(rows: list[dict[str, Any]], as_json: bool) -> int:
  if as_json:
    print(json.dumps(rows, indent=1))
    return 0
  from rich.console import Console
  from rich.table import Table

  table = Table(box=None, pad_edge=False)
  for name in rows[0]:
    table.add_column(name, overflow="fold")
  for row in rows:
    table.add_row(*row.values())
  Console().print(table)
  return 0


def _predict(args: Predict) -> int:
  from mmfuse import protocol

  text = protocol.predict(args.run, args.data, method=args.method, seed=args.seed)
  if args.out is None:
    print(text, end="")
    return 0
  target = pathlib.Path(args.out)
  if target.exists():
    raise UsageError(f"--out {args.out!r} exists; nothing is overwritten")
  if not target.parent.is_dir():
    raise UsageError(f"--out {args.out!r}: there is no folder {str(target.parent)!r}")
  target.write_text(text)
  return 0


def _cite(args: Cite) -> int:
  from mmfuse import methods

  folder = pathlib.Path(args.what)
  if args.what in methods.METHODS or not folder.is_dir():
    names = [args.what]
  else:
    from mmfuse import report
    if not (folder / "results.jsonl").is_file():
      raise UsageError(f"there is no results.jsonl in {args.what!r}")
    names = [r["method"].split("/")[0] for r in report.read_jsonl(folder / "results.jsonl")]
  entries = [methods.citation(n) for n in dict.fromkeys(names) if len(names) == 1 or n in methods.METHODS]
  print("\n\n".join(dict.fromkeys(e for e in entries if e)) or f"% {args.what}: nothing to cite")
  return 0


def _sentence(panel: str) -> str:
  """What a boxed message of the argument parser says, up to its first rule, on one line."""
  words: list[str] = []
  for line in panel.splitlines()[1:]:
    text = line.strip("│╭╮╰╯ \n")
    if text.startswith("─") or not text:
      break
    words.append(text)
  return " ".join(words) or panel.strip()


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; bad input is one sentence on standard error and exit code 2."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
    from mmfuse.protocol._config import closest
    print(f"mmfuse: unknown command {argv[0]!r}; {closest(argv[0], COMMANDS)}", file=sys.stderr)
    return 2
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      args = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="mmfuse", args=argv or ["--help"], config=(
          tyro.conf.OmitSubcommandPrefixes,))
  except SystemExit as stop:
    if stop.code:
      print(f"mmfuse: {_sentence(said.getvalue())}", file=sys.stderr)
    return int(stop.code or 0)
  try:
    if isinstance(args, Compare):
      return _compare(args, " ".join(["mmfuse", *argv]))
    return {Methods: _methods, Data: _data, Predict: _predict, Cite: _cite}[type(args)](args)
  except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    return 130
  except ValueError as error:
    if type(error).__name__ in ("UsageError", "DataError") or isinstance(args, Cite):
      print(f"mmfuse: {error}", file=sys.stderr)
      return 2
    raise
