"""The network of ShaSpec on maps: specific and shared features at the coarsest scale, skips of the shared.

Wang, Chen, Ma, Avery, Hull and Carneiro, CVPR 2023. The vectors' is in `_shaspec_model.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Outputs, Unavailable
from mmfuse.encoders import Conv, UNet
from mmfuse.fusion import DenseFusion
from mmfuse.fusion._late import apply_module, named_key, named_rngs, store_variables
from mmfuse.methods.missing._shaspec_model import OWN, SHARED, SPECIFIC, combine, stand_ins
from mmfuse.tree import FUSED, HEADS

SKIPS = "skips"  # of the features of a modality: the shared maps of all scales but the coarsest


def present_mean(maps, mask) -> jax.Array:
  r"""\sum_m s_m x_m / \sum_m s_m [B, H, W, D] of maps {m: [B, H, W, D]}; 0 of a row that has nothing."""
  flat = {m: x.reshape(x.shape[0], -1) for m, x in maps.items()}
  shape = next(iter(maps.values())).shape
  return stand_ins(flat, mask, "mean").reshape(shape)


@dataclasses.dataclass(frozen=True)
class DenseSharedSpecific:
  """A `core.Model`: decoder(mean skips of r, [u_1; ...; u_M]) with u of `combine` at every coarsest place.

  q_m = E_m(x_m), E_m the model's encoder of m; r_m = S(A_m x_m), A_m a 3 x 3 convolution to `width`
  channels and S a U-Net that all share; the skips are those of r, averaged over what is present. P is 0 at
  first; the domain classifier reads the mean of q_m over places.

  params: {m: {"shared": A_m, "specific": E_m}}, "shaspec": {"encoder": S, "residual": P, "domain": c} and
  heads/fused. Features {m: {"shared": r_m [B, h, w, D], "specific": q_m, "skips": (...)}};
  aux["shaspec"] {m: c(q_m) [B, M]}. There are no heads of single modalities.
  """

  model: DenseFusion
  residual: str = SHARED
  stand_in: str = "mean"

  def __post_init__(self):
    encoders = [self.model.encoders[m] for m in self.modalities]
    if any(not isinstance(e, UNet) or e != encoders[0] for e in encoders):
      raise Unavailable(
        "its shared encoder is one U-Net, and those of the modalities are not alike"
      )

  def __hash__(self):
    return hash((self.model, self.residual, self.stand_in))

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return self.model.modalities

  @property
  def shared(self) -> UNet:
    """S, and E_m of every m: they are alike."""
    found: Any = self.model.encoders[self.modalities[0]]
    return found

  def restrict(self, modalities) -> "DenseSharedSpecific":
    """The same on fewer modalities."""
    return dataclasses.replace(self, model=self.model.restrict(modalities))

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """Variables from one example batch: inputs {m: [B, H, W, ...]}, mask {m: bool [B]}."""
    names, specific, rows = self.modalities, named_key(key, SPECIFIC), _image
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {SHARED: {}, SPECIFIC: {}}
    stems = {}
    for m in names:
      x, there = rows(inputs[m]), mask[m]
      stems[m], stem = self._stem().init_with_output(named_key(key, m), x)
      own = self.shared.init(named_key(specific, m), x, there, train=False)
      made: dict[str, Any] = {SHARED: stem["params"]}
      store_variables(own, SPECIFIC, made, stats[SPECIFIC].setdefault(m, {}))
      params[m] = made
    maps, shared = self.shared.init_with_output(
      named_key(key, OWN), stems[names[0]], mask[names[0]], train=False
    )
    width = maps[-1].shape[-1]
    square = jnp.zeros((2 * width, width))
    domain = nn.Dense(len(names)).init(named_key(key, f"{OWN}/domain"), jnp.zeros((1, width)))
    params[OWN] = {
      "residual": square if self.residual == SHARED else dict.fromkeys(names, square),
      "domain": domain["params"],
    }
    store_variables(shared, "encoder", params[OWN], stats[SHARED])
    top = jnp.concatenate([maps[-1]] * len(names), -1)
    variables = self._decoder().init(
      named_key(key, "heads/fused"), (*maps[:-1], top), mask[names[0]], train=False
    )
    heads: dict[str, Any] = {}
    moving: dict[str, Any] = {}
    store_variables(variables, FUSED, heads, moving)
    return {"params": {**params, HEADS: heads}, "batch_stats": {**stats, HEADS: moving}}

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: {"shared", "specific", "skips"}}, statistics), 0 where m is absent."""
    names, params, old = self.modalities, variables["params"], variables["batch_stats"]
    there = {m: mask[m] for m in names}
    inputs = {m: _image(x) for m, x in masks.fill({m: inputs[m] for m in names}, there).items()}
    specific, kept = {}, {}
    for m in names:
      maps, moved = apply_module(
        self.shared,
        params[m][SPECIFIC],
        old[SPECIFIC][m].get(SPECIFIC),
        train,
        named_rngs(rngs, f"{SPECIFIC}/{m}"),
        inputs[m],
        there[m],
      )
      specific[m] = maps[-1]
      kept[m] = {} if moved is None else {SPECIFIC: moved}
    stems = [self._stem().apply({"params": params[m][SHARED]}, inputs[m]) for m in names]
    maps, moved = apply_module(  # M passes of S are one
      self.shared,
      params[OWN]["encoder"],
      old[SHARED].get("encoder"),
      train,
      named_rngs(rngs, OWN),
      jnp.concatenate(stems),
      jnp.concatenate([there[m] for m in names]),
    )
    each = [jnp.split(x, len(names)) for x in maps]
    features: Any = {
      m: {
        SHARED: each[-1][i],
        SPECIFIC: specific[m],
        SKIPS: tuple(level[i] for level in each[:-1]),
      }
      for i, m in enumerate(names)
    }
    stats = {**old, SPECIFIC: kept, SHARED: {} if moved is None else {"encoder": moved}}
    return masks.fill(features, there), stats

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, statistics). What features hold of an absent modality is not read."""
    names, own = self.modalities, variables["params"][OWN]
    mask = {m: mask[m] for m in names}
    project = own["residual"]
    if self.residual == SHARED:
      project = dict.fromkeys(names, project)
    skips = [
      present_mean({m: features[m][SKIPS][i] for m in names}, mask)
      for i in range(len(features[names[0]][SKIPS]))
    ]
    batch, high, wide, width = features[names[0]][SHARED].shape
    place = lambda x: x.reshape(-1, width)  # every coarsest place is a row of `combine`
    every = {m: jnp.repeat(mask[m], high * wide) for m in names}
    rows = {m: {c: place(features[m][c]) for c in (SHARED, SPECIFIC)} for m in names}
    u = combine(rows, every, project, residual=self.residual, stand_in=self.stand_in)
    top = jnp.concatenate([u[m].reshape(batch, high, wide, width) for m in names], -1)
    stats = variables["batch_stats"]
    (logits, beside), moved = apply_module(
      self._decoder(),
      variables["params"][HEADS][FUSED],
      stats[HEADS].get(FUSED),
      train,
      named_rngs(rngs, FUSED),
      (*skips, top),
      jnp.stack([mask[m] for m in names]).any(0),
    )
    domain = nn.Dense(len(names))
    said = {
      m: domain.apply({"params": own["domain"]}, features[m][SPECIFIC].mean((1, 2))) for m in names
    }
    stats = {**stats, HEADS: {} if moved is None else {FUSED: moved}}
    return Outputs(logits, {}, dict(features), {**beside, OWN: said}), stats

  def _stem(self) -> Conv:
    return Conv(self.shared.width, (3, 3), formulation=self.shared.formulation)

  def _decoder(self) -> Any:
    return self.model.decoder


def _image(x: jax.Array) -> jax.Array:
  return x[..., None] if x.ndim == 3 else x
