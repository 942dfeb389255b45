"""What the table says in words: one caption, one honest sentence, notes."""

from mmfuse import tasks
from mmfuse.report import _format, _missing
from mmfuse.report._columns import majority_row
from mmfuse.report._format import plural
from mmfuse.report._lines import LINEAR
from mmfuse.report._summary import Row, Summary
from mmfuse.report._units import UNIMODAL

ONE_RATE = "one learning rate for all rows: not a comparison of methods"


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
  share = summary.score.share
  parts = [f"Note: {ONE_RATE}."] if summary.info.get("one_rate") else []
  if data := _data(summary):
    parts.append(f"{data}.")
  metric = _format.name(summary.score)
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
  if summary.info.get("missing"):
    parts.append(_missing.chosen_by(summary.info))
  if said := summary.info.get("likelihood"):
    parts.append(f"ELBO at beta 1 and weights 1, by each row's own posterior; {said}.")
  return " ".join([*parts, _units(summary)])


# Rows whose losses train the modalities' own heads, and one whose losses do not, as examples.
_TRAINED, _PROBED = ("uniform", "late_average"), "joint"


def _heads(summary: Summary) -> list[str]:
  """What the number of a modality means, which depends on the row."""
  if summary.task is not None and summary.task.collected is not None:
    return []  # its columns are no heads; what they are the caller's notes say
  fused = [r for r in summary.rows if not r.method.startswith(UNIMODAL)]
  names = {r.method for r in fused}
  lines = []
  if any(e is not None for r in fused for e in r.unimodal.values()):
    trained = ", ".join(m for m in _TRAINED if m in names)
    probed = f" ({_PROBED})" if _PROBED in names else ""
    lines.append(
      "A modality's column: its own head, at the rate and epoch chosen for the row's own prediction "
      f"(fused). A method with a loss for that head{f' ({trained})' if trained else ''} trains head "
      f"and encoder by it; of any other{probed} the head is a probe, fitted to the modality's "
      "features without moving the encoder."
    )
  if "late_average" in names:
    lines.append(
      "late_average: one learning rate and one epoch for all its modalities, by the validation "
      "score of the average; the rows unimodal/... choose theirs each."
    )
  return lines


def notes(summary: Summary) -> list[str]:
  """Marks explained, what the summary found, and the caller's own lines."""
  lines = []
  if any(r.best for r in summary.rows):
    lines.append("(best single): the best single modality by validation.")
  if any(r.best_fused for r in summary.rows):
    lines.append("(best fused): the best by validation of the rows that are no single modality.")
  if any(r.edge for r in summary.rows):
    lines.append(
      "(edge): the chosen value is still the first or last of those tried, after the search was "
      "extended twice."
    )
  lines += _heads(summary)
  lines += _missing.notes(summary.info, summary.rows)
  lines += _on_baselines(summary)
  own = summary.info.get("notes") or ()
  return [*lines, *summary.notes, *([own] if isinstance(own, str) else map(str, own))]


def linear_kind(summary: Summary) -> str:
  """logistic, or ridge where the task is regression."""
  task = tasks.TASKS.get(str(summary.info.get("task")))
  return (None if task is None else task.linear) or "logistic"


def _on_baselines(summary: Summary) -> list[str]:
  """What `linear` is, and which rows are below the constant predictor."""
  lines = []
  if summary.lines:
    kind = linear_kind(summary)
    lines.append(
      f"{LINEAR}: {kind} regression on flattened, standardised inputs side by side, "
      f"{LINEAR}/<modality>: on one alone, in the rows that have it; the penalty by validation. "
      f"vs {LINEAR}: "
      + (
        "paired by fold"
        if summary.unit == "fold"
        else "less that number, with the row's own interval"
      )
      + "; it is not tested."
    )
  constant = majority_row(summary)
  if constant is not None and summary.majority is not None:
    sign = summary.score.sign
    below = [
      r
      for r in summary.rows
      if r.test is not None and sign * (r.test.mean - summary.majority) < -1e-7
    ]
    if below:
      lines.append(
        f"{', '.join(r.method for r in below)} {'is' if len(below) == 1 else 'are'} "
        f"{'below' if sign > 0 else 'above'} the "
        f"{constant.method} ({_format.number(summary.majority, summary.score)}): training did not "
        "work there; try lower learning rates (--rates), more epochs (--epochs) or another encoder "
        "(--encoder)."
      )
  return lines


def _against(summary: Summary, base: str) -> str:
  """The clause on one baseline: who does better or worse beyond noise, or that no row differs."""
  found = [
    (r.method, d.mean)
    for r in summary.rows
    if (d := r.differences.get(base)) is not None and d.significant
  ]
  said, sign = [], summary.score.sign
  for word, part in (
    ("better", [f for f in found if sign * f[1] > 0]),
    ("worse", [f for f in found if sign * f[1] < 0]),
  ):
    if part:
      part.sort(key=lambda f: -abs(f[1]))
      names = ", ".join(f"{m} ({_format.number(x, summary.score, signed=True)})" for m, x in part)
      said.append(f"{word} than {base}: {names}")
  return "; ".join(said) or f"no row differs from {base}"


def _how(summary: Summary) -> str:
  points = "points, " if summary.score.share else ""
  rate = ", at one learning rate for all rows" if summary.info.get("one_rate") else ""
  rows = plural(len(summary.rows), "row")
  return (
    f"({points}{summary.split} {_format.name(summary.score)}, paired t over "
    f"{plural(summary.units, summary.unit)}, Holm-adjusted p < .05 over {rows}{rate})"
  )


def _fused(summary: Summary) -> list[Row]:
  """Rows of more than one modality that have a score."""
  return [r for r in summary.rows if not r.method.startswith(UNIMODAL) and r.test is not None]


def _leads(summary: Summary) -> str:
  """That no row beats `linear`, or none by more than its interval; "" where one does."""
  line = next((x for x in summary.lines if x.method == LINEAR), None)
  rows = _fused(summary) or [r for r in summary.rows if r.test is not None]
  found = [d for r in rows if (d := r.differences.get(LINEAR)) is not None]
  if line is None or line.test is None or not found:
    return ""
  kind = linear_kind(summary)
  score = _format.number(line.test.mean, summary.score)
  what = f"linear ({kind} regression on the flattened inputs, {score})"
  row = "fused row" if _fused(summary) else "row"
  sign = summary.score.sign
  if all(sign * d.mean <= 0 for d in found):
    return f"No {row} beats {what}."
  if all(d.half is not None and sign * d.mean <= d.half for d in found):
    return f"No {row} beats {what} by more than its interval."
  return ""


def _single(summary: Summary) -> str:
  """That fusion loses to the best single modality by validation, trained or linear; else "".

  A line that was scored on fewer rows than `linear` has no difference to it, and no say.
  """
  if len(summary.modalities) < 2:
    return ""
  score = {r.method: r.test.mean for r in (*summary.rows, *summary.lines) if r.test is not None}
  named = lambda method: f"{method} ({_format.number(score[method], summary.score)})"
  validated = {
    x.method: x.validation.mean
    for x in summary.lines
    if x.method in score and x.validation is not None and x.differences.get(LINEAR) is not None
  }
  sign = summary.score.sign
  alone = max(validated, key=lambda m: sign * validated[m], default=None)
  best = [*(r.method for r in summary.rows if r.best and r.method in score), alone]
  fused = [sign * score[r.method] for r in _fused(summary)]
  lost = [m for m in best if m is not None and fused and max(fused) <= sign * score[m]]
  said = []
  if lost:
    names = " or ".join(map(named, lost))
    said.append(f"No fused row beats {names}, the best single modality by validation.")
  if alone is not None and LINEAR in score and sign * score[LINEAR] <= sign * score[alone]:
    said.append(
      f"The linear baseline does not gain from fusion: {named(alone)} beats or equals it."
    )
  return " ".join(said)


def sentence(summary: Summary) -> str:
  """Which rows differ from a baseline beyond noise, or that none does; first of all, what it means.

  It begins with `linear` where no fused row beats it, and ends with the best single modality where
  none beats that. Where nothing can be said (one unit, no baseline, one row) it says that.
  """
  over = _missing.sentence(summary.score, summary.rows, summary.baselines)
  return " ".join(filter(None, (_leads(summary), _beyond_noise(summary), over, _single(summary))))


def _beyond_noise(summary: Summary) -> str:
  """One sentence on the differences to the trained baselines."""
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
