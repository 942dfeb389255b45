"""What does ranking by packed codes cost? Against brute force, and against the cosine of floats as wide.

Command: python -m experiments.bench.ranking            (a minute on 2 cores; writes results/ranking.md)
         python -m experiments.bench.ranking --smoke
1,000 queries, 10,000 database rows, 16 to 128 bits: the packed ranking equals one by counting every bit;
codes take 1/32 of the memory of floats. Both rankings are whole and stable (ties by database index).
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import tyro

from experiments import _common
from mmfuse import metrics


@dataclasses.dataclass(frozen=True)
class Config:
  queries: int = 1_000
  database: int = 10_000
  bits: tuple[int, ...] = (16, 32, 64, 128)
  rounds: int = 5
  smoke: bool = False


def brute_force(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """Bits counted without packing them, rows sorted by (distance, index)."""
  out = []
  for q in query:
    distance = (q != database).sum(1)
    out.append(np.lexsort((np.arange(len(database)), distance)))
  return np.stack(out)


def cosine(query: np.ndarray, database: np.ndarray) -> np.ndarray:
  """Of float32 features of unit length."""
  return np.argsort(-(query @ database.T), axis=1, kind="stable")


def seconds(run: Callable[[], object]) -> float:
  """One lap."""
  began = time.perf_counter()
  run()
  return time.perf_counter() - began


def measure(cfg: Config) -> dict[int, dict[str, float]]:
  """{bits: {equal, memory, seconds of both, their ratio}}, laps interleaved, medians."""
  rng, found = np.random.default_rng(0), {}
  for bits in cfg.bits:
    codes = [rng.integers(0, 2, (n, bits)) for n in (cfg.queries, cfg.database)]
    packed = [metrics.pack_bits(c) for c in codes]
    floats = [rng.normal(size=c.shape).astype(np.float32) for c in codes]
    floats = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in floats]
    laps: dict[str, list[float]] = {"packed": [], "cosine": []}
    equal = np.array_equal(metrics.hamming_ranking(*packed), brute_force(*codes))
    for _ in range(cfg.rounds):
      laps["packed"].append(seconds(lambda p=packed: metrics.hamming_ranking(*p)))
      laps["cosine"].append(seconds(lambda x=floats: cosine(*x)))
    median = {name: statistics.median(times) for name, times in laps.items()}
    found[bits] = {
      "equal": float(equal),
      "memory": packed[1].nbytes / floats[1].nbytes,
      **median,
      "ratio": median["packed"] / median["cosine"],
    }
  return found


def page(cfg: Config, found: dict[int, dict[str, float]]) -> str:
  """Its table."""
  rows = [
    [
      bits,
      "yes" if r["equal"] else "NO",
      f"1/{1 / r['memory']:.0f}",
      f"{1e3 * r['packed']:.0f}",
      f"{1e3 * r['cosine']:.0f}",
      f"{r['ratio']:.2f}",
    ]
    for bits, r in found.items()
  ]
  header = [
    "bits",
    "equals brute force",
    "memory of float32",
    "packed, ms",
    "cosine, ms",
    "packed / cosine",
  ]
  text = _common.heading("# Ranking by packed codes", _common.command("bench.ranking", cfg), "0")
  return text + (
    f"\n{cfg.queries:,} queries in {cfg.database:,} database rows; whole rankings, medians of "
    f"{cfg.rounds} interleaved laps.\n\n" + _common.table(header, rows) + "\n"
  )


def main(argv=None) -> dict[int, dict[str, float]]:
  """One table."""
  cfg = tyro.cli(Config, args=argv)
  if cfg.smoke:
    cfg = dataclasses.replace(cfg, queries=20, database=200, rounds=1)
  found = measure(cfg)
  _common.write("ranking", page(cfg, found), cfg.smoke)
  return found


if __name__ == "__main__":
  main()
