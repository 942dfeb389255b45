"""The one error of this package, and the closest-name hint every message shares."""

import difflib
from collections.abc import Iterable


class DataError(ValueError):
  """Input that cannot be used: one sentence saying what was there and what was expected."""


def closest(name: str, names: Iterable[str]) -> str:
  """`; did you mean 'x'? available: x, y`, for the end of a message about an unknown `name`."""
  known = sorted(names)
  near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
  hint = f"; did you mean {near[0]!r}?" if near else ";"
  return f"{hint} available: {', '.join(known) or 'none'}"
