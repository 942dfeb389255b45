"""The networks and optimisers of I2M2 on AV-MNIST and on data of the shape of MIMIC-III.

Madaan, Makino, Chopra and Cho, Jointly Modeling Inter- & Intra-Modality Dependencies for
Multi-modal Learning, NeurIPS 2024: the numbers are those of the authors' code.
"""

from collections.abc import Mapping
from typing import NamedTuple

import optax

from mmfuse import objectives, train
from mmfuse.core import Method
from mmfuse.encoders import GRU, MLP, Chain, LeNet
from mmfuse.fusion import Early, LateFusion, LowRank
from mmfuse.methods.ensembles._i2m2 import i2m2, intra

__all__ = ["Recipe", "av_mnist", "mimic"]

CLIP = 8.0


class Recipe(NamedTuple):
  """What `i2m2` and its baselines are built from."""

  model: LateFusion  # of the uni-modal experts
  joint: LateFusion  # of the joint expert, which alone is `inter`
  tx: optax.GradientTransformation  # of the product
  intra_tx: optax.GradientTransformation  # of the product without the joint expert
  expert_tx: Mapping[str, optax.GradientTransformation]  # by modality, and of "joint"
  pretrained: bool  # whether each expert has a phase of its own first
  epochs: int  # of each phase
  batch_size: int  # rows of a step
  patience: int  # epochs without a better validation score, of each phase

  def i2m2(self) -> Method:
    """The product of all experts."""
    own = self.expert_tx if self.pretrained else None
    return i2m2(self.model, tx=self.tx, joint=self.joint, pretrained=self.pretrained, expert_tx=own)

  def intra(self, test: str = "product") -> Method:
    """The product of the uni-modal experts; `test` as in `intra`."""
    own = {m: self.expert_tx[m] for m in self.model.modalities} if self.pretrained else None
    return intra(self.model, tx=self.intra_tx, test=test, pretrained=self.pretrained, expert_tx=own)

  def inter(self) -> Method:
    """The joint expert alone."""
    return train.supervised(self.joint, objectives.fused, self.expert_tx["joint"])


def _mlp(width: int) -> MLP:
  return MLP(width, (), "none")


def _sgd(rate: float) -> optax.GradientTransformation:
  """torch's order: clip, then weight decay, then the step; no momentum."""
  return optax.chain(train.clip_global_norm(CLIP), train.sgd(rate, momentum=0.0, weight_decay=1e-4))


def av_mnist(
  num_classes: int = 10,
  *,
  head: str = "lf",
  lmf_trainable: bool = True,
  image_layers: int = 3,
  audio_layers: int = 5,
) -> Recipe:
  """LeNets on "image" and "audio": c = 3 and MLP(., 100, C) alone, c = 6 in the joint expert.

  SGD without momentum, weight decay 1e-4, clip 8; rates .01 for the uni-modal experts and the
  product, .1 for the joint expert and for the product of `intra`; batches of 40, 30 epochs a phase,
  patience 10 (7 for the uni-modal experts there).

  Args:
    num_classes: C, default 10.
    head: of the joint expert: "lf", MLP(240, 100, C) on the concatenation, or "lrtf", low-rank
      tensor fusion of rank 40 to 120 and MLP(120, 100, C).
    lmf_trainable: False keeps the factors of "lrtf" as they are drawn, as the released code does by
      mistake (they are in a plain list, which no optimiser sees).
    image_layers, audio_layers: of the LeNets, 3 for 28 x 28 and 5 for 112 x 112.

  Raises ValueError for another head.
  """
  fusions = {"lf": Early((100,)), "lrtf": LowRank(40, not lmf_trainable, 120, (100,))}
  if head not in fusions:
    raise ValueError(
      f"unknown head {head!r} of the joint expert; expected one of: {', '.join(fusions)}"
    )
  layers = {"audio": audio_layers, "image": image_layers}
  alone = {m: Chain((LeNet(3, n), _mlp(100))) for m, n in layers.items()}
  joint = {m: LeNet(6, n) for m, n in layers.items()}
  return Recipe(
    LateFusion(alone, num_classes),
    LateFusion(joint, num_classes, fusions[head]),
    tx=_sgd(0.01),
    intra_tx=_sgd(0.1),
    expert_tx={"audio": _sgd(0.01), "image": _sgd(0.01), "joint": _sgd(0.1)},
    pretrained=True,
    epochs=30,
    batch_size=40,
    patience=10,
  )


def mimic(num_classes: int = 6) -> Recipe:
  """MLP on "static" [B, 5] and GRU on "series" [B, 24, 12]; any widths and lengths do.

  Alone: MLP(5, 10, 10) and MLP(10, 40, C); GRU(30), a linear layer to 15 on every step, and MLP(360,
  40, C). Joint: MLP(5, 10, 10) beside every state of GRU(30), and MLP(730, 40, C). RMSprop (decay
  .99, eps 1e-8 outside of the root) at 1e-3, clip 8, batches of 40, 20 epochs, from scratch: the
  released script does not train the experts first. num_classes C: 6 for mortality, 2 for ICD-9.
  """
  alone = {
    "static": Chain((MLP(10, (10,), "none", linear=True), _mlp(40))),
    "series": Chain((GRU(30, "all", 15), _mlp(40))),
  }
  joint = {"static": MLP(10, (10,), "none", linear=True), "series": GRU(30, "all")}
  tx = optax.chain(
    train.clip_global_norm(CLIP),
    optax.scale_by_rms(decay=0.99, eps=1e-8, initial_scale=0.0, eps_in_sqrt=False),
    optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=1e-3),
  )
  return Recipe(
    LateFusion(alone, num_classes),
    LateFusion(joint, num_classes, Early((40,))),
    tx=tx,
    intra_tx=tx,
    expert_tx={"static": tx, "series": tx, "joint": tx},
    pretrained=False,
    epochs=20,
    batch_size=40,
    patience=7,
  )
