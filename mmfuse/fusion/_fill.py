"""What stands in for a modality that a row lacks, between any model's encoders and its heads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.core import Unavailable

POLICIES = ("skip", "zero", "mean", "token")
FILL = "fill"  # subtree of the tokens, and of the running means
MOMENTUM = 0.9


def check_policy(policy: str) -> None:
  """Raises ValueError for an unknown policy."""
  if policy not in POLICIES:
    raise ValueError(f"unknown fill {policy!r}; expected one of: {', '.join(POLICIES)}")


@dataclasses.dataclass(frozen=True)
class Fill:
  r"""A `core.Model` whose heads get h'_m = h_m where m is present, and a placeholder elsewhere.

  policy "skip": none, the fusion leaves m out by its mask (the model as it is); "zero": 0; "mean":
  the running mean of h_m over the training rows that have m, mean <- .9 mean + .1 (mean of a batch),
  begun with the first batch; "token": a learned vector, 0 at first, that only rows without m train.
  With all but "skip" the fusion is told that every modality is there. A row that has nothing stays
  as it is. Features are arrays [B, ...]; the modalities' own heads are judged where m is present.

  Raises ValueError for an unknown policy, Unavailable for a modality that is called "fill".
  """

  model: Any
  policy: str = "mean"

  def __post_init__(self):
    check_policy(self.policy)
    if FILL in self.modalities:
      raise Unavailable(f"a modality is called {FILL!r}, which is where placeholders are kept")

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return tuple(sorted(self.model.modalities))

  def restrict(self, modalities) -> "Fill":
    """The same on fewer modalities."""
    return Fill(self.model.restrict(modalities), self.policy)

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """The model's variables, with tokens under params["fill"] or means under batch_stats["fill"]."""
    variables = self.model.init(key, inputs, mask)
    stats = variables.get("batch_stats", {})
    made = {"params": variables["params"], "batch_stats": stats}
    if self.policy not in ("mean", "token"):
      return made
    encode = lambda: self.model.encode(made, inputs, mask, train=False, rngs=None)[0]
    empty = {m: jnp.zeros(h.shape[1:], h.dtype) for m, h in jax.eval_shape(encode).items()}
    if self.policy == "token":
      return {**made, "params": {**made["params"], FILL: empty}}
    seen = {m: jnp.zeros((), bool) for m in empty}
    return {**made, "batch_stats": {**stats, FILL: {"mean": empty, "seen": seen}}}

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """The model's features; with "mean", the running means move in training."""
    features, stats = self.model.encode(
      self._inner(variables), inputs, mask, train=train, rngs=rngs
    )
    if self.policy != "mean":
      return features, stats
    held = variables["batch_stats"][FILL]
    return features, {**stats, FILL: _moved(held, features, mask) if train else held}

  def heads(self, variables, features, mask, *, train, rngs=None):
    """The model's heads on filled features."""
    features, mask = self._filled(variables, features, mask)
    outputs, stats = self.model.heads(
      self._inner(variables), features, mask, train=train, rngs=rngs
    )
    held = variables["batch_stats"].get(FILL)
    return outputs, stats if held is None else {**stats, FILL: held}

  def _filled(self, variables, features, mask):
    if self.policy == "skip":
      return features, mask
    some = jnp.stack([mask[m] for m in self.modalities]).any(0)
    fillers = {
      "zero": lambda m: jnp.zeros(features[m].shape[1:], features[m].dtype),
      "mean": lambda m: variables["batch_stats"][FILL]["mean"][m],
      "token": lambda m: variables["params"][FILL][m],
    }[self.policy]
    filled = {
      m: jnp.where(_rows(some & ~mask[m], features[m]), fillers(m)[None], features[m])
      for m in self.modalities
    }
    return filled, {m: mask[m] | some for m in self.modalities}

  def _inner(self, variables):
    """What the wrapped model knows of the variables."""
    own = lambda part: {k: v for k, v in variables[part].items() if k != FILL}
    return {**variables, "params": own("params"), "batch_stats": own("batch_stats")}


def _rows(chosen: jax.Array, features: jax.Array) -> jax.Array:
  """bool [B] in the rank of features [B, ...]."""
  return chosen.reshape((-1,) + (1,) * (features.ndim - 1))


def _moved(held, features, mask):
  """Running means and whether there are any, after a batch; those of an absent modality stay."""
  mean, seen = {}, {}
  for m in sorted(features):
    h = jax.lax.stop_gradient(features[m])
    count = mask[m].sum()
    total = jnp.where(_rows(mask[m], h), h, jnp.zeros((), h.dtype)).sum(0)
    now = total / jnp.maximum(count, 1).astype(h.dtype)
    old = held["mean"][m]
    moved = jnp.where(held["seen"][m], MOMENTUM * old + (1 - MOMENTUM) * now, now)
    mean[m] = jnp.where(count > 0, moved, old).astype(old.dtype)
    seen[m] = held["seen"][m] | (count > 0)
  return {"mean": mean, "seen": seen}
