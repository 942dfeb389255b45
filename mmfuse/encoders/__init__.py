"""Encoders: one modality in, features [B, features] out.

A Linen module called as `(x [B, ...], mask bool [B], *, train)`, mask True = present. Present rows
and statistics never depend on what absent rows contain.
"""

from mmfuse.encoders._chain import Chain
from mmfuse.encoders._conv import Conv
from mmfuse.encoders._conv1d import Conv1D
from mmfuse.encoders._conv2d import Conv2D, Frames
from mmfuse.encoders._default import by_name, default_encoder
from mmfuse.encoders._embedding import Embedding, vocabulary_size
from mmfuse.encoders._lenet import LeNet
from mmfuse.encoders._mlp import MLP
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import max_first, max_pool
from mmfuse.encoders._recurrent import GRU, LSTM
from mmfuse.encoders._resnet import ResNet18, ResNet34
from mmfuse.encoders._transformer import Transformer

__all__ = [
    "GRU", "LSTM", "MLP", "Chain", "Conv", "Conv1D", "Conv2D", "Embedding", "Frames", "LeNet", "Norm",
    "ResNet18", "ResNet34", "Transformer", "by_name", "default_encoder", "max_first", "max_pool",
    "vocabulary_size",
]
