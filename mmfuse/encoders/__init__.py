"""Encoders: one modality in, features [B, features] out.

A Linen module called as `(x [B, ...], mask bool [B], *, train)`, mask True = present. Present rows
and statistics never depend on what absent rows contain. x may be a `core.Sequence` to an encoder
that says `reads_lengths = True`: then nothing depends on what stands after a row's end (`steps`
reads it); others get its values with zeros there. Modules of another call, and those of Flax NNX,
are taken by `adapt`.
"""

from mmfuse.encoders._adapt import adapt
from mmfuse.encoders._chain import Chain
from mmfuse.encoders._conv import Conv
from mmfuse.encoders._conv1d import Conv1D
from mmfuse.encoders._conv2d import Conv2D, Frames
from mmfuse.encoders._decoders import ConvDecoder, MLPDecoder, mirrored, token_classes
from mmfuse.encoders._default import NAMES, by_name, default_encoder, keep_steps
from mmfuse.encoders._describe import check_encoder, check_output, describe, readable, remarks
from mmfuse.encoders._embedding import Embedding, vocabulary_size
from mmfuse.encoders._esanet import NonBottleneck1D, PyramidPooling
from mmfuse.encoders._lenet import LeNet
from mmfuse.encoders._mlp import MLP, Identity
from mmfuse.encoders._norm import Norm
from mmfuse.encoders._pool import max_first, max_pool
from mmfuse.encoders._recurrent import GRU, LSTM
from mmfuse.encoders._resnet import ResNet18, ResNet34, SEResNet18Stem
from mmfuse.encoders._sequence import as_array, steps
from mmfuse.encoders._token_encoder import token_encoder
from mmfuse.encoders._tokens import Tokens, as_tokens
from mmfuse.encoders._transformer import Transformer
from mmfuse.encoders._unet import MapHead, UNet, UNetDecoder

__all__ = [
  "GRU",
  "LSTM",
  "MLP",
  "NAMES",
  "Chain",
  "Conv",
  "Conv1D",
  "Conv2D",
  "ConvDecoder",
  "Embedding",
  "Frames",
  "Identity",
  "LeNet",
  "MLPDecoder",
  "MapHead",
  "NonBottleneck1D",
  "Norm",
  "PyramidPooling",
  "ResNet18",
  "ResNet34",
  "SEResNet18Stem",
  "Tokens",
  "Transformer",
  "UNet",
  "UNetDecoder",
  "adapt",
  "as_array",
  "as_tokens",
  "by_name",
  "check_encoder",
  "check_output",
  "default_encoder",
  "describe",
  "keep_steps",
  "max_first",
  "max_pool",
  "mirrored",
  "readable",
  "remarks",
  "steps",
  "token_classes",
  "token_encoder",
  "vocabulary_size",
]
