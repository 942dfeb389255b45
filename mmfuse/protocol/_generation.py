"""Task generation: what is said of a model beside its ELBO, on test rows, once the choices are written.

IWAE, coherence of what is generated from some modalities for the others, probes of each modality's own
posterior, reconstruction; and samples to look at. All are by fixed keys.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import data, masks, methods, train
from mmfuse.core import Batch, Method, Sequence, State, Unavailable
from mmfuse.metrics import Score
from mmfuse.names import CLASSIFICATION, closest
from mmfuse.protocol._config import Compare, UsageError, split_words

SAMPLES = 64  # of the IWAE bound
ROWS = 128  # a compiled call of it: K times as many latents are decoded
JUDGE_RATE = 1e-3  # Adam, of the classifiers that coherence asks
SEED = 0  # of classifiers and draws
SHOWN = 8  # rows of a grid of samples


def likelihoods(cfg: Compare, modalities: tuple[str, ...] | None = None) -> Any:
  """`--likelihood` -> one word for all modalities, or {m: word}; "auto" where nothing is said.

  Raises UsageError for an unknown word or, where `modalities` are given, an unknown name.
  """
  from mmfuse.methods.generative.vae._likelihood import AUTO, parse

  words = split_words(cfg.likelihood)
  pairs = dict(w.split("=", 1) for w in words if "=" in w)
  alone = [w for w in words if "=" not in w]
  if len(alone) > 1 or (alone and pairs):
    raise UsageError(f"--likelihood takes one word for all modalities or name=word, got {words}")
  for word in [*alone, *pairs.values()]:
    if word != AUTO:
      try:
        parse(word)
      except ValueError as error:
        raise UsageError(f"--likelihood: {error}") from error
  for m in pairs:
    if modalities is not None and m not in modalities:
      raise UsageError(f"--likelihood names {m!r}, which is no modality; {closest(m, modalities)}")
  return pairs or (alone[0] if alone else AUTO)


def likelihoods_of(cfg: Compare, splits: data.Splits) -> dict[str, Any]:
  """{m: the `Likelihood` of a modality}. Raises UsageError for one that its rows cannot have."""
  from mmfuse.methods.generative.vae._likelihood import AUTO, likelihood_of

  given = likelihoods(cfg, tuple(splits.modalities))
  spec = lambda m: given if isinstance(given, str) else given.get(m, AUTO)
  try:
    return {m: likelihood_of(spec(m), m, splits.train.inputs[m]) for m in splits.modalities}
  except Unavailable as error:
    raise UsageError(f"--likelihood: {error}; name=word gives each modality its own") from error


def said(cfg: Compare, splits: data.Splits) -> str:
  """What an ELBO is one of: "log p: normal(1) of a, b (as they are)"."""
  found: dict[str, list[str]] = {}
  for m, kind in likelihoods_of(cfg, splits).items():
    found.setdefault(str(kind), []).append(f"{m} ({_scale(splits.scaler, m)})")
  return "log p: " + "; ".join(f"{kind} of {', '.join(who)}" for kind, who in found.items())


def _scale(scaler: Any, m: str) -> str:
  if m not in scaler.mean:
    return "tokens"
  if m in scaler.unit:
    return "in 0..1"
  raw = (scaler.mean[m] == 0).all() and (scaler.std[m] == 1).all()
  return "as it is" if raw else "standardised"


def passports(modalities: tuple[str, ...]) -> list[Score]:
  """What the further scores are called in a table."""
  return [
    Score("iwae", words=f"IWAE({SAMPLES}) in nats"),
    *(
      Score(f"coherence/{k}", share=True, words=f"coherence given {k}")
      for k in range(1, len(modalities))
    ),
    *(Score(f"probe/{m}", share=True, words=f"probe of {m}") for m in modalities),
    *(Score(f"reconstruction/{m}", False, words=f"squared error of {m}") for m in modalities),
  ]


def _labelled(splits: data.Splits) -> data.Splits | None:
  """The same rows as a task of classes; None where they have none."""
  label = splits.train.label
  if label is None or not splits.class_names or np.ndim(label) != 1:
    return None
  return dataclasses.replace(splits, task=CLASSIFICATION)


class Judges:
  """A classifier of each modality, trained on real training rows before anything is generated."""

  def __init__(self, splits: data.Splits, model: Any, epochs: int | None = None):
    self.splits, self.model, self.epochs = _labelled(splits), model, epochs
    self._trained: dict[str, tuple[Method, State]] = {}

  def of(self, m: str) -> tuple[Method, State]:
    """(classifier, its state) of a modality."""
    if m not in self._trained:
      tx = train.adam(JUDGE_RATE)
      method = methods.METHODS["unimodal"](self.model, JUDGE_RATE, tx=tx, modality=m)
      result = train.fit(method, self.splits, epochs=self.epochs, seeds=[SEED], diagnose=False)
      self._trained[m] = method, result.state(0)
    return self._trained[m]

  def classes(self, m: str, x: Any, split: Any) -> np.ndarray:
    """int [N], what the classifier of `m` sees in x [N, ...] in place of the rows of `split`."""
    there = {n: np.full(len(split), n == m) for n in split.mask}
    method, state = self.of(m)
    seen = split.replace(inputs={**split.inputs, m: x}, mask=there)
    return np.asarray(train.predict_split(method, state, seen).logits).argmax(-1)


@dataclasses.dataclass(frozen=True)
class _Generated:
  """(state, batch) -> {m: [B, ...]}, given what the batch has."""

  generate: Callable[..., Any]

  def __call__(self, state: State, batch: Batch) -> dict[str, jax.Array]:
    key = jax.random.fold_in(jax.random.key(SEED), batch.index[0])
    return self.generate(state, masks.fill(batch.inputs, batch.mask), batch.mask, key)


@dataclasses.dataclass(frozen=True)
class _Bound:
  """(state, batch) -> the IWAE bound [B] in nats."""

  iwae: Callable[..., Any]

  def __call__(self, state: State, batch: Batch) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(SEED), batch.index[0])
    inputs = masks.fill(batch.inputs, batch.mask)
    return self.iwae(state, inputs, batch.mask, key, SAMPLES)


def generated(
  method: Method, state: State, split: Any, given: tuple[str, ...]
) -> dict[str, np.ndarray]:
  """{m: [N, ...]}: every modality, generated from those `given`; from the prior where there are none.

  Args:
    method, state: with a function "generate".
    split: the rows.
    given: modalities.
  """
  mask = {m: np.asarray(v) & (m in given) for m, v in split.mask.items()}
  function = _Generated(method.functions["generate"])
  return train.over_split(function, state, split.replace(mask=mask), batch_size=ROWS)


@dataclasses.dataclass(frozen=True)
class _Drawn:
  """(state, batch) -> {m: [B, S, ...]} of draws by the keys in batch.extra."""

  generate: Callable[..., Any]
  samples: int

  def __call__(self, state: State, batch: Batch) -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(batch.extra["seed"][0]), self.samples)
    first = jax.vmap(jax.random.fold_in, (0, None))(keys, batch.index[0])
    inputs = masks.fill(batch.inputs, batch.mask)
    draw = lambda key: self.generate(state, inputs, batch.mask, key)
    made = jax.lax.map(draw, first)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), made)


def draws(
  method: Method, state: State, split: Any, given: tuple[str, ...], samples: int, seed: int
) -> dict[str, np.ndarray]:
  """{m: [N, S, ...]}: S draws of every row, from the modalities `given`.

  Args:
    method, state: with a function "generate".
    split: the rows.
    given: modalities; () draws from the prior.
    samples: S.
    seed: of the draws.
  """
  mask = {m: np.asarray(v) & (m in given) for m, v in split.mask.items()}
  seeded = split.replace(mask=mask, extra={"seed": np.full(len(split), seed, np.uint32)})
  return train.over_split(
    _Drawn(method.functions["generate"], samples), state, seeded, batch_size=ROWS
  )


def coherence(method: Method, state: State, split: Any, judges: Judges) -> dict[str, float]:
  """{"coherence/k": share}: how often a modality generated from k others shows the class of its row.

  The mean over all sets of k modalities and all targets outside, in rows that have the whole set.

  Args:
    method, state: with a function "generate".
    split: rows with labels.
    judges: who says what is seen.
  """
  names = sorted(split.mask)
  known = train.judged(split)
  found: dict[int, list[float]] = {}
  for given in masks.combinations(names):
    rows = np.all([split.mask[m] for m in given], axis=0) & known
    if len(given) == len(names) or not rows.any():
      continue
    made = generated(method, state, split, given)
    for target in names:
      if target not in given:
        right = judges.classes(target, made[target], split) == split.label
        found.setdefault(len(given), []).append(float(right[rows].mean()))
  return {f"coherence/{k}": float(np.mean(v)) for k, v in sorted(found.items())}


def reconstruction(method: Method, state: State, split: Any) -> dict[str, float]:
  """{"reconstruction/m": squared error of a row, summed}, all modalities given; of numbers alone."""
  shown = train.predict_split(method, state, split).aux["reconstructions"]
  out = {}
  for m, x in sorted(split.inputs.items()):
    rows = np.asarray(split.mask[m])
    if isinstance(x, Sequence) or x.dtype.kind != "f" or not rows.any():
      continue
    error = np.square(np.asarray(shown[m], np.float64) - x).reshape(len(x), -1).sum(1)
    out[f"reconstruction/{m}"] = float(error[rows].mean())
  return out


def further(
  method: Method, state: State, splits: data.Splits, test: Any, judges: Judges
) -> dict[str, float]:
  """All scores of `passports` that the data allow.

  Args:
    method, state: a method with the functions "iwae" and "generate".
    splits: training rows, for probes.
    test: the rows that are judged.
    judges: classifiers; without classes there are neither probes nor coherence.
  """
  bound = train.over_split(_Bound(method.functions["iwae"]), state, test, batch_size=ROWS)
  weight = train.to_batch(test).weight
  out = {"iwae": float(np.average(bound, weights=weight))}
  out |= reconstruction(method, state, test)
  if judges.splits is None:
    return out
  out |= coherence(method, state, test, judges)
  probes = train.linear_probe(
    method, state, splits.train, test, task=CLASSIFICATION, num_outputs=splits.num_outputs
  )
  return out | {f"probe/{m}": v for m, v in probes.items()}


def can(method: Method) -> bool:
  """Whether a method generates."""
  return {"iwae", "generate"} <= set(method.functions)


def picture(x: np.ndarray) -> np.ndarray | None:
  """A row as an image [H, W] or [H, W, 3]; None where it is none. Vectors of a square length are squares."""
  side = round(x.size**0.5)
  if x.ndim == 1 and side * side == x.size:
    return x.reshape(side, side)
  if x.ndim == 3 and x.shape[-1] in (1, 3):
    return x[..., 0] if x.shape[-1] == 1 else x
  return x if x.ndim == 2 else None


def pictures(x: np.ndarray) -> list[np.ndarray]:
  """The rows of x [N, ...] as pictures; [] where one is none."""
  found = [p for p in map(picture, x) if p is not None]
  return found if len(found) == len(x) else []


def samples(
  method: Method, state: State, split: Any, scaler: Any
) -> list[tuple[str, list[np.ndarray]]]:
  """Lines of a grid: (words, a picture per row): real ones, from each modality alone, from the prior.

  Args:
    method, state: with a function "generate".
    split: the rows, of which the first few are shown.
    scaler: which is undone.
  """
  few = split.rows(np.arange(min(SHOWN, len(split))))
  names = sorted(split.inputs)
  lines: list[tuple[str, Mapping[str, Any]]] = [("real", few.inputs)]
  lines += [(f"from {m}", generated(method, state, few, (m,))) for m in names]
  lines += [("prior", generated(method, state, few, ()))]
  found = []
  for words, made in lines:
    for m in names:
      x = made[m].values if isinstance(made[m], Sequence) else made[m]
      if m not in scaler.mean:
        continue
      x = np.asarray(x, np.float64) * scaler.std[m] + scaler.mean[m]
      shown = pictures(x)
      if shown:
        found.append((f"{words}: {m}", shown))
  return found
