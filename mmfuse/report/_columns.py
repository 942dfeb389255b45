"""The columns of the table, shared by markdown, terminal and HTML."""

from collections.abc import Callable
from typing import NamedTuple

from mmfuse.metrics import Score
from mmfuse.report import _format
from mmfuse.report._lines import CONSTANT, LINEAR
from mmfuse.report._missing import SUMMARIES, label
from mmfuse.report._statistics import Difference, Estimate
from mmfuse.report._summary import Row, Summary, bare


class Column(NamedTuple):
  """One column: what it is called, what it shows, and what it sorts by."""

  header: str
  cell: Callable[[Row], str]
  value: Callable[[Row], float | str | None]  # sort key; None goes last
  hint: Callable[[Row], str] = lambda row: ""  # a few more words on a cell, for a tooltip
  key: str = ""  # "method", "fused", "modality" (each of them), "vs joint"...


def _mean(e: Estimate | Difference | None) -> float | None:
  return None if e is None else e.mean


def marked(row: Row) -> str:
  """A row's name with its mark."""
  mark = " (best single)" if row.best else " (best fused)" if row.best_fused else ""
  return row.method + mark


def _difference(summary: Summary, base: str) -> Column:
  def cell(row):
    if row.method == base:
      return "baseline"
    return _format.difference(row.differences.get(base), summary.score)

  def hint(row):
    d = row.differences.get(base)
    if d is None:
      return ""
    if d.p is None:
      return f"n = {d.n}"
    adjusted, plain = _format.p_value(d.p_holm), _format.p_value(d.p)
    return f"Holm-adjusted {adjusted}, unadjusted {plain}, n = {d.n}"

  name = f"vs {base}"
  return Column(name, cell, lambda row: _mean(row.differences.get(base)), hint, name)


def _score(
  header: str, pick: Callable[[Row], Estimate | None], score: Score, key: str, interval: bool = True
) -> Column:
  def hint(row):
    e = pick(row)
    return "" if e is None or not row.runs else f"n = {e.n}"

  cell = lambda row: _format.estimate(pick(row), score, interval=interval)
  return Column(header, cell, lambda row: _mean(pick(row)), hint, key)


def _of_modality(modality: str, score: Score) -> Column:
  return _score(modality, lambda row: row.unimodal.get(modality), score, "modality")


def _over_subsets(summary: Summary) -> list[Column]:
  """complete, mean, worst, the differences of the mean, and a column a subset; [] without them."""
  found = [row.missing for row in summary.rows if row.missing is not None]
  if not found:
    return []
  of = lambda pick: lambda row: None if row.missing is None else pick(row.missing)
  out = [_score(name, of(lambda m, n=name: m.over[n]), summary.score, name) for name in SUMMARIES]
  out += [_mean_difference(summary, base) for base in summary.baselines]
  return out + [
    _score(label(s), of(lambda m, s=s: m.subsets.get(s)), summary.score, "modality")
    for s in found[0].subsets
  ]


def _mean_difference(summary: Summary, base: str) -> Column:
  found = lambda row: None if row.missing is None else row.missing.differences.get(base)

  def cell(row):
    if row.method == base:
      return "baseline"
    return _format.difference(found(row), summary.score)

  name = f"mean vs {base}"
  return Column(name, cell, lambda row: _mean(found(row)), key=name)


def _further(score: Score) -> Column:
  return _score(_format.name(score), lambda row: row.scores.get(score.name), score, score.name)


def _contribution(row: Row, score: Score) -> str:
  lost = sorted(row.contribution.items())
  said = [f"{m} {_format.number(v, score, signed=True)}" for m, v in lost]
  return ", ".join(said) or _format.NONE


def compared_with(summary: Summary) -> tuple[str, ...]:
  """The baselines that have a column: those that were run, and `linear` where it has a score."""
  linear = any(line.method == LINEAR for line in summary.lines)
  return (*summary.baselines, *((LINEAR,) if linear else ()))


def columns(summary: Summary, *, further: bool = False) -> list[Column]:
  """All columns, left to right; with `further` the other metrics too.

  There is no step time where no row has one: it is a ratio to that of `joint`.
  """
  score, task = summary.score, summary.task
  out = [
    Column("method", marked, lambda row: row.method, key="method"),
    _score("fused" if task is None else task.whole, lambda row: row.test, score, "fused"),
  ]
  if summary.split != "validation":
    out.append(_score("validation", lambda row: row.validation, score, "validation", False))
  out += _over_subsets(summary)
  out += [_of_modality(m, score) for m in summary.modalities]
  out.extend(_difference(summary, base) for base in compared_with(summary))
  for name in summary.further if further else summary.beside:
    out.append(_further(summary.passport(name)))
  out.append(
    Column(
      "learning rate",
      lambda row: _format.rates(row.learning_rates, row.edge),
      lambda row: row.learning_rates[0] if row.learning_rates else None,
      lambda row: "; ".join(f"{k} = {v}" for h in row.hyper for k, v in h.items()),
      "rate",
    )
  )
  out.append(Column("trials", lambda row: _format.count(row.trials), lambda row: row.trials))
  if any(row.relative_step_time is not None for row in summary.rows):
    out.append(
      Column(
        "step time",
        lambda row: _format.ratio(row.relative_step_time),
        lambda row: row.relative_step_time,
        key="time",
      )
    )
  out.extend(
    [
      Column("parameters", lambda row: _format.count(row.parameters), lambda row: row.parameters),
      Column(
        "gradient evaluations",
        lambda row: _format.count(row.gradient_evaluations),
        lambda row: row.gradient_evaluations,
      ),
      Column("contribution", lambda row: _contribution(row, score), lambda row: None),
    ]
  )
  return out


def majority_row(summary: Summary) -> Row | None:
  """The row of the constant predictor, None where its score is not known."""
  if summary.majority is None:
    return None
  task = summary.task
  said = f"{CONSTANT} of training" if task is None else task.constant_words
  known = {name: Estimate(v, None, 1) for name, v in summary.constant.items()}
  own = {m: known.get(f"{summary.metric}/{m}") for m in summary.modalities}
  own = {m: e for m, e in own.items() if e is not None}
  further = {name: known[name] for name in summary.beside if name in known}
  return bare(said, Estimate(summary.majority, None, 1), unimodal=own, scores=further)


def all_rows(summary: Summary) -> list[Row]:
  """The rows, the linear baselines and, last, the majority class where its score is known."""
  last = majority_row(summary)
  return [*summary.rows, *summary.lines, *([last] if last is not None else [])]
