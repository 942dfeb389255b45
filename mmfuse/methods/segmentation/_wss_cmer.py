"""WSS-CMER: where something is, learnt from whether it is there, by maps that agree.

Patel and Dolz, Weakly supervised segmentation with cross-modality equivariant constraints, Medical Image
Analysis 77, 2022. New: activation maps of a row must turn with its images, and agree over modalities.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, train
from mmfuse.core import Batch, Method, Outputs, Unavailable, label_weight
from mmfuse.methods.segmentation import _cmer_losses as losses
from mmfuse.methods.segmentation import _transforms
from mmfuse.methods.segmentation._cam_net import LEVELS, Nets
from mmfuse.methods.segmentation._maps import grad_cam, grad_cam_pp, max_normalised, pooled, shown
from mmfuse.objectives._branches import check_classes


@dataclasses.dataclass(frozen=True)
class Loss:
  """The sum over m of CE_m + mutual KL_m + equivariance ER_m + cross CMER_m."""

  nets: Nets
  weights: tuple[tuple[str, float], ...]  # of `losses.TERMS` but "ce"; one of 0 is not computed
  temperature: float
  kinds: tuple[str, ...]

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock, memory
    check_classes(batch.label, "wss_cmer")
    views, stats = self._views(variables, batch, key)
    mask = {m: batch.mask[m] for m in self.nets.modalities}
    rows = losses.Rows(batch.label, mask, batch.weight, label_weight(batch))
    weights = dict(self.weights)
    terms: dict[str, Callable[[str], jax.Array]] = {
      "ce": lambda m: losses.cross_entropy(m, views, rows),
      "kl": lambda m: losses.mutual_learning(m, views, rows, self.temperature),
      "er": lambda m: losses.equivariance(m, views, rows),
      "cmer": lambda m: losses.cross_modality(m, views, rows),
    }
    total, log = jnp.zeros((), jnp.float32), dict[str, jax.Array]()
    for name in losses.TERMS:
      if weight := weights.get(name, 1.0):
        found = {m: terms[name](m) for m in self.nets.modalities}
        total = total + weight * jnp.stack(list(found.values())).sum()
        log |= {f"{name}/{m}": value for m, value in found.items()}
    return total, train.Aux(stats, log=log)

  def _views(self, variables, batch: Batch, key: jax.Array):
    """((first, second), statistics): of x, whose maps are moved by pi, and of pi(x)."""
    drawn = _transforms.draw(key, batch.weight.shape[0], self.kinds)
    move = lambda x: _transforms.transformed(drawn, x, self.kinds)
    first, second = losses.View({}, {}), losses.View({}, {})
    moved = {}
    for m in self.nets.modalities:
      x = batch.inputs[m]
      (raw, other), moved[m] = self.nets.learn(variables, m, jnp.stack([x, move(x)]), batch.mask[m])
      first.logits[m], second.logits[m] = pooled(raw), pooled(other)
      first.maps[m], second.maps[m] = move(max_normalised(raw)), max_normalised(other)
    return (first, second), moved


@dataclasses.dataclass(frozen=True)
class Predict:
  """The mean over present modalities of softmax(z_m), and aux["cams"] {m: N(c_m) [B, H, W, C]}."""

  nets: Nets

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    logits, maps, features = {}, {}, {}
    for m in self.nets.modalities:
      raw, last = self.nets.look(variables, m, inputs[m], mask[m])
      here = mask[m][:, None, None, None]
      logits[m], features[m] = pooled(raw), pooled(jnp.where(here, last, 0.0))
      maps[m] = jnp.where(here, max_normalised(raw), 0.0)
    present = {m: mask[m] for m in logits}
    fused = fusion.mix_experts(logits, present)
    return Outputs(fused, logits, features, {"cams": maps})


@dataclasses.dataclass(frozen=True)
class Saliency:
  """(state, inputs, mask, target, kind="cam") -> {m: [B, H, W]} in [0, 1]: where class `target` is seen.

  kind: "cam", "grad_cam" or "grad_cam_pp". The last layer being linear, Grad-CAM is the map itself but
  for its scale. 0 where a modality is absent.
  """

  nets: Nets

  def __call__(self, state, inputs, mask, target: int, kind: str = "cam") -> dict[str, jax.Array]:
    variables, found = {"params": state.params, "batch_stats": state.stats}, {}
    for m in self.nets.modalities:
      maps, last = self.nets.look(variables, m, inputs[m], mask[m])
      size = (maps.shape[1], maps.shape[2])
      kernel = state.params[m]["cam"]["kernel"][0, 0, :, target]
      slope = jnp.broadcast_to(kernel / (size[0] * size[1]), last.shape)  # of the pooled map
      of = {"cam": maps[..., target], "grad_cam": grad_cam(last, slope)}
      of["grad_cam_pp"] = grad_cam_pp(last, slope)
      found[m] = jnp.where(mask[m][:, None, None], shown(of[kind], size), 0.0)
    return found


def wss_cmer(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  width: int = 16,
  levels: int = LEVELS,
  equivariance: float = 1.0,
  cross: float = 1.0,
  mutual: float = 0.5,
  temperature: float = 10.0,
  transforms: Sequence[str] = _transforms.EXACT,
) -> Method:
  r"""L = \sum_m CE_m + mutual KL_m + equivariance ER_m + cross CMER_m of M networks, one a modality:

  ER_m = mean y (A_m - B_m)^2, CMER_m = 1/(M-1) \sum_{j != m} 1/2 [R(A_m, B_j) + R(B_m, A_j)], R the distance
  of maps of unit norm where y = 1 and j says so, KL_m the mean divergence from what the others say.

  A network gives a map c_m [B, H, W, C] whose mean is its logits. A_m = pi(N(c_m(x))) and B_m =
  N(c_m(pi(x))), N to [0, 1), of a transform pi drawn each step. Other networks are constants in a term,
  so that the sum does what an optimiser each would. The label says whether something is there, class 0
  that nothing is; of more classes a row is compared by the map of its own. Masks (`truth_mask`) are for
  scores alone. The fused prediction is the mean of the networks'; `aux["cams"]` are the maps N(c_m).
  A term counts the rows that have what it reads.

  Args:
    model: whose modalities and number of outputs are used, its encoders and fusion are not.
    tx: the optimiser of all networks; the paper's is AdamW, 1e-4 or 5e-5, decay .5.
    width: of the first level of a U-Net, default 16 (the paper's of the smaller set; 64 of the larger).
    levels: of that U-Net, default 4 (paper).
    equivariance: weight of ER, default 1 (paper).
    cross: weight of CMER, default 1 (paper).
    mutual: weight of KL, default .5 (paper).
    temperature: T of KL, default 10 (paper).
    transforms: some of "flip", "turn", "shift", "scale" (`_transforms.draw`); default the first two, which
      lose no pixel. The paper has all four, and resizes a whole batch where "scale" keeps its size.

  Raises:
    ValueError: a size below 1, a negative weight, a temperature that is not positive, no transform or
      an unknown one; (in a step) other labels than classes.
    Unavailable: one modality; at `init` what are no images [B, H, W, C], or of different sizes.

  Reference: Patel and Dolz, Medical Image Analysis 2022.
  """
  names = tuple(sorted(model.modalities))
  weights = {"kl": mutual, "er": equivariance, "cmer": cross}
  _check(names, {"width": width, "levels": levels}, weights, temperature, transforms)
  nets = Nets(names, width, levels, train.Width(model), same_size=cross > 0)
  loss = Loss(nets, tuple(weights.items()), temperature, tuple(transforms))
  method = train.minimise(nets.begin, loss, tx, predict=Predict(nets))
  return method._replace(functions={"saliency": Saliency(nets)})


def _check(names, sizes, weights, temperature, transforms) -> None:
  if len(names) < 2:
    raise Unavailable("its maps of one modality learn from those of others: needs two or more")
  for name, value in sizes.items():
    if value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}")
  for name, value in weights.items():
    if value < 0:
      raise ValueError(f"the weight of {name} must not be negative, got {value}")
  if not temperature > 0:
    raise ValueError(f"temperature must be positive, got {temperature}")
  unknown = [t for t in transforms if t not in _transforms.KINDS]
  if unknown or not transforms:
    known = ", ".join(_transforms.KINDS)
    raise ValueError(f"transforms are some of: {known}; got {', '.join(transforms) or 'none'}")
