"""The network of a modality: a U-Net whose last map, pooled, is what it says of the row; M of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse.core import Batch, Unavailable
from mmfuse.encoders import Conv
from mmfuse.encoders._conv import prefer_batch_last
from mmfuse.encoders._pool import max_first
from mmfuse.encoders._unet import ConvBlock, doubled
from mmfuse.fusion._late import named_key
from mmfuse.methods.segmentation._maps import standardised
from mmfuse.train import init_module

LEVELS = 4


class CamNet(nn.Module):
  """Images [B, H, W, C] -> (maps [B, H, W, classes], features [B, H, W, width]); logits are the maps' mean.

  Two 3 x 3 convolutions, each with batch norm and ReLU, on each level, of 1, 2, 4, 4, ... widths, a 2 x 2
  max-pool between them; back by nearest neighbours, the level of that size beside, to half as many
  channels; one more convolution and a 1 x 1 map without bias. A row is standardised by itself first. An
  odd side is pooled as if it went on, and cut on the way back: any size will do. As in the code released
  with the paper.

  Args:
    width: channels of the first level and of the features.
    classes: C.
    levels: default 4 (paper).
    formulation: see `encoders.Conv`, default "auto".
    views: see `encoders.Norm`, default 1.
  """

  width: int
  classes: int
  levels: int = LEVELS
  formulation: str = "auto"
  views: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    x = standardised(x)
    last = prefer_batch_last(x, (3, 3), self.formulation)
    x = jnp.swapaxes(x, 0, -1) if last else x  # [C, H, W, B]

    def block(x, times, name, depth=2):
      made = ConvBlock(
        times * self.width,
        "batch",
        self.formulation,
        last,
        depth,
        nn.initializers.glorot_normal(),
        self.views,
        name=name,
      )
      return made(x, mask, train=train)

    found: list[jax.Array] = []
    for level in range(self.levels):
      found.append(block(_largest(found[-1]) if level else x, _times(level), f"down{level}"))
    x = found[-1]
    for level in reversed(range(self.levels - 1)):
      skip = found[level]
      x = jnp.concatenate([skip, doubled(x, skip.shape[1:3])], 0 if last else -1)
      x = block(x, max(_times(level) // 2, 1), f"up{level}")
    x = block(x, 1, "last", 1)
    maps = Conv(
      self.classes,
      (1, 1),
      use_bias=False,
      kernel_init=nn.initializers.glorot_normal(),
      formulation=self.formulation,
      batch_last=last,
      name="cam",
    )(x)
    return (jnp.swapaxes(maps, 0, -1), jnp.swapaxes(x, 0, -1)) if last else (maps, x)


def _times(level: int) -> int:
  """Channels of a level on the way down, in widths."""
  return min(1 << level, 4)


def _largest(x: jax.Array) -> jax.Array:
  """The maximum of each 2 x 2, [_, H, W, _] -> [_, ceil(H / 2), ceil(W / 2), _]."""
  odd = [(0, n % 2) for n in x.shape[1:3]]
  x = jnp.pad(x, ((0, 0), *odd, (0, 0)), constant_values=-jnp.inf)
  return max_first(jnp.stack([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]))


@dataclasses.dataclass(frozen=True)
class _Start:
  """What `train.init_module` compiles; the draws are all that is left of it."""

  net: CamNet

  def init(self, key: jax.Array, x: jax.Array, mask: jax.Array):
    return self.net.init(key, x, mask, train=False)


@dataclasses.dataclass(frozen=True)
class Nets:
  """A `CamNet` for each modality; parameters and statistics stand under its name."""

  modalities: tuple[str, ...]
  width: int
  levels: int
  outputs: Callable[[Mapping, Mapping], int]  # (inputs, mask) -> C
  same_size: bool  # maps of all modalities have to fit on each other

  def begin(self, key: jax.Array, batch: Batch, num_rows: int) -> tuple[dict[str, Any], dict]:
    """What `train.minimise` starts from. Raises Unavailable for what are no images."""
    del num_rows
    images = images_of(self.modalities, batch.inputs, self.same_size)
    classes = self.outputs(batch.inputs, batch.mask)
    params, stats = {}, {}
    for m in self.modalities:
      start, every = _Start(CamNet(self.width, classes, self.levels)), jnp.ones(1, bool)
      found = init_module(start, named_key(key, m), images[m][:1], every)
      params[m], stats[m] = found["params"], found["batch_stats"]
    return {"params": params, "batch_stats": stats}, {}

  def look(
    self, variables: Mapping, m: str, x: jax.Array, present: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """(maps [B, H, W, C], features [B, H, W, width]) of images x, in evaluation mode."""
    found: Any = self._net(variables, m).apply(_of(variables, m), x, present, train=False)
    return found

  def learn(
    self, variables: Mapping, m: str, views: jax.Array, present: jax.Array
  ) -> tuple[jax.Array, Any]:
    """(maps [V, B, H, W, C], statistics of m), in training mode, of views [V, B, H, W, channels].

    As V passes one after the other: each is normalised by its own moments, and the running averages
    move V times, from what the pass before left.
    """
    net = dataclasses.replace(self._net(variables, m), views=views.shape[0])
    (maps, _), new = net.apply(
      _of(variables, m),
      views.reshape(-1, *views.shape[2:]),
      present,
      train=True,
      mutable=["batch_stats"],
    )
    return maps.reshape(*views.shape[:2], *maps.shape[1:]), new["batch_stats"]

  def _net(self, variables: Mapping, m: str) -> CamNet:
    return CamNet(self.width, variables["params"][m]["cam"]["kernel"].shape[-1], self.levels)


def _of(variables: Mapping, m: str) -> dict[str, Any]:
  return {kind: variables[kind][m] for kind in ("params", "batch_stats")}


def images_of(modalities: Sequence[str], inputs: Mapping, same_size: bool) -> dict[str, jax.Array]:
  """{m: [B, H, W, C]}. Raises Unavailable for a modality without such, or for different sizes."""
  for m in modalities:
    x = inputs[m]
    if not hasattr(x, "ndim") or x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
      raise Unavailable(f"it segments images, [B, H, W, C], and {m!r} holds none")
  sizes = {m: inputs[m].shape[1:3] for m in modalities}
  if same_size and len(set(sizes.values())) > 1:
    said = ", ".join(f"{m} {h} x {w}" for m, (h, w) in sizes.items())
    raise Unavailable(
      f"its maps are compared place by place, and the images differ in size: {said}"
    )
  return {m: inputs[m] for m in modalities}
