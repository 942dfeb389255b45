"""How numbers look: shares in percent with one decimal, signed differences in points, `n/a`."""

from collections.abc import Sequence

from mmfuse.metrics import Score
from mmfuse.report._statistics import Difference, Estimate

NONE = "n/a"


def plural(n: int, noun: str) -> str:
  """1 seed; 5 seeds."""
  return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def name(score: Score) -> str:
  """The score's name in words."""
  return score.words or score.name


def number(x: float | None, score: Score, *, signed: bool = False) -> str:
  """71.3 (percent) for shares, 0.713 for others; signed ones have a sign unless they round to 0."""
  if x is None:
    return NONE
  text = f"{100 * x:+.1f}" if score.share else f"{x:+.3f}"
  if float(text) == 0:
    return text[1:]
  return text if signed else text.removeprefix("+")


def estimate(e: Estimate | None, score: Score, *, interval: bool = True) -> str:
  """71.3 ± 2.1; without an interval 71.3."""
  if e is None:
    return NONE
  tail = f" ± {number(e.half, score)}" if interval and e.half is not None else ""
  return number(e.mean, score) + tail


def difference(d: Difference | None, score: Score) -> str:
  """+3.4 ± 1.2*, with the star where it is beyond noise."""
  if d is None:
    return NONE
  tail = f" ± {number(d.half, score)}" if d.half is not None else ""
  return number(d.mean, score, signed=True) + tail + ("*" if d.significant else "")


def p_value(p: float | None) -> str:
  """p = .034; p < .001."""
  if p is None:
    return "no p"
  return "p < .001" if p < 0.001 else "p = " + (f"{p:.3f}".removeprefix("0") if p < 1 else "1")


def rates(values: Sequence[float], edge: bool) -> str:
  """The chosen learning rates, several where folds differ: 0.01, 0.03 (edge)."""
  if not values:
    return NONE
  text = (
    ", ".join(f"{v:.3g}" for v in values)
    if len(values) < 4
    else f"{values[0]:.3g} to {values[-1]:.3g}"
  )
  return text + (" (edge)" if edge else "")


def ratio(x: float | None) -> str:
  """1.07x."""
  return NONE if x is None else f"{x:.2f}x"


def count(n: int | None) -> str:
  """950, 12.3k, 1.20M, 3.00G."""
  if n is None:
    return NONE
  if n < 1000:
    return str(n)
  for size, suffix, digits in ((1e6, "k", 1), (1e9, "M", 2)):
    if n < size * 0.9995:
      return f"{n / size * 1000:.{digits}f}{suffix}"
  return f"{n / 1e9:.2f}G"
