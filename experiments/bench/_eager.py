"""What a step of ours is measured by: the same shapes in eager PyTorch, imported where used."""

import importlib.util
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.bench._race import Lap


def available(*packages: str) -> bool:
  """Whether PyTorch, and these, can be imported."""
  return all(importlib.util.find_spec(name) is not None for name in ("torch", *packages))


def lenet(layers: int, c: int = 6) -> Any:
  """The LeNet of AV-MNIST without biases: widths c 2^i, batch norm, max-pooling; [B, 1, n, n] -> [B, D]."""
  from torch import nn

  blocks: list[nn.Module] = []
  for i in range(layers + 1):
    width, before = c * 2**i, 1 if i == 0 else c * 2 ** (i - 1)
    size = 3 if i else 5
    conv = nn.Conv2d(before, width, size, padding=size // 2, bias=False)
    blocks += [conv, nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
  return nn.Sequential(*blocks, nn.Flatten())


def resnet18(channels: int) -> Any:
  """ResNet-18 to its pooled features: [B, channels, H, W] -> [B, 512]."""
  from torch import nn

  def conv(i: int, o: int, size: int, stride: int) -> nn.Sequential:
    made = nn.Conv2d(i, o, size, stride, size // 2, bias=False)
    return nn.Sequential(made, nn.BatchNorm2d(o))

  class Block(nn.Module):
    def __init__(self, i: int, o: int, stride: int):
      super().__init__()
      self.one, self.two = conv(i, o, 3, stride), conv(o, o, 3, 1)
      self.skip = nn.Identity() if (i, stride) == (o, 1) else conv(i, o, 1, stride)

    def forward(self, x):
      return (self.two(self.one(x).relu_()) + self.skip(x)).relu_()

  widths = (64, 64, 128, 256, 512)
  blocks = [
    b
    for n, (i, o) in enumerate(itertools.pairwise(widths))
    for b in (Block(i, o, 2 if n else 1), Block(o, o, 1))
  ]
  stem = [conv(channels, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
  return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def mlp(inputs: int, hidden: Sequence[int], features: int) -> Any:
  """(dense, layer norm, ReLU) per width, as ours: [B, inputs] -> [B, features]."""
  from torch import nn

  sizes = (inputs, *hidden, features)
  return nn.Sequential(
    *(
      layer
      for i, o in itertools.pairwise(sizes)
      for layer in (nn.Linear(i, o), nn.LayerNorm(o), nn.ReLU())
    )
  )


def gru(inputs: int, features: int) -> Any:
  """The last state of one layer: [B, T, inputs] -> [B, features]."""
  from torch import nn

  class Last(nn.Module):
    def __init__(self):
      super().__init__()
      self.layer = nn.GRU(inputs, features, batch_first=True)

    def forward(self, x):
      return self.layer(x)[1][0]

  return Last()


def transformer(inputs: int, steps: int, width: int, layers: int, heads: int) -> Any:
  """Pre-norm, learned positions, a class token, GELU, 4 D wide, no dropout: [B, T, inputs] -> [B, width]."""
  import torch
  from torch import nn

  class Encoder(nn.Module):
    def __init__(self):
      super().__init__()
      self.embed = nn.Linear(inputs, width)
      self.positions = nn.Parameter(0.02 * torch.randn(1, steps, width))
      self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
      layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
      )
      self.layers = nn.TransformerEncoder(
        layer, layers, nn.LayerNorm(width), enable_nested_tensor=False
      )

    def forward(self, x):
      h = self.embed(x) + self.positions
      return self.layers(torch.cat([self.token.expand(len(x), -1, -1), h], 1))[:, 0]

  return Encoder()


class Late:
  """Encoders side by side, a linear head of all and one of each; losses [K], the fused one first."""

  def __init__(
    self, nets: Sequence[Any], inputs: Sequence[Any], label: Any, classes: int, alone: bool
  ):
    import torch
    from torch import nn

    self.nets, self.inputs, self.label = nn.ModuleList(nets), list(inputs), label
    with torch.no_grad():
      sizes = [net(x).shape[1] for net, x in zip(self.nets, self.inputs, strict=True)]
    self.head = nn.Linear(sum(sizes), classes)
    self.heads = nn.ModuleList([nn.Linear(n, classes) for n in sizes if alone])

  @property
  def parameters(self) -> list[Any]:
    return [*self.nets.parameters(), *self.head.parameters(), *self.heads.parameters()]

  def losses(self) -> list[Any]:
    import torch
    from torch.nn.functional import cross_entropy

    features = [net(x) for net, x in zip(self.nets, self.inputs, strict=True)]
    logits = [self.head(torch.cat(features, 1))]
    logits += [head(h) for head, h in zip(self.heads, features, strict=False)]
    return [cross_entropy(z, self.label) for z in logits]


def lap_of(
  model: Late, backward: Callable[[list[Any]], None] | None = None, rate: float = 0.03
) -> Lap:
  """Steps of SGD with momentum on the sum of the losses, or on what `backward` makes of them."""
  import torch

  tx = torch.optim.SGD(model.parameters, lr=rate, momentum=0.9)

  def lap(steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
      tx.zero_grad()
      losses = model.losses()
      sum(losses).backward() if backward is None else backward(losses)
      tx.step()
    return (time.perf_counter() - began) / steps

  return lap
