"""Fusion: from features per modality to one set of logits.

A fusion is a Linen module called as `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes,
train) -> (logits [B, C], split {m: [B, C]} or None)`; absent rows of the features are zero.
"""

from mmfuse.fusion._concat import Concat, split_concat
from mmfuse.fusion._cosine import Cosine, cosine_logits
from mmfuse.fusion._gated import FiLM, Gated
from mmfuse.fusion._late import LateFusion
from mmfuse.fusion._linen import from_linen
from mmfuse.fusion._mmtm import Mmtm
from mmfuse.fusion._names import by_name
from mmfuse.fusion._sum import Sum

__all__ = [
  "Concat",
  "Cosine",
  "FiLM",
  "Gated",
  "LateFusion",
  "Mmtm",
  "Sum",
  "by_name",
  "cosine_logits",
  "from_linen",
  "split_concat",
]
