"""The command line: mmfuse compare | methods | data | predict | generate | cite. Heavy imports wait."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import tyro

from mmfuse.names import closest
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
  """Probabilities for new rows, as CSV, from a finished run; of a segmentation maps, as .npz."""

  run: Annotated[str, tyro.conf.Positional]
  """Output folder of `mmfuse compare`."""
  data: str
  """An .npz with modalities of the run; one may be left out where each row has another."""
  method: str | None = None
  """A row of the run; default: the best by validation."""
  seed: int | None = None
  """Which of its runs; default: the first."""
  out: str | None = None
  """File to write; default: standard output."""


@dataclasses.dataclass(frozen=True)
class Generate:
  """Modalities made from others, or from the prior, by a row of a finished run that generates."""

  run: Annotated[str, tyro.conf.Positional]
  """Output folder of `mmfuse compare`."""
  given: Annotated[tuple[str, ...], tyro.conf.arg(name="from")] = ()
  """Modalities to generate from: `a,b`. Default: none, draws of the prior."""
  to: tuple[str, ...] = ()
  """Modalities to generate; default: all others."""
  data: str | None = None
  """An .npz with the modalities of --from."""
  samples: int = 1
  """Draws of each row."""
  seed: int = 0
  """Of the draws."""
  method: str | None = None
  """A row of the run; default: the best by validation of those that generate."""
  out: str = "generated"
  """Files to write, without their endings: .npz, {modality: [rows, samples, ...]}, and .png."""


@dataclasses.dataclass(frozen=True)
class Cite:
  """BibTeX of a method, or of every method of a run."""

  what: Annotated[str, tyro.conf.Positional]
  """A method's name or an output folder."""


INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell shows of a command that `head` ended

COMMANDS: dict[str, Callable[..., Any]] = {
  "compare": Compare,
  "methods": Methods,
  "data": Data,
  "predict": Predict,
  "generate": Generate,
  "cite": Cite,
}


def _compare(cfg: Compare, command: str) -> int:
  cfg.check()
  if cfg.threads is not None:
    _limit_threads(cfg.threads)
  from mmfuse import protocol, report, train

  train.keep_freed_memory()
  summary = protocol.run(cfg, command=command)
  console = _console(report.TERMINAL_WIDTH)
  console.print(report.terminal(summary, console.width))
  print(report.caption(summary))
  print(report.sentence(summary))
  print(f"written to {summary.info['folder']}/ (index.html shows it all)")
  if summary.info["interrupted"]:
    return INTERRUPTED
  return 1 if any(why.startswith("failed:") for why in summary.unavailable.values()) else 0


def _console(width: int = 160) -> Any:
  """The terminal; a file or pipe has no width, and a table squeezed into 80 columns no names."""
  from rich.console import Console

  console = Console()
  return console if console.is_terminal else Console(width=width)


class _Terminated(KeyboardInterrupt):
  """SIGTERM, which ends a comparison as Ctrl-C does."""


@contextlib.contextmanager
def _sigterm() -> Iterator[list[int]]:
  """Within, the first SIGTERM is a KeyboardInterrupt and stands in the list; later ones do nothing.

  `timeout` and schedulers send it more than once, and a second one would cost the table.
  """
  heard: list[int] = []

  def hear(number, frame):
    if not heard:
      heard.append(number)
      raise _Terminated

  if threading.current_thread() is not threading.main_thread():  # where signals are not for us
    yield heard
    return
  before = signal.signal(signal.SIGTERM, hear)
  try:
    yield heard
  finally:
    signal.signal(signal.SIGTERM, before)


def _limit_threads(threads: int) -> None:
  """XLA:CPU sizes its pool by the cores a process may use; it must be said before JAX starts."""
  if not hasattr(os, "sched_setaffinity"):
    print("warning: --threads has no effect on this system", file=sys.stderr)
    return
  cores = sorted(os.sched_getaffinity(0))
  if "jax" in sys.modules and threads != len(cores):
    print("warning: --threads has no effect once JAX is running", file=sys.stderr)
    return
  os.sched_setaffinity(0, cores[:threads])


def _methods(args: Methods) -> int:
  from mmfuse import methods

  rows = [
    {
      "name": name,
      "kind": e.kind,
      "family": e.family,
      "fidelity": e.fidelity,
      "paper": e.paper,
      "reads_validation": "yes" if e.reads_validation else "",
      "file": e.file,
    }
    for name, e in methods.METHODS.items()
  ]
  return _list(rows, args.json)


def _data(args: Data) -> int:
  from mmfuse import data

  return _list(data.catalogue(), args.json)


def _list(rows: list[dict[str, Any]], as_json: bool) -> int:
  if as_json:
    print(json.dumps(rows, indent=1))
    return 0
  from rich.markup import escape
  from rich.table import Table

  table = Table(box=None, pad_edge=False)
  for name in rows[0]:
    table.add_column(name, overflow="fold")
  for row in rows:
    table.add_row(*map(escape, row.values()))  # the [datasets] of pip is no style
  _console().print(table)
  return 0


def _predict(args: Predict) -> int:
  from mmfuse import protocol, report

  target = None if args.out is None else pathlib.Path(args.out)
  if target is not None and target.exists():
    raise UsageError(f"--out {args.out!r} exists; nothing is overwritten")
  if target is not None and not target.parent.is_dir():
    raise UsageError(f"--out {args.out!r}: there is no folder {str(target.parent)!r}")
  content = protocol.predicted(
    args.run, args.data, method=args.method, seed=args.seed, to_file=target is not None
  )
  if target is None:
    print(content.decode(), end="")
  else:
    report.write_whole(target, content)
  return 0


def _generate(args: Generate) -> int:
  from mmfuse import protocol

  words = lambda given: [w for word in given for w in word.replace(",", " ").split()]
  written = protocol.generate(
    args.run,
    args.data,
    given=words(args.given),
    to=words(args.to),
    samples=args.samples,
    draw_seed=args.seed,
    out=args.out,
    method=args.method,
  )
  for path in written:
    print(f"written to {path}")
  return 0


def _cite(args: Cite) -> int:
  from mmfuse import methods

  folder = pathlib.Path(args.what)
  if args.what in methods.METHODS or not folder.is_dir():
    try:
      entries = [methods.citation(args.what)]
    except ValueError as error:
      raise UsageError(f"{error}; nor is there a folder of that name") from error
  else:
    from mmfuse.protocol._predict import read_run

    names = [r["method"].split("/")[0] for r in read_run(folder)[2]]
    entries = [methods.citation(n) for n in names if n in methods.METHODS]
  print("\n\n".join(dict.fromkeys(filter(None, entries))) or f"% {args.what}: nothing to cite")
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
    print(f"mmfuse: unknown command {argv[0]!r}; {closest(argv[0], COMMANDS)}", file=sys.stderr)
    return 2
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      args = tyro.extras.subcommand_cli_from_dict(
        COMMANDS, prog="mmfuse", args=argv or ["--help"], config=(tyro.conf.OmitSubcommandPrefixes,)
      )
  except SystemExit as stop:
    if stop.code:
      print(f"mmfuse: {_sentence(said.getvalue())}", file=sys.stderr)
    return int(stop.code or 0)
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(line_buffering=True)  # whoever reads a pipe sees a line when it is said
  if not isinstance(args, Compare):
    return _answer(lambda: RUN[type(args)](args))
  with _sigterm() as heard:
    code = _answer(lambda: _compare(args, " ".join(["mmfuse", *argv])))
  return 128 + heard[0] if heard and code == INTERRUPTED else code


def _answer(command: Callable[[], int]) -> int:
  from mmfuse.data import DataError

  try:
    return command()
  except KeyboardInterrupt as stop:
    print(f"mmfuse: interrupted {stop}".rstrip(), file=sys.stderr)
    return INTERRUPTED
  except (UsageError, DataError) as error:
    print(f"mmfuse: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  except BrokenPipeError:  # the reader of the pipe has gone, as `head` does
    os.dup2(
      os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # or the flush at exit raises anew
    return BROKEN_PIPE


RUN: dict[type, Callable[[Any], int]] = {
  Methods: _methods,
  Data: _data,
  Predict: _predict,
  Generate: _generate,
  Cite: _cite,
}
