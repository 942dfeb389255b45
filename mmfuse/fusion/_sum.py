"""Sum of one linear head per modality."""

import flax.linen as nn


class Sum(nn.Module):
  r"""logits = \sum_m z_m, z_m = h_m W_m + b_m; W_m [D_m, C], b_m [C].

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], split)`
  with split {m: z_m}, the full bias in each branch as the authors do in training. Absent rows come
  in as zeros and contribute b_m. Peng et al., Balanced Multimodal Learning via On-the-fly Gradient
  Modulation, CVPR 2022.
  """

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    del mask, train
    split = {m: nn.Dense(num_classes, name=f"branch_{m}")(features[m]) for m in sorted(features)}
    return sum(split.values()), split
