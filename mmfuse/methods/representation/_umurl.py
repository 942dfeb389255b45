"""UmURL: one encoder of joint, bone and motion together, learnt from what each says alone. No labels.

Sun, Liu, Dong, Qu, Gao, Yang, Wang, Wang: Unified Multi-modal Unsupervised Representation Learning for
Skeleton-based Action Understanding, ACM MM 2023.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import train
from mmfuse.core import LAST, Batch, Method, Outputs, Unavailable
from mmfuse.encoders import Skeleton
from mmfuse.fusion._attention import check_counts
from mmfuse.fusion._late import named_key
from mmfuse.methods.representation._consistency import Projector, consistency_terms
from mmfuse.methods.representation._skeleton_views import View
from mmfuse.methods.representation._towers import masked, side_by_side
from mmfuse.tree import HEADS

STREAMS = ("joint", "bone", "motion")  # in the order of their views


def skeletons_of(model: Any) -> dict[str, Skeleton]:
  """{m: its encoder} of the modalities that are skeletons. Raises Unavailable where none is."""
  there = getattr(model, "encoders", None)
  named = sorted(there.items()) if isinstance(there, Mapping) else []
  found = {m: e for m, e in named if isinstance(e, Skeleton)}
  if not found:
    raise Unavailable(
      "it derives joint, bone and motion from a skeleton, and no modality has the encoder of one "
      "(--encoder NAME=skeleton)"
    )
  return found


@dataclasses.dataclass(frozen=True)
class _Nets:
  """The encoders of the skeletons, and a projector for each stream of each of them."""

  model: Any
  hidden: int
  width: int

  @property
  def encoders(self) -> dict[str, Skeleton]:
    return skeletons_of(self.model)

  @property
  def projector(self) -> Projector:
    return Projector(self.hidden, self.width)

  def init(self, key: jax.Array, inputs: Mapping, mask: Mapping) -> dict[str, Any]:
    """{"params": {m: encoder, "heads": {m: {stream: projector}}}, "batch_stats": of projectors}."""
    params: dict[str, Any] = {HEADS: {}}
    stats: dict[str, Any] = {HEADS: {}}
    for m, encoder in self.encoders.items():
      params[m] = encoder.init(named_key(key, m), inputs[m], mask[m], train=False)["params"]
      h = jnp.zeros((mask[m].shape[0], encoder.features))
      made = {
        k: self.projector.init(named_key(key, f"{HEADS}/{m}/{k}"), h, mask[m], train=False)
        for k in STREAMS
      }
      params[HEADS][m] = {k: v["params"] for k, v in made.items()}
      stats[HEADS][m] = {k: v["batch_stats"] for k, v in made.items()}
    return {"params": params, "batch_stats": stats}

  def begin(self, key: jax.Array, batch: Batch, num_rows: int) -> tuple[dict[str, Any], dict]:
    """What `train.minimise` starts from: the variables, and no memory."""
    del num_rows
    names = tuple(self.encoders)
    inputs, mask = ({m: given[m] for m in names} for given in (batch.inputs, batch.mask))
    return train.init_module(self, key, inputs, mask), {}

  def project(self, variables: Any, m: str, h: Mapping, mask: Any) -> tuple[dict, dict]:
    """({stream: z [B, width]} of {stream: h [B, D]}, {stream: statistics}): as one program."""
    stacked = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    own = {
      name: stacked([variables[name][HEADS][m][k] for k in STREAMS])
      for name in ("params", "batch_stats")
    }
    run = lambda own, h: self.projector.apply(own, h, mask, train=True, mutable=["batch_stats"])
    z, new = jax.vmap(run)(own, jnp.stack([h[k] for k in STREAMS]))
    each = lambda i: jax.tree.map(lambda x: x[i], new["batch_stats"])
    return {k: z[i] for i, k in enumerate(STREAMS)}, {k: each(i) for i, k in enumerate(STREAMS)}


@dataclasses.dataclass(frozen=True)
class _Loss:
  """intra + inter + spread, over the skeletons."""

  nets: _Nets
  view: View
  weights: tuple[tuple[str, float], ...]
  std: float
  cov: float

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del clock, memory
    stats, found = dict(variables["batch_stats"][HEADS]), []
    for m, encoder in self.nets.encoders.items():
      keys = jax.random.split(named_key(key, m), len(STREAMS) + 1)
      x, frames = batch.inputs[m], encoder.frames
      views = jax.vmap(lambda k, x=x, frames=frames: self.view(k, x, frames))(keys)
      apart, joined = encoder.apply(
        {"params": variables["params"][m]},
        dict(zip(STREAMS, views)),
        views[-1],
        method="apart_and_joined",
      )
      mask = batch.mask[m]
      z, stats[m] = self.nets.project(variables, m, apart, mask)
      moved = {**variables, "batch_stats": {HEADS: stats}}
      u, stats[m] = self.nets.project(moved, m, dict.fromkeys(STREAMS, joined), mask)
      weight = jnp.where(mask, batch.weight, 0.0)
      found.append(consistency_terms(z, u, weight, std=self.std, cov=self.cov))
    parts = {k: jnp.stack([f[k] for f in found]).sum() for k in found[0]}
    loss = sum(c * parts[k] for k, c in self.weights) + parts["spread"]
    log = {f"part/{k}": v for k, v in parts.items()}
    return loss, train.Aux({HEADS: stats}, log=log)


@dataclasses.dataclass(frozen=True)
class _Predict:
  """features {m: [B, 2 hidden]}, of joint, bone and motion together; 0 where absent."""

  nets: _Nets

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    features = {
      m: e.apply({"params": variables["params"][m]}, inputs[m], mask[m], train=False)
      for m, e in self.nets.encoders.items()
    }
    return Outputs(None, features=masked(features, mask))


def umurl(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  hidden: int = 128,
  width: int = 256,
  intra: float = 5.0,
  inter: float = 5.0,
  std: float = 5.0,
  cov: float = 1.0,
  crop: float = 0.1,
  crop_frames: int = 64,
  joints: float = 0.6,
  share: float = 0.5,
) -> Method:
  r"""Joint, bone and motion of a skeleton, each of a view of its own, and all three of a fourth view:

  L = intra \sum_k MSE(z_k, u_k) + inter \sum_k MSE(z_k, mean z) + \sum_k VC(z_k) + VC(u_k),

  z_k = P_k(h_k), u_k = P_k(h), h_k the encoder's feature of stream k alone and h of all three, P_k a
  `Projector`; `consistency_terms` says the rest. Then a phase "head": a linear head on h, which is what
  it predicts from. Moments, of batch norm and of VC, are of the whole batch on all devices. Its recipe
  is Adam with the decay in the gradient, `train.adam(5e-4, weight_decay=1e-5, decoupled=False)`.

  Several skeletons are learnt side by side, each with its own encoder; other modalities are not read.

  Args:
    model: whose encoders of skeletons (`encoders.Skeleton`) are used, its heads and fusion are not.
    tx: the optimiser of both phases.
    hidden, width: of the projectors, default 128 and 256 (ours; the paper has 2,048 and 4,096).
    intra, inter: default 5 (the authors').
    std, cov: of VC, default 5 and 1 (the authors').
    crop, crop_frames: a view has a share U(crop, 1) of the time, at least so many frames; .1 and 64
      (the authors'), so that sequences of 64 frames or fewer keep theirs.
    joints: the share that is corrupted, default .6 (15 of 25, the authors').
    share: of the epochs before the head, default .5.

  Raises:
    ValueError: sizes below 1, a negative weight, crop or joints outside (0, 1], a share outside (0, 1).
    Unavailable: no modality has the encoder of a skeleton.

  Reference: Sun et al., ACM MM 2023.
  """
  check_counts(hidden=hidden, width=width, crop_frames=crop_frames)
  for name, value in (("intra", intra), ("inter", inter), ("std", std), ("cov", cov)):
    if value < 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  for name, value in (("crop", crop), ("joints", joints)):
    if not 0 < value <= 1:
      raise ValueError(f"{name} must lie in (0, 1], got {value}")
  skeletons_of(model)
  nets = _Nets(model, hidden, width)
  loss = _Loss(
    nets, View(crop, crop_frames, joints), (("intra", intra), ("inter", inter)), std, cov
  )
  learnt = train.minimise(nets.begin, loss, tx, predict=_Predict(nets), select=LAST)
  return train.with_head(learnt, side_by_side, train.Width(model), tx, share)
