"""A net of maps like ESANet: streams meet at five stages, pyramid pooling, three decoder stages."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import masks
from mmfuse.core import Outputs
from mmfuse.encoders._esanet import Blocks, ConvNorm, PyramidPooling, Upsample
from mmfuse.encoders._pool import max_pool
from mmfuse.encoders._resnet import SqueezeExcite

STAGES = 5  # a stem and four stages of blocks


class ESANet(nn.Module):
  r"""logits [B, H, W, C] of modalities {m: [B, H, W, C_m]}, in the manner of ESANet.

  A stream per modality: a 7 x 7 convolution of stride 2, then (after a max-pool) four stages of
  `NonBottleneck1D`, of strides 1, 2, 2, 2. After each of the five, the main stream becomes
  \sum_m s_m SE_m(x_m), s_m what a row has (an absent modality is left out of every stage).
  `PyramidPooling`, then three decoder stages: 3 x 3 convolution, blocks, upsampling, plus a 1 x 1
  convolution of the main stream at that scale; two more upsamplings lead to the size of the input,
  whatever it is. `fusion.from_linen(net, names)` makes it a `core.Model`. Shapes and cost alone are
  tested: there are no weights to compare with.

  Args:
    num_classes: C.
    main: the modality whose stream is fused into and read by the decoder; None = the first by name.
    widths: channels of the five stages, default (64, 64, 128, 256, 512), a ResNet-34's.
    blocks: of stages two to five, default (3, 4, 6, 3).
    decoder: channels of the decoder's stages, default (512, 256, 128).
    decoder_blocks: of each of them, default 3.
    ratio: of squeeze and excitation, default 16.
  """

  num_classes: int
  main: str | None = None
  widths: Sequence[int] = (64, 64, 128, 256, 512)
  blocks: Sequence[int] = (3, 4, 6, 3)
  decoder: Sequence[int] = (512, 256, 128)
  decoder_blocks: int = 3
  ratio: int = 16

  def encode(self, inputs: Mapping[str, jax.Array], mask, train: bool):
    """The inputs: streams meet before any of them ends."""
    del mask, train
    return {m: x[..., None] if x.ndim == 3 else x for m, x in inputs.items()}

  @nn.compact
  def heads(self, features: Mapping[str, jax.Array], mask, train: bool) -> Outputs:
    """`Outputs` with logits alone."""
    names = sorted(features)
    main = names[0] if self.main is None else self.main
    anybody = jnp.stack([mask[m] for m in names]).any(0)
    x, size = dict(features), features[main].shape[1:3]
    skips = []
    for stage in range(STAGES):
      for m in names:
        x[m] = self._stage(stage, m)(x[m], mask[m], train=train)
      excited = {m: SqueezeExcite(self.ratio, name=f"{m}_excite{stage}")(x[m]) for m in names}
      x[main] = sum(masks.fill(excited, {m: mask[m] for m in names}).values(), 0.0)
      skips.append(x[main])
      if stage == 0:
        x = {m: max_pool(v, (3, 3), (2, 2), "SAME") for m, v in x.items()}
    y = PyramidPooling(self.decoder[0], name="context")(x[main], anybody, train=train)
    for i, width in enumerate(self.decoder):
      y = ConvNorm(width, name=f"decoder{i}")(y, anybody, train=train)
      blocks = Blocks(width, self.decoder_blocks, name=f"decoder{i}_blocks")
      y = blocks(y, anybody, train=train)
      skip = skips[STAGES - 2 - i]
      y = Upsample(name=f"up{i}")(y, skip.shape[1:3])
      y = y + ConvNorm(width, (1, 1), name=f"skip{i}")(skip, anybody, train=train)
    y = nn.Conv(self.num_classes, (3, 3), name="out")(y)
    y = Upsample(name="half")(y, skips[0].shape[1:3])
    return Outputs(Upsample(name="whole")(y, size))

  def _stage(self, stage: int, m: str) -> nn.Module:
    if stage == 0:
      return ConvNorm(self.widths[0], (7, 7), 2, name=f"{m}_stage0")
    stride = 1 if stage == 1 else 2
    return Blocks(self.widths[stage], self.blocks[stage - 1], stride, name=f"{m}_stage{stage}")
