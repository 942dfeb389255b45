"""`mmfuse generate RUN --from a,b --to c --data new.npz`: what a run's model makes of new rows."""

import io
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfuse import core, report
from mmfuse.names import closest
from mmfuse.protocol._config import UsageError
from mmfuse.protocol._finish import _can_draw
from mmfuse.protocol._generation import SHOWN, draws, pictures
from mmfuse.protocol._predict import Opened, Reading, opened, read_run


def generate(
  run: str,
  path: str | None = None,
  *,
  given: Sequence[str] = (),
  to: Sequence[str] = (),
  samples: int = 1,
  draw_seed: int = 0,
  out: str,
  method: str | None = None,
  seed: int | None = None,
  methods: Mapping[str, Any] | None = None,
) -> list[pathlib.Path]:
  """Writes `out`.npz, {modality: [N, S, ...]} in the unit of the run's data, and `out`.png; their paths.

  Row n of the file has S draws; without `given` they are S draws of the prior, N = 1. The grid shows the
  first rows: what they were made from and the first draw. It is left out where nothing is a picture,
  or matplotlib is not there.

  Args:
    run: the output folder of a comparison with a row that generates.
    path: an .npz with the modalities `given`; default None, where nothing is given.
    given: modalities to generate from; default none: from the prior.
    to: modalities to generate; default all others.
    samples: S, default 1.
    draw_seed: of the draws, default 0.
    out: path of both files without an ending.
    method, seed, methods: as in `predict`, of the rows that generate.

  Raises:
    UsageError, data.DataError: no such run, method, seed or modality, files that are there already,
      rows without any modality to generate from, arrays that do not fit.
  """
  if samples < 1:
    raise UsageError(f"--samples must be at least 1, got {samples}")
  if bool(given) != (path is not None):
    raise UsageError(
      "--from and --data go together: which modalities are read, and the rows that have them"
    )
  target = pathlib.Path(out)
  files = [target.with_name(target.name + end) for end in (".npz", ".png")]
  names = sorted(read_run(pathlib.Path(run))[1]["inputs"])
  for flag, asked in (("--from", given), ("--to", to)):
    unknown = [m for m in asked if m not in names]
    if unknown:
      raise UsageError(
        f"{flag} names {unknown[0]!r}, which is no modality of the run; {closest(unknown[0], names)}"
      )
  targets = list(dict.fromkeys(to)) or [m for m in names if m not in given]
  if not targets:
    raise UsageError("--from names all modalities of the run; say with --to which to make again")
  there = [f for f in files if f.exists()]
  if there:
    raise UsageError(f"{str(there[0])!r} exists; nothing is overwritten")
  if not target.parent.is_dir():
    raise UsageError(f"--out {out!r}: there is no folder {str(target.parent)!r}")
  only = tuple(given)
  wanted = Reading(path, only or None, generate=True)
  found = opened(run, read=wanted, method=method, seed=seed, methods=methods)
  _check_rows(found, given)
  made = draws(found.method, found.state, found.new.split, only, samples, draw_seed)
  arrays = {m: _in_unit(found, m, made[m]) for m in targets}
  _say(found, given, targets)
  content = io.BytesIO()
  np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
  written = [report.write_whole(files[0], content.getvalue())]
  lines = _lines(found, given, arrays)
  if lines and _can_draw():
    written.append(report.samples(lines, files[1]))
  return written


def _check_rows(found: Opened, given: Sequence[str]) -> None:
  if not given:
    return
  some = np.any([found.new.split.mask[m] for m in given], axis=0)
  if not some.all():
    raise UsageError(
      f"{int((~some).sum())} of {len(some)} rows have none of {', '.join(given)} to generate from, the "
      f"first is row {int(np.argmin(some))}"
    )


def _in_unit(found: Opened, m: str, x: np.ndarray) -> np.ndarray:
  """Numbers as those of the run's data were; tokens as they are."""
  scaler = found.scaler
  return x if m not in scaler.mean else (x * scaler.std[m] + scaler.mean[m]).astype(np.float32)


def _say(found: Opened, given: Sequence[str], targets: Sequence[str]) -> None:
  record = found.record
  where = "" if record["fold"] is None else f", fold {record['fold']}"
  source = ", ".join(given) or "the prior"
  notes = [
    f"{found.row.name}, seed {record['seed']}{where}: {found.why}",
    f"{', '.join(targets)} from {source}",
    *(found.new.notes if given else []),
  ]
  for said in notes:
    print(f"note: {said}", file=sys.stderr)


def _lines(
  found: Opened, given: Sequence[str], arrays: Mapping[str, np.ndarray]
) -> list[tuple[str, list[np.ndarray]]]:
  """Lines of the grid: what was given, and the first draw of each row (of the prior: all draws)."""
  inputs = found.new.split.inputs
  values = lambda x: np.asarray(x.values if isinstance(x, core.Sequence) else x)
  lines = [(f"given: {m}", _in_unit(found, m, values(inputs[m]))) for m in given]
  lines += [(m, x[:, 0] if given else x[0]) for m, x in arrays.items()]
  shown = [(words, pictures(x[:SHOWN])) for words, x in lines]
  return [(words, row) for words, row in shown if row]
