"""Whether the noise that a likelihood grants leaves anything for a latent to say."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfuse import data
from mmfuse.protocol._config import Compare
from mmfuse.protocol._generation import likelihoods
from mmfuse.protocol._rows import Row

ROWS = 1000  # of the training rows, evenly spaced
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
  from mmfuse.methods.generative.vae._likelihood import AUTO, SCALED, likelihood_of

  names = [row.name for row in rows if "likelihood" in row.entry.needs]
  complete = np.flatnonzero(np.all([*splits.train.mask.values()], axis=0))
  if not names or len(complete) < 2:
    return []
  some = complete[np.linspace(0, len(complete) - 1, min(ROWS, len(complete))).astype(int)]
  given, columns, kinds = likelihoods(cfg), [], {}
  for m in splits.modalities:
    x = splits.train.inputs[m]
    found = likelihood_of(given if isinstance(given, str) else given.get(m, AUTO), m, x)
    if found.kind not in SCALED or not isinstance(x, np.ndarray):
      return []  # of tokens, pictures of 0 and 1 and sequences nothing is said
    kinds[m] = found
    noise = found.scale * (math.sqrt(2) if found.kind == "laplace" else 1)
    columns.append(np.asarray(x[some], np.float64).reshape(len(some), -1) / noise)
  nats = worth(np.concatenate(columns, 1))
  return [] if nats >= LEAST else [_said(nats, kinds, columns)]


def _said(nats: float, kinds: Mapping[str, Any], columns: list[np.ndarray]) -> str:
  of: dict[str, list[str]] = {}
  for m, kind in kinds.items():
    of.setdefault(str(kind), []).append(m)
  said = "; ".join(f"{kind} of {', '.join(who)}" for kind, who in of.items())
  drowned = [float(values.std(0).mean()) for values in columns]  # in units of the noise
  m, least = min(zip(kinds, drowned, strict=True), key=lambda pair: pair[1])
  kind, less = kinds[m], kinds[m].scale * min(least, 0.5)
  return (
    f"log p: at {said} the best linear latent is worth {nats:.2f} nats a row over none: posteriors will "
    "say next to nothing of the rows; with less noise, as --likelihood "
    f"{m}={kind.kind}:{less:.1g}, they have more to say"
  )
