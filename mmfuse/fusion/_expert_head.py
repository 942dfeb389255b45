"""The expert head of I2M2 on a shared backbone.

Madaan, Makino, Chopra and Cho: Jointly Modeling Inter- & Intra-Modality Dependencies for
Multi-modal Learning, NeurIPS 2024.
"""

import flax.linen as nn
import jax

from mmfuse.encoders import Norm


class ExpertHead(nn.Module):
  """z [B, C] = W_2 gelu(norm(W_1 h + b_1)) + b_2 of a feature vector h [B, D], layer norm.

  One expert where experts share a backbone (VQA, NLVR2); `combine_experts` joins several. No method
  of the index has such a backbone: the head stands here for models that do, and is compared with
  the authors' recorded outputs. The GELU is the exact one, eps 1e-5.

  Args:
    num_classes: C.
    width: of the hidden layer, default 1536 (twice the 768 of the authors' backbone).
  """

  num_classes: int
  width: int = 1536

  @nn.compact
  def __call__(self, h: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    h = nn.Dense(self.width, name="dense0")(h)
    h = nn.gelu(Norm("layer", name="norm0")(h, mask, train=train), approximate=False)
    return nn.Dense(self.num_classes, name="out")(h)
