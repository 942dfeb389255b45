"""What was chosen for a modality, in words, and whether it is an encoder at all."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse.core import Sequence
from mmfuse.encoders._adapt import Adapted, title
from mmfuse.encoders._conv1d import Conv1D
from mmfuse.encoders._conv2d import Conv2D, Frames
from mmfuse.encoders._default import NAMES
from mmfuse.encoders._embedding import Embedding
from mmfuse.encoders._sequence import as_array

ROWS = 7  # of the example an encoder is tried on: a number that hardly is a width too
COLOURS = (1, 3, 4)  # channels of an image as most cameras store it


def check_encoder(
  module: Any, x: Any, modality: str, train: bool = False, maps: bool = False
) -> tuple[Any, Any]:
  """(features, variables) of `module` on a few rows like `x`, as shapes; nothing is run.

  Args:
    module: the encoder, Linen `(x, mask, *, train)`.
    x: what it reads, [B, ...] or a `core.Sequence`.
    modality: its name, for messages.
    train: try the training mode too, default False.
    maps: it gives maps of several scales instead of features, default False.

  Raises:
    ValueError: one sentence, where the module fails or returns what is no feature; see
      `check_output`.
  """
  like = lambda a: jax.ShapeDtypeStruct((ROWS, *a.shape[1:]), a.dtype)
  x = jax.tree.map(like, x)

  def run(x):
    mask, rngs = jnp.ones(ROWS, bool), {"dropout": jax.random.key(0)}
    x = readable(module, x)
    h, variables = module.init_with_output(jax.random.key(0), x, mask, train=False)
    (_check_maps if maps else check_output)(h, variables, modality, module, ROWS)
    if train:
      module.apply(variables, x, mask, train=True, rngs=rngs, mutable=["batch_stats"])
    return h, variables

  try:
    return jax.eval_shape(run, x)
  except Refused:
    raise
  except Exception as error:  # whatever a user's module raises becomes the one sentence they see
    said = (str(error).strip().splitlines() or [""])[0]
    raise ValueError(
      f"the encoder of {modality!r} ({title(module)}) fails on rows of shape "
      f"{_shape(x)}: {type(error).__name__}: {said}"
    ) from error


class Refused(ValueError):
  """What a module returned is no feature."""


def check_output(h: Any, variables: Any, modality: str, module: Any, rows: int) -> None:
  """Raises ValueError unless h is one floating-point array [rows, ...] and its variables are known.

  Args:
    h: what the encoder returned.
    variables: its collections; params and batch_stats are known: what is carried from step to step.
    modality: its name, for messages.
    module: the encoder, for messages.
    rows: B.
  """
  what = f"the encoder of {modality!r} ({title(module)})"
  expected = "expected one array [B, features]"
  if not hasattr(h, "shape") or not hasattr(h, "dtype"):
    raise Refused(f"{what} returned {_kind(h)}, {expected}")
  if h.ndim == 0 or h.shape[0] != rows or 0 in h.shape:
    got = "a scalar" if h.ndim == 0 else f"an array {list(h.shape)}"
    raise Refused(f"{what} returned {got} for {rows} rows, {expected}")
  if not jnp.issubdtype(h.dtype, jnp.floating):
    raise Refused(f"{what} returned {h.dtype}, expected floating-point features")
  other = sorted(set(variables) - {"params", "batch_stats"})
  if other:
    raise Refused(
      f"{what} has a variable collection {other[0]!r}; carried from step to step are "
      "params and batch_stats only"
    )


def _check_maps(h: Any, variables: Any, modality: str, module: Any, rows: int) -> None:
  """Raises ValueError unless h are maps [rows, H, W, D], each of half the size of the one before."""
  what = f"the encoder of {modality!r} ({title(module)})"
  expected = "expected maps ([B, H, W, D], [B, H/2, W/2, E], ...)"
  if not isinstance(h, tuple | list) or not h:
    raise Refused(f"{what} returned {_kind(h)}, {expected}")
  for level, x in enumerate(h):
    check_output(x, variables, modality, module, rows)
    size = tuple(-(-n // 2**level) for n in h[0].shape[1:3])
    if x.ndim != 4 or tuple(x.shape[1:3]) != size:
      raise Refused(f"{what} returned {list(x.shape)} at scale {level}, {expected}")


def _kind(h):
  if h is None:
    return "None"
  return f"a {type(h).__name__}" if not isinstance(h, int | float) else "a number"


def readable(module: Any, x: Any) -> Any:
  """x as `module` reads it: a `core.Sequence` for one that says `reads_lengths`, else an array."""
  return x if getattr(module, "reads_lengths", False) else as_array(x)


def describe(module: Any, x: Any, params: Any, guessed: bool = False) -> str:
  """ "[48, 3] -> conv1d, 8 segments, 12k parameters": a row of `x`, the encoder, its parameters.

  Args:
    module: the encoder.
    x: an array [B, ...] or `core.Sequence`.
    params: a tree of arrays or shapes.
    guessed: the encoder was chosen by rank, so that the line also says how the axes are read where
      that is not certain; default False.
  """
  words = [_name(module), *_pooling(module), f"{_count(params)} parameters"]
  read = _reading(_shape(x)) if guessed and not isinstance(module, Embedding) else ""
  lengths = " with lengths" if isinstance(x, Sequence) else ""
  return f"{_shape(x)}{lengths} -> {', '.join(words)}{read}"


def remarks(module: Any, x: Any, variables: Any, modality: str) -> list[str]:
  """What a user should know: lengths that are not read, statistics over absent rows.

  Args:
    module: the encoder.
    x: what it reads.
    variables: its collections.
    modality: its name.
  """
  found, who = [], f"the encoder of {modality!r} ({title(module)})"
  if isinstance(x, Sequence) and not getattr(module, "reads_lengths", False):
    found.append(f"{who} takes arrays: rows that end early come to it with zeros after their end")
  blind = isinstance(module, Adapted) and "mask" not in module.passed(readable(module, x))
  if blind and variables.get("batch_stats"):
    found.append(f"{who} names no mask: its statistics see absent rows as zeros")
  return found


def _shape(x):
  return list((x.values if isinstance(x, Sequence) else x).shape[1:])


def _name(module):
  if isinstance(module, Frames):
    return f"{_name(module.encoder)} of every frame"
  if type(module).__module__.startswith("mmfuse.") and not isinstance(module, Adapted):
    known = {n.replace("_", ""): n for n in (*NAMES, "embedding")}
    plain = type(module).__name__.lower()
    linear = plain == "mlp" and module.linear and not module.hidden
    return "linear" if linear else known.get(plain, plain)
  return title(module)


def _pooling(module):
  """How positions become features, of encoders that leave it open."""
  if isinstance(module, Embedding):
    return [f"{module.vocabulary} tokens"]
  if isinstance(module, Frames):
    return [*_pooling(module.encoder), f"{module.segments} segments of time"]
  if not isinstance(module, Conv1D | Conv2D):
    return []
  if module.pool == "none":
    return ["every step"]
  if module.pool == "mean":
    return ["mean over all positions"]
  if isinstance(module, Conv1D):
    return [f"{module.segments} segments"]
  return [f"{' x '.join(map(str, module.grid))} segments"]


def _count(params):
  total = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
  for unit, size in (("M", 10**6), ("k", 10**3)):
    if total >= size:
      return f"{total / size:.{int(total < 10 * size)}f}{unit}"
  return "no" if total == 0 else str(total)


def _reading(shape):
  if len(shape) == 2:
    return " (read as [time, channels])"
  if len(shape) == 4:
    return " (read as frames [time, height, width, channels])"
  if len(shape) == 3 and shape[-1] not in COLOURS:
    leading = shape[0] in COLOURS and shape[0] < min(shape[1:])
    first = "; channels first? transpose it" if leading else ""
    return f" (read as an image of {shape[-1]} channels, [height, width, channels]{first})"
  return ""
