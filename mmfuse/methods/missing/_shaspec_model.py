"""The network of ShaSpec around any model: a second encoder each, one shared encoder, one sum.

Wang, Chen, Ma, Avery, Hull and Carneiro, Multi-modal Learning with Missing Modality via
Shared-Specific Feature Modelling, CVPR 2023. The losses and the training are in `_shaspec.py`.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Unavailable
from mmfuse.encoders import Identity, Norm
from mmfuse.fusion import LateFusion
from mmfuse.fusion._late import named_key, named_rngs
from mmfuse.tree import HEADS

OWN = "shaspec"  # subtree of what no modality owns; name of the domain logits in `Outputs.aux`
SHARED, SPECIFIC = "shared", "specific"
COPIES = (SHARED, SPECIFIC)


class SharedEncoder(nn.Module):
  """r = a + W_2 gelu(W_1 norm(a) + b_1) + b_2 of a [..., D]: layer norm, D hidden units (ours)."""

  @nn.compact
  def __call__(self, a: jax.Array) -> jax.Array:
    width = a.shape[-1]
    h = Norm("layer", name="norm")(a, jnp.ones(a.shape[0], bool), train=False)
    return a + nn.Dense(width, name="down")(nn.gelu(nn.Dense(width, name="up")(h)))


def stand_ins(shared, mask, kind: str) -> jax.Array:
  r"""What takes the place of r_m where m is absent [B, D]: \sum_n s_n r_n / \sum_n s_n, 0 without any.

  Args:
    shared: {m: r_m [B, D]}.
    mask: {m: bool [B]}.
    kind: "mean", as above, or "first": r of the first modality in sorted order that the row has.
  """
  names = sorted(shared)
  r = jnp.stack([shared[m] for m in names])
  present = jnp.stack([mask[m] for m in names])
  if kind == "first":
    present = present & (jnp.cumsum(present, 0) == 1)
  chosen = jnp.where(present[..., None], r, jnp.zeros((), r.dtype)).sum(0)
  return chosen / jnp.maximum(present.sum(0), 1)[:, None].astype(r.dtype)


def combine(features, mask, project, *, residual: str = SHARED, stand_in: str = "mean"):
  """u {m: [B, D]}, what the head reads.

  residual "shared": u_m = r_m + P([r_m; q_m]) if m is present, else the stand-in r. "specific":
  u_m = q_m + P_m([q_m; r_m]), else P_m([0; r]). A row that has nothing has r = 0.

  Args:
    features: {m: {"shared": r_m [B, D], "specific": q_m [B, D]}}.
    mask: {m: bool [B]}.
    project: {m: P_m [2D, D]}; one and the same for all in "shared".
    residual: default "shared".
    stand_in: as in `stand_ins`, default "mean".
  """
  r = stand_ins({m: h[SHARED] for m, h in features.items()}, mask, stand_in)
  u = {}
  for m, h in masks.fill(features, mask).items():
    shared, specific = h[SHARED], h[SPECIFIC]
    if residual == SHARED:
      present, absent = shared + jnp.concatenate([shared, specific], -1) @ project[m], r
    else:
      present = specific + jnp.concatenate([specific, shared], -1) @ project[m]
      absent = r @ project[m][specific.shape[-1] :]
    u[m] = jnp.where(mask[m][:, None], present, absent)
  return u


@dataclasses.dataclass(frozen=True)
class SharedSpecific:
  """A `core.Model`: the head of `model` on the u of `combine`, r_m = S(A_m(x_m)), q_m = E_m(x_m).

  A_m and E_m are the model's encoder of m, twice; where encoders differ in width a linear map follows
  each that is not as wide as the widest, D. P is 0 at first. The domain classifier says c(q_m) [B, M].

  params: {m: {"shared": A_m, "specific": E_m, "widen": {...}}}, the rest of the model's as it is, and
  "shaspec": {"encoder": S, "residual": P, "domain": c}; batch_stats: {"shared", "specific"}.
  Outputs: the model's of u, features {m: {"shared": r_m, "specific": q_m}}, aux["shaspec"] {m: c(q_m)}.
  """

  model: Any
  residual: str = SHARED
  stand_in: str = "mean"

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return tuple(sorted(self.model.modalities))

  def restrict(self, modalities) -> "SharedSpecific":
    """The same on fewer modalities."""
    return dataclasses.replace(self, model=self.model.restrict(modalities))

  def init(self, key, inputs, mask) -> dict[str, Any]:
    """The encoders A_m and the head start as the model's do from `key`."""
    names, keys = self.modalities, {SHARED: key, SPECIFIC: named_key(key, SPECIFIC)}
    made = {c: {"batch_stats": {}, **self.model.init(k, inputs, mask)} for c, k in keys.items()}
    widths = self._widths(made[SHARED], inputs, mask)
    width = max(widths.values())
    if set(widths.values()) != {width}:
      made[SHARED] = self._wide_heads(key, made[SHARED], widths, mask)
    params = {k: v for k, v in made[SHARED]["params"].items() if k not in names}
    for m in names:
      params[m] = {c: made[c]["params"].get(m, {}) for c in COPIES}
      if widths[m] != width:
        row = jnp.zeros((1, widths[m]))
        params[m]["widen"] = {c: _dense(width, k, f"widen/{m}", row) for c, k in keys.items()}
    row, square = jnp.zeros((1, width)), jnp.zeros((2 * width, width))
    own_key = named_key(key, OWN)
    params[OWN] = {
      "encoder": SharedEncoder().init(own_key, row)["params"],
      "residual": square if self.residual == SHARED else dict.fromkeys(names, square),
      "domain": _dense(len(names), own_key, "domain", row),
      # What the encoders of a model of your own share; of a `LateFusion` nothing.
      SPECIFIC: {k: v for k, v in made[SPECIFIC]["params"].items() if k not in (*names, HEADS)},
    }
    return {"params": params, "batch_stats": {c: made[c]["batch_stats"] for c in COPIES}}

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: {"shared": r_m [B, D], "specific": q_m [B, D]}}, statistics), 0 where m is absent."""
    stats, found = {}, {}
    for c in COPIES:
      own = self._copy(variables, c)
      found[c], stats[c] = self.model.encode(
        own, inputs, mask, train=train, rngs=named_rngs(rngs, c)
      )
      found[c] = {m: _widened(h, variables["params"][m], c) for m, h in found[c].items()}
    names = self.modalities
    a = jnp.stack([found[SHARED][m] for m in names])  # M passes of S are one
    r = SharedEncoder().apply({"params": variables["params"][OWN]["encoder"]}, a)
    features: Any = {m: {SHARED: r[i], SPECIFIC: found[SPECIFIC][m]} for i, m in enumerate(names)}
    return masks.fill(features, {m: mask[m] for m in names}), stats

  def heads(self, variables, features, mask, *, train, rngs=None):
    """(Outputs, statistics). What features hold of an absent modality is not read by the head."""
    names, own = self.modalities, variables["params"][OWN]
    project = own["residual"]
    if self.residual == SHARED:
      project = dict.fromkeys(names, project)
    u = combine(features, mask, project, residual=self.residual, stand_in=self.stand_in)
    some = jnp.stack([mask[m] for m in names]).any(0)
    outputs, stats = self.model.heads(
      self._copy(variables, SHARED), u, {m: mask[m] | some for m in names}, train=train, rngs=rngs
    )
    domain = nn.Dense(len(names))
    said = {m: domain.apply({"params": own["domain"]}, features[m][SPECIFIC]) for m in names}
    outputs = outputs._replace(features=dict(features), aux={**outputs.aux, OWN: said})
    return outputs, {**variables["batch_stats"], SHARED: stats}

  def _copy(self, variables, which: str):
    """The variables of one of the two copies, as the model has them."""
    params, names = variables["params"], self.modalities
    rest = {k: v for k, v in params.items() if k not in (*names, OWN)}
    own = rest if which == SHARED else {**params[OWN][SPECIFIC], HEADS: {}}
    copy = {m: params[m][which] for m in names}
    return {"params": {**own, **copy}, "batch_stats": variables["batch_stats"][which]}

  def _widths(self, variables, inputs, mask) -> dict[str, int]:
    found = jax.eval_shape(lambda: self.model.encode(variables, inputs, mask, train=False)[0])
    if any(getattr(h, "ndim", 0) != 2 for h in found.values()):
      raise Unavailable("it compares feature vectors [B, D], which not all of the encoders return")
    return {m: found[m].shape[-1] for m in self.modalities}

  def _wide_heads(self, key, made, widths, mask):
    """`made` with the variables of the heads for features [B, D] of every modality."""
    if not isinstance(self.model, LateFusion):
      said = ", ".join(f"{m} {d}" for m, d in widths.items())
      raise Unavailable(f"its head reads one width of all modalities, the model's differ: {said}")
    bare = dataclasses.replace(self.model, encoders={m: Identity() for m in widths})
    rows = jnp.zeros((next(iter(mask.values())).shape[0], max(widths.values())))
    wide = bare.init(key, dict.fromkeys(widths, rows), mask)
    heads = {part: {k: v for k, v in wide[part].items() if k == HEADS} for part in made}
    return {part: {**made[part], **heads[part]} for part in made}


def _dense(width: int, key: jax.Array, name: str, row: jax.Array):
  """Parameters of a linear layer on rows like `row` [1, D]."""
  return nn.Dense(width).init(named_key(key, name), row)["params"]


def _widened(h, of_modality, which: str):
  """h [B, D_m] by the linear map to [B, D], where there is one."""
  if "widen" not in of_modality:
    return h
  own = of_modality["widen"][which]
  return nn.Dense(own["bias"].shape[0]).apply({"params": own}, h)
