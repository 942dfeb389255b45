"""What the table says in words: one caption, one honest sentence, notes."""

from mmfuse.report import _format
from mmfuse.report._summary import Summary

ONE_RATE = "one learning rate for all rows: not a comparison of methods"


def plural(n: int, noun: str) -> str:
  return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def varies(summary: Summary) -> str:
  """What differs between the numbers behind one interval."""
  if summary.info.get("varies"):
    return str(summary.info["varies"])
  if summary.unit == "seed":
    return f"{plural(summary.units, 'seed')} of one split"
  return f"{plural(summary.units, 'fold')} x {plural(summary.seeds, 'seed')}"


def _data(summary: Summary) -> str:
  info = summary.info
  sizes = info.get("sizes")
  if isinstance(sizes, dict):
    sizes = ", ".join(f"{n} {split}" for split, n in sizes.items()) + " rows"
  parts = [str(p) for p in (info.get("task"), sizes, info.get("date")) if p]
  name = str(info.get("name") or "")
  return name + (f" ({'; '.join(parts)})" if parts else "")


def _units(summary: Summary) -> str:
  if not summary.units:
    return "No run has ended yet."
  if summary.units == 1:
    return f"One {summary.unit}: there is no interval, and no difference can be tested."
  if summary.unit == "fold":
    return (
      "The unit of intervals and tests is the fold, seeds averaged within it; folds share training "
      "rows, so intervals are approximate."
    )
  return (
    "The unit of intervals and tests is the seed: they cover initialisation and batch order, not "
    "the choice of test examples."
  )


def caption(summary: Summary) -> str:
  """What the numbers are: data, metric, what varies, the unit of the interval, the test.

  With `info["one_rate"]` it opens with "one learning rate for all rows: not a comparison of
  methods".
  """
  share = _format.is_share(summary.metric)
  parts = [f"Note: {ONE_RATE}."] if summary.info.get("one_rate") else []
  if data := _data(summary):
    parts.append(f"{data}.")
  metric = _format.name(summary.metric)
  measured = f"{summary.split.capitalize()} {metric}{' in percent' if share else ''}"
  if summary.units > 1:
    parts.append(f"{measured}: mean ± half-width of the 95 % t interval over {varies(summary)}.")
    if summary.baselines:
      parts.append(
        f"Differences{' in points' if share else ''}, paired; * = beyond noise (Holm-adjusted p < "
        ".05 over the rows of a column)."
      )
  else:
    parts.append(f"{measured}, {varies(summary)}.")
  return " ".join([*parts, _units(summary)])


def notes(summary: Summary) -> list[str]:
  """Marks explained, what the summary found, and the caller's own lines."""
  lines = []
  if any(r.best for r in summary.rows):
    lines.append("(best): the best single modality by validation.")
  if any(r.edge for r in summary.rows):
    lines.append(
      "(edge): a chosen value is the first or last of those tried; a better one may lie beyond."
    )
  own = summary.info.get("notes") or ()
  return [*lines, *summary.notes, *([own] if isinstance(own, str) else map(str, own))]


def _against(summary: Summary, base: str) -> str:
  """The clause on one baseline: who does better or worse beyond noise, or that no row differs."""
  found = [
    (r.method, d.mean)
    for r in summary.rows
    if (d := r.differences.get(base)) is not None and d.significant
  ]
  said = []
  for word, part in (
    ("better", [f for f in found if f[1] > 0]),
    ("worse", [f for f in found if f[1] < 0]),
  ):
    if part:
      part.sort(key=lambda f: -abs(f[1]))
      names = ", ".join(f"{m} ({_format.number(x, summary.metric, signed=True)})" for m, x in part)
      said.append(f"{word} than {base}: {names}")
  return "; ".join(said) or f"no row differs from {base}"


def _how(summary: Summary) -> str:
  points = "points, " if _format.is_share(summary.metric) else ""
  rate = ", at one learning rate for all rows" if summary.info.get("one_rate") else ""
  rows = plural(len(summary.rows), "row")
  return (
    f"({points}{summary.split} {_format.name(summary.metric)}, paired t over "
    f"{plural(summary.units, summary.unit)}, Holm-adjusted p < .05 over {rows}{rate})"
  )


def sentence(summary: Summary) -> str:
  """One sentence: which rows differ from a baseline beyond noise, or that none does.

  Where nothing can be said (one unit, no baseline, one row) it says that.
  """
  if not summary.baselines:
    return "No baseline was run, so no row is compared with anything."
  names = " or from ".join(summary.baselines)
  if len(summary.rows) < 2:
    return f"Only {summary.baselines[0]} was run, so there is nothing to compare it with."
  if summary.units < 2:
    return f"With one {summary.unit}, no row can be told to differ from {names} beyond noise."
  differs = any(
    d is not None and d.significant for r in summary.rows for d in r.differences.values()
  )
  if not differs:
    return f"No row differs from {names} beyond noise {_how(summary)}."
  return (
    f"Beyond noise, {'; '.join(_against(summary, b) for b in summary.baselines)} {_how(summary)}."
  )
