"""What a step of each row costs, over a step of `joint`."""

import statistics
from collections.abc import Mapping

from mmfuse import train
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search
from mmfuse.protocol._store import read_json, write_json

TIMING_SECONDS = 15.0
TIMED_TOGETHER = 12  # rows, beside `joint`: their programs and states are in memory at a time


def relative_times(search: Search, done: Mapping[Row, dict]) -> dict[str, float]:
  """Step time over that of `joint`, medians of interleaved epochs; {} without `joint`.

  Rows are timed some at a time, each time against `joint` in the same rounds. Kept in
  step_times.json: a report that is only written again measures nothing.
  """
  names = [row.name for row in done]
  if "joint" not in names:
    return {}
  path = search.store.folder / "step_times.json"
  kept = read_json(path) if path.is_file() else {}
  if set(names) <= set(kept):
    return {name: kept[name] for name in names}
  built = {
    row.name: search.method(row, search.chosen(choices[search.fold]))
    for row, choices in done.items()
  }
  others = [name for name in names if name != "joint"]
  ratio: dict[str, float] = {}
  for start in range(0, max(1, len(others)), TIMED_TOGETHER):
    train.release_programs()
    racing = ("joint", *others[start : start + TIMED_TOGETHER])
    times = train.interleaved_step_times(
      {name: built[name] for name in racing},
      search.splits,
      batch_size=search.cfg.sizes[1],
      budget=TIMING_SECONDS,
    )
    ratio |= {
      name: statistics.median(t / j for t, j in zip(laps, times["joint"]))
      for name, laps in times.items()
    }
  write_json(path, ratio)
  return ratio
