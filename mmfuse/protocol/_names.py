"""Names of rows and trials as file names: readable, of bounded length, different where they differ."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from mmfuse.protocol._config import digest

LENGTH = 40  # characters of a name that stand in a file name
_PLAIN = re.compile(rf"[a-z0-9_]{{1,{LENGTH}}}")


def file_name(name: str) -> str:
  """A plain name as it stands, any other as `<readable part>-<8 hex digits of its sha256>`.

  Plain are up to 40 of a-z, 0-9 and _. They hold no "-", so none equals a name with a digest, and
  no two file names differ in case alone.
  """
  if _PLAIN.fullmatch(name):
    return name
  mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
  return "-".join(filter(None, (_readable(name), mark)))


def trial_name(rate: float, hyper: Iterable[tuple[str, Any]]) -> str:
  """`lr0.03` where that is exact and all, else `lr0.03-<hyper-parameters>-<8 hex digits>`."""
  hyper = list(hyper)
  shown = f"lr{rate:.6g}"
  if not hyper and float(f"{rate:.6g}") == rate:
    return shown
  values = _readable("-".join(f"{k}{v}" for k, v in hyper))
  return "-".join(filter(None, (shown, values, digest([rate, hyper])[:8])))


def _readable(name: str) -> str:
  return re.sub(r"[^\w.]+", "-", name).lower()[:LENGTH].strip("-.")
