"""Late fusion: an encoder per modality, a uni-modal head each, and one fused head."""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import draws, encoders, masks, tree
from mmfuse.core import AUX, Outputs
from mmfuse.fusion._concat import Concat


def named_key(key: jax.Array, name: str) -> jax.Array:
  """A key that depends on `key` and `name` alone, so that a subtree is the same in any company."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


def named_rngs(rngs: Mapping[str, jax.Array] | None, name: str) -> dict[str, jax.Array]:
  """`rngs` with every key made the one of subtree `name`; {} for None."""
  return {k: named_key(v, name) for k, v in (rngs or {}).items()}


def check_modalities(modalities: Sequence[str]) -> None:
  """Refuses no modality, and names that would collide with those of the parameter tree."""
  if not modalities:
    raise ValueError("a model needs at least one modality, got none")
  for m in modalities:
    if m in tree.RESERVED:
      raise ValueError(
        f"{m!r} is a reserved name and cannot be a modality; rename it "
        f"(reserved: {', '.join(tree.RESERVED)})"
      )


def check_present(modalities: Sequence[str], inputs: Mapping, mask: Mapping) -> None:
  """Refuses a batch that lacks one of `modalities`, in its inputs or in its mask."""
  for name, given in (("inputs", inputs), ("mask", mask)):
    lacking = sorted(set(modalities) - set(given))
    if lacking:
      raise ValueError(
        f"modality {lacking[0]!r} not in {name}; available: {', '.join(sorted(given))}"
      )


@dataclasses.dataclass(frozen=True)
class LateFusion:
  """h_m = encoder_m(x_m), logits = fusion({h_m}), unimodal_logits_m = h_m W_m + b_m.

  Implements `core.Model`: `init`, `encode`, `heads`, `restrict`, `modalities`. It holds no
  parameters; `variables` is {"params": {m: ..., "heads": {m: ..., "fused": ...}}, "batch_stats":
  {m: ..., "heads": ...}}, where subtrees without statistics are left out. Initialisation of encoder
  m and head m depends on the key and the name m alone.

  Args:
    encoders: {modality: Linen module `(x, mask, *, train) -> [B, D_m]`}, or what `encoders.adapt`
      takes; one that returns more axes is flattened, and a fusion that reads sequences
      (`reads_steps`: MulT, Bottleneck, Perceiver) gets [B, T, D] from an encoder whose
      `step_features` is D; steps of zeros at a row's end are none to it. A `core.Sequence` goes to
      encoders that say `reads_lengths`, to others its values with zeros after each end.
    num_classes: C, the width of every head.
    fusion: Linen module `(features, mask, *, num_classes, train) -> (logits [B, C], beside)`,
      default `Concat()`; `beside` is split {m: [B, C]}, None, or {name: value} of names in
      `core.AUX` ("mu", "logvar"), which become `Outputs.aux`.
    dropout: rate on the features before all heads, default 0.

  Raises:
    ValueError: no modality, a reserved name, what is no encoder, num_classes < 1, a rate outside
      [0, 1), or a fusion led by a modality that is not there; `init` for an encoder that returns
      something else than one array of a row per row.
  """

  encoders: Mapping[str, nn.Module]
  num_classes: int
  fusion: nn.Module = dataclasses.field(default_factory=Concat)
  dropout: float = 0.0

  def __post_init__(self):
    check_modalities(self.modalities)
    taken = {m: encoders.adapt(e, m) for m, e in self.encoders.items()}
    if any(taken[m] is not e for m, e in self.encoders.items()):
      object.__setattr__(self, "encoders", taken)
    if self.num_classes < 1:
      raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
    if not 0 <= self.dropout < 1:
      raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
    by = getattr(self.fusion, "by", None)
    if by is not None and by not in self.encoders:
      raise ValueError(
        f"the fusion is led by {by!r}, which is no modality of the model; "
        f"available: {', '.join(self.modalities)}"
      )

  def __hash__(self):
    return hash((self.modalities, self.num_classes, self.dropout))

  @property
  def modalities(self) -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(sorted(self.encoders))

  def restrict(self, modalities: Sequence[str]) -> "LateFusion":
    """The same model on fewer modalities. Raises ValueError for a name it does not have."""
    check_known(self, modalities)
    fusion = self.fusion.restrict(modalities) if hasattr(self.fusion, "restrict") else self.fusion
    fewer = {m: self.encoders[m] for m in sorted(modalities)}
    return dataclasses.replace(self, encoders=fewer, fusion=fusion)

  def init(self, key: jax.Array, inputs: Mapping[str, Any], mask: masks.Mask) -> dict[str, Any]:
    """Variables from one example batch: inputs {m: [B, ...]}, mask {m: bool [B]}."""
    inputs = self._select(inputs, mask)
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    features = {}
    for m in self.modalities:
      h, variables = self.encoders[m].init_with_output(
        named_key(key, m), inputs[m], mask[m], train=False
      )
      encoders.check_output(h, variables, m, self.encoders[m], mask[m].shape[0])
      features[m] = h.reshape(h.shape[0], -1)
      store_variables(variables, m, params, stats)
    heads = {
      m: self._dense().init(named_key(key, f"heads/{m}"), features[m])["params"]
      for m in self.modalities
    }
    variables = self.fusion.init(
      named_key(key, "heads/fused"),
      self._steps(features),
      mask,
      num_classes=self.num_classes,
      train=False,
    )
    moving: dict[str, Any] = {}
    store_variables(variables, tree.FUSED, heads, moving)
    params[tree.HEADS] = heads
    if moving:
      stats[tree.HEADS] = moving
    return {"params": params, "batch_stats": stats}

  def encode(self, variables, inputs, mask, *, train: bool, rngs=None):
    """({m: [B, D_m]}, batch_stats). Features of absent rows are zero and pass no gradient."""
    found, stats = encode_each(self, variables, self._select(inputs, mask), mask, train, rngs)
    features = {}
    for m, h in found.items():
      h = h.reshape(h.shape[0], -1)
      features[m] = jnp.where(mask[m].reshape(-1, 1), h, jnp.zeros((), h.dtype))
    return features, stats

  def heads(self, variables, features, mask, *, train: bool, rngs=None):
    """(Outputs, batch_stats); `variables` must carry the statistics that `encode` returned.

    aux["split_logits"] {m: [B, C]} is there where the fusion is additive (concat, sum). Raises ValueError
    for what a fusion returns beside its logits under an unknown name.
    """
    params, stats = variables["params"][tree.HEADS], variables["batch_stats"]
    dropped = self._dropped(features, train, rngs)
    unimodal = self._unimodal(params, dropped)
    old = stats.get(tree.HEADS, {})
    (logits, beside), new = apply_module(
      self.fusion,
      params.get(tree.FUSED, {}),
      old.get(tree.FUSED),
      train,
      named_rngs(rngs, tree.FUSED),
      self._steps(dropped),
      {m: mask[m] for m in self.modalities},
      num_classes=self.num_classes,
    )
    if tree.HEADS in stats:
      stats = {**stats, tree.HEADS: {tree.FUSED: new}}
    return Outputs(logits, unimodal, dict(features), self._aux(beside)), stats

  def unimodal_heads(self, variables, features, mask, *, train: bool, rngs=None):
    """{m: [B, C]}, the logits of the uni-modal heads alone, as `heads` returns them."""
    del mask
    return self._unimodal(variables["params"][tree.HEADS], self._dropped(features, train, rngs))

  def _unimodal(self, params, dropped):
    return {m: self._dense().apply({"params": params[m]}, dropped[m]) for m in self.modalities}

  def _dropped(self, features, train, rngs):
    return {m: self._drop(features[m], m, train, rngs) for m in self.modalities}

  def _aux(self, beside: Mapping[str, Any] | None) -> dict[str, Any]:
    """`Outputs.aux` of what the fusion returned beside its logits."""
    if beside is None:
      return {}
    if set(beside) == set(self.modalities):
      return {"split_logits": beside}
    unknown = sorted(set(beside) - set(AUX))
    if unknown:
      raise ValueError(
        f"the fusion returned {unknown[0]!r} beside its logits; expected logits of each modality "
        f"({', '.join(self.modalities)}), or some of: {', '.join(AUX)}"
      )
    return dict(beside)

  def _steps(self, features):
    """What the fusion reads: [B, T, D] where it reads sequences and the encoder keeps them."""
    if not getattr(self.fusion, "reads_steps", False):
      return features
    width = {m: getattr(self.encoders[m], "step_features", None) for m in self.modalities}
    return {
      m: h if width[m] is None else h.reshape(h.shape[0], -1, width[m]) for m, h in features.items()
    }

  def _dense(self):
    return nn.Dense(self.num_classes)

  def _drop(self, x, modality, train, rngs):
    if not train or self.dropout == 0:
      return x
    if not rngs:
      raise ValueError('dropout in training needs rngs={"dropout": key}, got none')
    key = named_key(rngs["dropout"], f"heads/{modality}")
    keep = draws.flat(jax.random.bernoulli, key, x.shape, p=1 - self.dropout)
    return jnp.where(keep, x / (1 - self.dropout), jnp.zeros((), x.dtype))

  def _select(self, inputs, mask):
    check_present(self.modalities, inputs, mask)
    filled = masks.fill({m: inputs[m] for m in self.modalities}, mask)
    return {m: encoders.readable(self.encoders[m], x) for m, x in filled.items()}


def check_known(model, modalities):
  """Raises ValueError for a name that the model does not have."""
  unknown = sorted(set(modalities) - set(model.modalities))
  if unknown:
    raise ValueError(
      f"modality {unknown[0]!r} not in the model; available: {', '.join(model.modalities)}"
    )


def encode_each(model, variables, inputs, mask, train, rngs):
  """({m: what `model.encoders[m]` gives}, batch_stats) of every modality of a model."""
  old = variables["batch_stats"]
  stats, found = dict(old), {}
  for m in model.modalities:
    found[m], new = apply_module(
      model.encoders[m],
      variables["params"][m],
      old.get(m),
      train,
      named_rngs(rngs, m),
      inputs[m],
      mask[m],
    )
    if m in old:
      stats[m] = new
  return found, stats


def store_variables(variables, name, params, stats):
  """Puts the parameters, and the statistics where there are some, of a module under its name."""
  params[name] = variables.get("params", {})
  if "batch_stats" in variables:
    stats[name] = variables["batch_stats"]


def apply_module(module, params, stats, train, rngs, *args, **kwargs):
  """(output, statistics): the statistics are returned as they came unless training moves them."""
  variables = {"params": params} if stats is None else {"params": params, "batch_stats": stats}
  if not train or stats is None:
    return module.apply(variables, *args, train=train, rngs=rngs, **kwargs), stats
  out, new = module.apply(
    variables, *args, train=True, rngs=rngs, mutable=["batch_stats"], **kwargs
  )
  return out, new["batch_stats"]
