"""The one error of this package, and how its messages end where a name is unknown."""

from collections.abc import Iterable

from mmfuse import names as names_lib


class DataError(ValueError):
  """Input that cannot be used: one sentence saying what was there and what was expected."""


def closest(name: str, names: Iterable[str]) -> str:
  """`; closest: x; available: x, y`: `names.closest` in alphabetical order."""
  return f"; {names_lib.closest(name, sorted(names))}"
