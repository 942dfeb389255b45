"""Which encoder fits an array: by rank and dtype, or by name."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmfuse.data._skeleton_graph import NTU_PARENTS, like_skeleton
from mmfuse.encoders._conv1d import Conv1D
from mmfuse.encoders._conv2d import FRAME_SIDE, Conv2D, Frames
from mmfuse.encoders._embedding import Embedding
from mmfuse.encoders._lenet import LeNet, lenet_layers
from mmfuse.encoders._mlp import MLP, Identity
from mmfuse.encoders._recurrent import GRU, LSTM
from mmfuse.encoders._resnet import ResNet18, ResNet34
from mmfuse.encoders._skeleton import Skeleton
from mmfuse.encoders._transformer import Transformer
from mmfuse.names import closest

ANY = range(2, 33)  # ranks: whatever has a batch axis

# name -> (ranks it takes, batch axis included; module of the shape)
NAMES: dict[str, tuple[Collection[int], Callable[[tuple[int, ...]], nn.Module]]] = {
  "linear": (ANY, lambda shape: MLP(hidden=(), linear=True)),
  "identity": (ANY, lambda shape: Identity()),
  "mlp": ((1, 2, 3, 4, 5), lambda shape: MLP()),
  "conv1d": ((3,), lambda shape: Conv1D()),
  "conv1d_steps": ((3,), lambda shape: Conv1D(pool="none")),
  "conv2d": ((3, 4), lambda shape: Conv2D()),
  "lenet": ((3, 4), lambda shape: LeNet(layers=lenet_layers(shape[1:3]))),
  "resnet18": ((3, 4), lambda shape: ResNet18(small_stem=max(shape[1:3]) <= 64)),
  "resnet34": ((3, 4), lambda shape: ResNet34(small_stem=max(shape[1:3]) <= 64)),
  "gru": ((3,), lambda shape: GRU()),
  "lstm": ((3,), lambda shape: LSTM()),
  "transformer": ((3,), lambda shape: Transformer()),
  "transformer_steps": ((3,), lambda shape: Transformer(pool="none")),
  "skeleton": ((5,), lambda shape: _skeleton(shape)),
}
BY_RANK = {2: "mlp", 3: "conv1d", 4: "conv2d"}


def _skeleton(shape):
  if shape[3] == len(NTU_PARENTS):
    return Skeleton()
  raise ValueError(
    f"arrays of shape {list(shape)} are skeletons of {shape[3]} joints, whose bones are not known "
    f"(those of {len(NTU_PARENTS)} joints of NTU RGB+D are); say encoders.Skeleton(parents=...), the "
    "joint that each joint hangs on (--encoder NAME=module:name)"
  )


def _embedding(shape, vocabulary):
  if len(shape) not in (1, 2):
    raise ValueError(f"an embedding takes tokens [B] or [B, L], got shape {list(shape)}")
  if vocabulary is None:
    raise ValueError(
      "an embedding needs its vocabulary size, got none; "
      "pass vocabulary=encoders.vocabulary_size(tokens)"
    )
  return Embedding(vocabulary)


def default_encoder(shape: tuple[int, ...], dtype, vocabulary: int | None = None) -> nn.Module:
  """The encoder of arrays of `shape` and `dtype`.

  Floats: `MLP` for [B, D], `Conv1D` for [B, T, C], `Conv2D` for [B, H, W, C], `Frames(Conv2D)` for
  [B, T, H, W, C], `Skeleton` where that is [B, T, P, J, C] of at most four persons and ten joints or
  more in two or three coordinates: no video is four pixels high. Integers: `Embedding` for [B] and [B, L].

  Args:
    shape: of the arrays, batch axis included.
    dtype: theirs.
    vocabulary: how many tokens integers are of; default None, which floats need not say.

  Raises:
    ValueError: anything else, integers without a vocabulary, a skeleton whose bones are not known.
  """
  if jnp.issubdtype(dtype, jnp.integer):
    return _embedding(shape, vocabulary)
  if jnp.issubdtype(dtype, jnp.floating) and like_skeleton(shape):
    return _skeleton(shape)
  if jnp.issubdtype(dtype, jnp.floating) and len(shape) == 5:
    return Frames(Conv2D(side=FRAME_SIDE))
  if jnp.issubdtype(dtype, jnp.floating) and len(shape) in BY_RANK:
    return by_name(BY_RANK[len(shape)], shape, dtype)
  raise ValueError(
    f"no encoder for shape {list(shape)} of {jnp.dtype(dtype).name}; floats of rank "
    "2 to 5 and integers of rank 1 or 2 have one (batch axis included)"
  )


def by_name(spec: str, shape: tuple[int, ...], dtype, vocabulary: int | None = None) -> nn.Module:
  """The encoder called `spec`, fitted to arrays of `shape` and `dtype`.

  Args:
    spec: linear (flattened, one dense layer), identity (flattened, nothing else), mlp, conv1d,
      conv2d, lenet, resnet18, resnet34 (the small stem for sides up to 64), gru, lstm, transformer,
      skeleton, embedding; and conv1d_steps, transformer_steps, whose steps a fusion like `mult` attends to
      (see `keep_steps`).
    shape, dtype, vocabulary: as in `default_encoder`.

  Raises:
    ValueError: an unknown name (with the closest one), a rank or dtype that the encoder cannot
      take.
  """
  known = [*NAMES, "embedding"]
  if spec not in known:
    raise ValueError(f"unknown encoder {spec!r}; {closest(spec, known)}")
  if spec == "embedding":
    if not jnp.issubdtype(dtype, jnp.integer):
      raise ValueError(f"encoder 'embedding' takes integers, got {jnp.dtype(dtype).name}")
    return _embedding(shape, vocabulary)
  ranks, build = NAMES[spec]
  if len(shape) not in ranks or not jnp.issubdtype(dtype, jnp.floating):
    takes = "2 or more" if ranks is ANY else " or ".join(map(str, ranks))
    raise ValueError(
      f"encoder {spec!r} takes floats of rank {takes} (batch axis included), "
      f"got shape {list(shape)} of {jnp.dtype(dtype).name}"
    )
  return build(shape)


def keep_steps(module: Any) -> Any:
  """`module` for a fusion that attends to steps: a `Conv1D` that averages them keeps them instead.

  Anything else comes back as it is: what pools by its nature, and a user's own module.
  """
  pools = type(module) is Conv1D and module.pool == "segments"
  return module.clone(pool="none") if pools else module
