"""Columns that name a row instead of describing it: a model would learn them by heart."""

import re
from typing import Any

import numpy as np

from mmfuse.data._error import DataError

_ENOUGH = 20  # rows from which on different integers are no coincidence
_NAMES = re.compile(r"(^|[^a-z])(id|ids|idx|index|key|uuid|guid|rownum|row)$|[a-z](Id|ID)$")


def check_no_identifier(name: str, value: Any, present: np.ndarray) -> None:
  """Raises DataError for integers [B] or [B, 1] that differ in every present row."""
  x = np.asarray(value)
  if x.dtype.kind not in "iu" or x.size != len(x):
    return
  found = x.reshape(-1)[present]
  named = _NAMES.search(name) or _NAMES.search(name.lower())
  if len(found) < 2 or not (named or len(found) > _ENOUGH) or len(np.unique(found)) < len(found):
    return
  raise DataError(
    f"array {name!r} looks like an identifier: {len(found)} different integers in {len(found)} "
    f"rows; leave it out (--ignore {name}, ignore=({name!r},)), or name all modalities, with it, "
    f"if it is one (--modalities, modalities=), or give it as floats"
  )
