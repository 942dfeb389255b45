"""Whether the noise that a likelihood grants leaves anything for a latent to say."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse import data
from mmfuse.protocol._config import Compare
from mmfuse.protocol._generation import likelihoods_of
from mmfuse.protocol._rows import Row

ROWS = 1000  # of the training rows, evenly spaced
NUMBERS = 20_000_000  # of them together: of large pictures fewer rows
LEAST = 1.0  # nats a row, below which it is said


def worth(x: np.ndarray) -> float:
  r"""What the best linear latent is worth over none, in nats a row, of x [N, D] in units of the noise.

  \sum_{\lambda > 1} (\lambda - 1 - \ln \lambda) / 2 over the eigenvalues of the covariance: the maximal
  likelihood of probabilistic PCA (Tipping and Bishop, 1999) less that of noise alone. Where it is about 0 a
  linear VAE's posterior is the prior (Lucas, Tucker, Grosse, Norouzi: Don't Blame the ELBO!, NeurIPS 2019).
  """
  x = x.astype(np.float64) - x.mean(0)
  square = x @ x.T if len(x) < x.shape[1] else x.T @ x
  above = np.linalg.eigvalsh(square) / len(x)
  above = above[above > 1]
  return float(np.sum(above - 1 - np.log(above)) / 2)


def notes(rows: Iterable[Row], cfg: Compare, splits: data.Splits) -> list[str]:
  """A note where rows with a likelihood of numbers have next to nothing to encode."""
  from mmfuse.methods.generative.vae._likelihood import SCALED

  inputs = {m: splits.train.inputs[m] for m in splits.modalities}
  complete = np.flatnonzero(np.all([*splits.train.mask.values()], axis=0))
  if not any("likelihood" in row.entry.needs for row in rows) or len(complete) < 2:
    return []
  if not all(isinstance(x, np.ndarray) for x in inputs.values()):
    return []  # of sequences of several lengths nothing is said
  width = sum(math.prod(x.shape[1:]) for x in inputs.values())
  count = min(ROWS, max(2, NUMBERS // width), len(complete))
  some = complete[np.linspace(0, len(complete) - 1, count).astype(int)]
  kinds = likelihoods_of(cfg, splits)
  if not all(kind.kind in SCALED for kind in kinds.values()):
    return []  # nor of tokens and of pictures of 0 and 1
  noise = {m: k.scale * (math.sqrt(2) if k.kind == "laplace" else 1) for m, k in kinds.items()}
  flat = lambda m: np.asarray(inputs[m][some], np.float64).reshape(len(some), -1)
  columns = [flat(m) / noise[m] for m in kinds]
  nats = worth(np.concatenate(columns, 1))
  return [] if nats >= LEAST else [_said(nats, kinds, columns)]


def _said(nats: float, kinds: Mapping[str, Any], columns: list[np.ndarray]) -> str:
  of: dict[str, list[str]] = {}
  for m, kind in kinds.items():
    of.setdefault(str(kind), []).append(m)
  said = "; ".join(f"{kind} of {', '.join(who)}" for kind, who in of.items())
  drowned = [float(values.std(0).mean()) for values in columns]  # in units of the noise
  moving = [(sd, m) for m, sd in zip(kinds, drowned, strict=True) if sd > 0]
  if not moving:
    return f"log p: at {said} there is nothing to encode: no value differs between training rows"
  least, m = min(moving)
  kind, less = kinds[m], kinds[m].scale * min(least, 0.5)
  return (
    f"log p: at {said} the best linear latent is worth {nats:.2f} nats a row over none: posteriors will "
    "say next to nothing of the rows; with less noise, as --likelihood "
    f"{m}={kind.kind}:{less:.1g}, they have more to say"
  )
