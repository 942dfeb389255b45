"""A convolutional trunk that all modalities share: maps side by side, the second half of a ResNet-18.

Wei, Luo and Luo, MMANet: Margin-aware Distillation and Modality-aware Regularization for Incomplete
Multimodal Learning, CVPR 2023; DMRNet, ECCV 2024, has the same.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.encoders._resnet import Stage


class Trunk(nn.Module):
  """f = layer4(layer3([x_1; ...; x_M])), logits = mean_hw(f) W + b; x_m maps, zero where m is absent.

  `(features {m: [B, H W, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C],
  {"latent": f [B, h w D]})`, for encoders that keep positions (`encoders.SEResNet18Stem`), of one size
  in all modalities. h = H / 4. What distillation reads is f.

  Args:
    widths: of the stages, two blocks each, default (256, 512).
    ratio: of the squeeze-and-excitation in each block, default 16 (the authors'); 0 = none.
    height: H; default None: the maps are square.
    norm: "batch" (default) or "group".
    formulation: see `encoders.Conv`, default "auto".

  Raises:
    ValueError: features that are no maps, or not of this height.
  """

  reads_steps = True

  widths: Sequence[int] = (256, 512)
  ratio: int = 16
  height: int | None = None
  norm: str = "batch"
  formulation: str = "auto"

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    names = sorted(features)
    filled = masks.fill({m: features[m] for m in names}, mask)
    x = jnp.concatenate([self._map(filled[m], m) for m in names], axis=-1)
    some = jnp.stack([mask[m] for m in names]).any(0)
    for i, width in enumerate(self.widths):
      stage = Stage(2, width, 2, self.norm, self.formulation, self.ratio, name=f"layer{i + 3}")
      x = stage(x, some, train=train)
    logits = nn.Dense(num_classes, name="out")(jnp.mean(x, (1, 2)))
    return logits, {"latent": x.reshape(x.shape[0], -1)}

  def _map(self, x: jax.Array, modality: str) -> jax.Array:
    """[B, H W, D] -> [B, H, W, D]."""
    if x.ndim != 3:
      raise ValueError(
        f"a trunk reads maps [B, H W, D], got {list(x.shape)} of {modality!r}; its encoder keeps no "
        "positions (encoders.SEResNet18Stem does)"
      )
    high = round(x.shape[1] ** 0.5) if self.height is None else self.height
    if x.shape[1] % high or (self.height is None and high * high != x.shape[1]):
      raise ValueError(
        f"{x.shape[1]} positions of {modality!r} are no map of height {self.height or high}; "
        "say height= where maps are not square"
      )
    return x.reshape(x.shape[0], high, -1, x.shape[-1])
