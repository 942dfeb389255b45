"""The model of `missing_prediction`: Transformers with read-only prompts, and predictors between them."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import encoders, fusion, train
from mmfuse.core import Outputs, Unavailable
from mmfuse.fusion._late import named_key
from mmfuse.tree import FUSED, HEADS

PREDICTORS = "predictors"  # subtree of the parameters: {source: {target: ...}}
PREDICTIONS = "predictions"  # in `Outputs.aux`: {target: {source: [B, D]}}
POSITIONS = (
  1.0  # as wide as the tokens: with .02 an encoder hardly knows its place in a few hundred steps
)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "relu": jax.nn.relu,
}


class Predictor(nn.Module):
  """g(u) = W2 a(W1 u + b1) + b2 of u [B, D]: [B, features]; a "gelu" (exact) or "relu"."""

  hidden: int
  features: int
  activation: str = "gelu"

  @nn.compact
  def __call__(self, u: jax.Array) -> jax.Array:
    h = ACTIVATIONS[self.activation](nn.Dense(self.hidden, name="up")(u))
    return nn.Dense(self.features, name="down")(h)


def substitute(
  h: Mapping[str, jax.Array],
  predictions: Mapping[str, Mapping[str, jax.Array]],
  mask: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
  """{m: [B, D]}: h_m where m is present, else the mean of what the present modalities predict of it.

  0 where a row has nothing at all. predictions: {m: {source: [B, D]}}; mask {m: bool [B]}.
  """
  filled = {}
  for m in sorted(h):
    found = predictions[m]
    total = sum(jnp.where(mask[n][:, None], g, 0.0) for n, g in found.items())
    count = sum(mask[n].astype(jnp.float32) for n in found)
    mean = total / jnp.maximum(count, 1.0)[:, None]
    filled[m] = jnp.where(mask[m][:, None], h[m], mean.astype(h[m].dtype))
  return filled


def is_frozen(path: str, modalities: tuple[str, ...]) -> bool:
  """Whether the second phase leaves a leaf as it is: an encoder's, but for biases and prompts (BitFit)."""
  words = path.split("/")
  return words[0] in modalities and words[-1] not in ("bias", "prompts")


@dataclasses.dataclass(frozen=True)
class Prompted:
  r"""logits = [h_1; ...; h_M] W + b, where absent h_m is the mean of g_nm(u_n) over the present n.

  h_n [B, D] is the pooled embedding of encoder n, u_n [B, D] the mean of what its prompts have read, which
  h_n is not touched by. A `core.Model`; features are [B, 1 + P, D], h first. `Outputs.features` are
  the h_n, 0 where absent, aux["predictions"] {target: {source: [B, D]}}, unimodal_logits those of
  a linear head of each h_n alone. Parameters: the encoders', "predictors", "heads".

  Args:
    stages: ((m, encoder), ...), sorted; Linen modules that return [B, 1 + P, D].
    num_outputs: `(inputs, mask) -> C`, from shapes alone.
    activation: of the predictors, "gelu" or "relu"; they are D - 2 D - D.
    biases: encoders pass a gradient to biases and prompts alone; default False, to all they have.

  Raises (at `init`) Unavailable for integers whose vocabulary is not known.
  """

  stages: tuple[tuple[str, nn.Module], ...]
  num_outputs: Callable[[Mapping, Mapping], int]
  activation: str = "gelu"
  biases: bool = False

  restrict = None  # of one modality there is nothing to predict

  @property
  def modalities(self) -> tuple[str, ...]:
    """Sorted names."""
    return tuple(m for m, _ in self.stages)

  @property
  def _late(self) -> fusion.LateFusion:
    """The encoders, whose call is written there; its heads are not used."""
    return fusion.LateFusion(dict(self.stages), 1)

  def init(self, key: jax.Array, inputs: Any, mask: Any) -> dict[str, Any]:
    """Variables from one example batch."""
    self._check(inputs)
    made = self._late.init(key, inputs, mask)
    count = self.num_outputs(inputs, mask)
    width = jax.eval_shape(lambda: self._encoded(made, inputs, mask, train=False, rngs=None)[0])
    h = {m: jnp.zeros((1, x.shape[-1])) for m, x in width.items()}
    seeded = lambda name: named_key(key, name)
    heads = {m: nn.Dense(count).init(seeded(f"{HEADS}/{m}"), h[m])["params"] for m in h}
    there = {m: jnp.ones(1, bool) for m in h}
    heads[FUSED] = fusion.Concat().init(
      seeded(f"{HEADS}/{FUSED}"), h, there, num_classes=count, train=False
    )["params"]
    predictors = {
      n: {
        m: self._predictor(h[m].shape[1]).init(seeded(f"{PREDICTORS}/{n}/{m}"), h[n])["params"]
        for m in h
        if m != n
      }
      for n in h
    }
    own = {m: made["params"][m] for m in h}
    return {"params": {**own, PREDICTORS: predictors, HEADS: heads}, "batch_stats": {}}

  def encode(self, variables, inputs, mask, *, train: bool, rngs=None):
    """({m: [B, 1 + P, D]}, statistics), 0 where m is absent."""
    params = variables["params"]
    if self.biases:
      params = jax.tree_util.tree_map_with_path(self._held, params)
    made = {**variables, "params": params}
    return self._encoded(made, inputs, mask, train=train, rngs=rngs)

  def heads(self, variables, features, mask, *, train: bool, rngs=None):
    """(Outputs, statistics)."""
    del rngs
    params, heads = variables["params"][PREDICTORS], variables["params"][HEADS]
    h: dict[str, jax.Array] = {m: x[:, 0] for m, x in features.items()}
    read = {m: x[:, 1:].mean(1) for m, x in features.items()}
    predictions: dict[str, dict[str, jax.Array]] = {m: {} for m in h}
    for m, n in itertools.permutations(h, 2):
      predictor: Any = self._predictor(h[m].shape[1])
      predictions[m][n] = predictor.apply({"params": params[n][m]}, read[n])
    count = heads[FUSED]["bias"].shape[0]
    logits, split = fusion.Concat().apply(
      {"params": heads[FUSED]},
      substitute(h, predictions, mask),
      mask,
      num_classes=count,
      train=train,
    )
    dense: Any = nn.Dense(count)
    unimodal = {m: dense.apply({"params": heads[m]}, h[m]) for m in h}
    aux = {"split_logits": split, PREDICTIONS: predictions}
    return Outputs(logits, unimodal, h, aux), variables["batch_stats"]

  def _encoded(self, variables, inputs, mask, *, train: bool, rngs):
    features, stats = self._late.encode(variables, inputs, mask, train=train, rngs=rngs)
    width = {m: stage.features for m, stage in self.stages}
    return {m: x.reshape(x.shape[0], -1, width[m]) for m, x in features.items()}, stats

  def _check(self, inputs) -> None:
    for m, stage in self.stages:
      whole = jnp.issubdtype(jax.tree.leaves(inputs[m])[0].dtype, jnp.integer)
      if whole and stage.stages[0].vocabulary is None:
        raise Unavailable(
          f"missing_prediction embeds integers, and no encoders.Embedding says how many {m!r} has"
        )

  def _predictor(self, width: int) -> Predictor:
    return Predictor(2 * width, width, self.activation)

  def _held(self, path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return jax.lax.stop_gradient(leaf) if is_frozen(name, self.modalities) else leaf


def prompted(model: Any, *, activation: str = "gelu", prompts: int = 4, **sizes: Any) -> Prompted:
  """`Prompted` for the modalities of `model`: `Tokens`, then a `Transformer` of these sizes."""
  transformer = encoders.Transformer(pool="mean", prompts=prompts, position_std=POSITIONS, **sizes)
  stages = tuple(
    (m, encoders.Chain((encoders.Tokens(_vocabulary(model, m)), transformer)))
    for m in sorted(model.modalities)
  )
  return Prompted(stages, train.Width(model), activation)


def _vocabulary(model: Any, modality: str) -> int | None:
  """That of the `Embedding` which reads a modality in `model`; None where there is none."""
  module = getattr(model, "encoders", {}).get(modality)
  first = getattr(module, "stages", (module,))[0]
  found: int | None = getattr(first, "vocabulary", None)
  return found
