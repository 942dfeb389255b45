"""Fusion of maps: an encoder per modality that keeps several scales, and one decoder of all of them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import encoders, masks, tree
from mmfuse.core import Outputs
from mmfuse.fusion._late import (
  apply_module,
  check_known,
  check_modalities,
  check_present,
  encode_each,
  named_key,
  named_rngs,
  store_variables,
)

Maps = tuple[jax.Array, ...]  # x_0 [B, H, W, D_0], x_1 [B, H/2, W/2, D_1], ...


def joined(features: Mapping[str, Maps], mask: masks.Mask) -> Maps:
  """Maps of all modalities side by side at every scale, zero where a row lacks one; names sorted."""
  there: Any = masks.fill(features, mask)  # type: ignore[arg-type]  # a tree of arrays a modality
  return tuple(jnp.concatenate(level, -1) for level in zip(*(there[m] for m in sorted(there))))


@dataclasses.dataclass(frozen=True)
class DenseFusion:
  """x_ml = encoder_m(x_m) at scales l, logits [B, H, W, C] = decoder([s_1 x_1l; ...; s_M x_Ml]).

  s_m masks what a row lacks. Implements `core.Model`; parameters stand where those of `LateFusion` do:
  {m: ..., "heads": {m: ..., "fused": decoder}}. The head of a modality is linear on its own maps
  (`encoders.MapHead`); of a model with one modality the decoder is its head too.

  Args:
    encoders: {modality: Linen module `(x, mask, *, train) -> maps`}, default ones: `encoders.UNet`.
    num_classes: C.
    decoder: Linen module `(maps, mask, *, train) -> (logits, {name: value})`, whose second part becomes
      `Outputs.aux`; default `encoders.UNetDecoder(C)`.

  Raises:
    ValueError: no modality, a reserved name, num_classes < 2.
  """

  encoders: Mapping[str, nn.Module]
  num_classes: int
  decoder: nn.Module | None = None

  def __post_init__(self):
    check_modalities(self.modalities)
    if self.num_classes < 2:
      raise ValueError(f"num_classes must be at least 2, got {self.num_classes}")
    if self.decoder is None:
      object.__setattr__(self, "decoder", encoders.UNetDecoder(self.num_classes))

  def __hash__(self):
    return hash((self.modalities, self.num_classes))

  @property
  def modalities(self) -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(sorted(self.encoders))

  def restrict(self, modalities: Sequence[str]) -> "DenseFusion":
    """The same model on fewer modalities. Raises ValueError for a name it does not have."""
    check_known(self, modalities)
    return dataclasses.replace(self, encoders={m: self.encoders[m] for m in sorted(modalities)})

  def init(self, key: jax.Array, inputs: Mapping[str, Any], mask: masks.Mask) -> dict[str, Any]:
    """Variables from one example batch: inputs {m: [B, H, W, ...]}, mask {m: bool [B]}."""
    inputs = self._select(inputs, mask)
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    features = {}
    for m in self.modalities:
      features[m], variables = self.encoders[m].init_with_output(
        named_key(key, m), inputs[m], mask[m], train=False
      )
      store_variables(variables, m, params, stats)
    heads: dict[str, Any] = {}
    for m in self._own_heads():
      heads[m] = self._head().init(named_key(key, f"heads/{m}"), features[m])["params"]
    variables = self._decoder().init(
      named_key(key, "heads/fused"), joined(features, mask), _anybody(mask), train=False
    )
    moving: dict[str, Any] = {}
    store_variables(variables, tree.FUSED, heads, moving)
    params[tree.HEADS] = heads
    if moving:
      stats[tree.HEADS] = moving
    return {"params": params, "batch_stats": stats}

  def encode(self, variables, inputs, mask, *, train: bool, rngs=None):
    """({m: maps}, batch_stats). Maps of absent rows are zero and pass no gradient."""
    inputs = self._select(inputs, mask)
    features, stats = encode_each(self, variables, inputs, mask, train, rngs)
    return masks.fill(features, {m: mask[m] for m in self.modalities}), stats

  def heads(self, variables, features, mask, *, train: bool, rngs=None):
    """(Outputs with logits [B, H, W, C], batch_stats)."""
    params, stats = variables["params"][tree.HEADS], variables["batch_stats"]
    mask = {m: mask[m] for m in self.modalities}
    old = stats.get(tree.HEADS, {})
    (logits, beside), new = apply_module(
      self._decoder(),
      params[tree.FUSED],
      old.get(tree.FUSED),
      train,
      named_rngs(rngs, tree.FUSED),
      joined({m: features[m] for m in self.modalities}, mask),
      _anybody(mask),
    )
    if tree.HEADS in stats:
      stats = {**stats, tree.HEADS: {tree.FUSED: new}}
    unimodal: dict[str, Any] = {
      m: self._head().apply({"params": params[m]}, features[m]) for m in self._own_heads()
    }
    if not unimodal:
      unimodal = {self.modalities[0]: logits}
    return Outputs(logits, unimodal, dict(features), dict(beside)), stats

  def _own_heads(self) -> tuple[str, ...]:
    return self.modalities if len(self.modalities) > 1 else ()

  def _head(self) -> nn.Module:
    return encoders.MapHead(self.num_classes)

  def _decoder(self) -> Any:
    return self.decoder

  def _select(self, inputs, mask):
    check_present(self.modalities, inputs, mask)
    return masks.fill({m: inputs[m] for m in self.modalities}, mask)


def _anybody(mask: masks.Mask) -> jax.Array:
  """bool [B]: the rows that have a modality, whose statistics count."""
  return jnp.stack([mask[m] for m in sorted(mask)]).any(0)
