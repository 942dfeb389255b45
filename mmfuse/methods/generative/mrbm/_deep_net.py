"""The deep network as a value: its layers and joint layer, and multi-prediction from any layer up.

Sohn, Shang, Lee, NIPS 2014. Parameters: {m: {"layer1": {"kernel", "bias", "hidden"}, ..., "top":
{"kernel", "bias"}}, "hidden": {"bias"}}; how they are trained is in `../_mdrnn_deep.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.methods.generative.mrbm import _multi_prediction
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, Factors
from mmfuse.methods.generative.mrbm._pathway import Path, pathway

TOP = "top"


class Stage(NamedTuple):
  """Numbers of a phase; the authors' for MIR-Flickr, where image and text differ the image's."""

  rate: float  # epsilon of the first step
  decay: float = 0.01  # of the rate: epsilon / (1 + decay t)
  sparsity_weight: float = 0.01  # of the penalty on the mean activation of a unit
  sparsity_target: float = 0.2  # the activation that costs nothing
  l2: float = 1e-5  # of the kernels


STAGES = {
  "layer": Stage(0.1, decay=0.0, sparsity_weight=1.0),  # of binary units
  "top": Stage(0.01),
  "joint": Stage(0.01),
  "finetune": Stage(0.03),
}


def layer_names(depth: int) -> tuple[str, ...]:
  """("layer1", "layer2", ...), lowest first."""
  return tuple(f"layer{i + 1}" for i in range(depth))


def layer_factors(depth: int, up: float, down: float) -> dict[str, tuple[float, float]]:
  """{name: (u, d)}: a layer gets half its input from above, or below, once it stands in a stack."""
  return {n: (up, down if i else 1.0) for i, n in enumerate(layer_names(depth))}


def top_of(params: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
  """The joint layer as an MRBM of the modalities `names`, all by default."""
  found = {m: params[m][TOP] for m in params if m != HIDDEN and (names is None or m in names)}
  return {**found, HIDDEN: params[HIDDEN]}


def take(params: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
  """Of every modality only `parts` ("layer1", ..., "top"); the joint bias goes with "top"."""
  found = {m: {k: p[k] for k in parts} for m, p in params.items() if m != HIDDEN}
  return {**found, HIDDEN: params[HIDDEN]} if TOP in parts else found


def put(params: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
  """`params` with what `take` took replaced."""
  return {m: {**p, **part.get(m, {})} for m, p in params.items()}


class Net(NamedTuple):
  """What the phases of one network share."""

  widths: tuple[int, ...]  # of the layers
  factors: Mapping[str, tuple[float, float]]
  top: float  # d of the joint layer
  stages: Mapping[str, Stage]
  steps: int
  nstop: int

  @property
  def names(self) -> tuple[str, ...]:
    return layer_names(len(self.widths))

  def path(self, params, first: int = 0, last: int | None = None) -> Path:
    return pathway(params, self.names[first:last], self.factors)


def prediction(
  net: Net,
  params,
  data,
  revealed,
  weight,
  stage: Stage,
  depth: int,
  *,
  share,
  targets=None,
  nstop: Any = None,
) -> jax.Array:
  """`multi_prediction` from the units of layer `depth` up, to be maximised; l2 on every kernel there."""
  names = tuple(data)
  above = net.names[depth:]
  value = _multi_prediction.multi_prediction(
    top_of(params, names),
    data,
    revealed,
    weight,
    share=share,
    steps=net.steps,
    nstop=net.nstop if nstop is None else nstop,
    sparsity_weight=stage.sparsity_weight,
    sparsity_target=stage.sparsity_target,
    l2=stage.l2,
    factors=Factors(down=net.top),
    path=net.path(params, depth),
    targets=targets,
  )
  squares = [jnp.square(params[m][n]["kernel"]).sum() for m in names for n in above]
  return value - stage.l2 / 2 * sum(squares)
