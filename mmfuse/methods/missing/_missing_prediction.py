"""Missing modality prediction: the embedding of an absent modality is predicted from those that are there.

Kim and Kim, Missing Modality Prediction for Unpaired Multimodal Learning via Joint Embedding of Unimodal
Models, ECCV 2024. Encoders that were trained alone stay, but for biases; prompts that only read feed the
predictors, and VICReg makes a prediction and the embedding alike. Reconstructed: sizes, depth and
coefficients of the paper are not known to us.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, objectives, train
from mmfuse.core import Batch, Method, Outputs, Unavailable
from mmfuse.methods.missing import _prompted
from mmfuse.methods.missing._prompted import PREDICTIONS, PREDICTORS
from mmfuse.tree import FUSED, HEADS

ENCODERS = "encoders"  # the first phase
SCALING = 0.04  # 1 / 25: the squared error counts once. With 1, plain SGD at a rate of .1 diverges


@dataclasses.dataclass(frozen=True)
class Predicted:
  r"""CE(fused) and scaling / (M - 1) \sum_{n != m} VICReg(g_nm(u_n), h_m), over the rows that have n and m.

  Args:
    scaling: lambda.
    sim, std, cov: of `objectives.vicreg_loss`.
    stop_target: whether h_m passes no gradient.
  """

  scaling: float
  sim: float
  std: float
  cov: float
  stop_target: bool

  def __call__(self, outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
    del extra
    distances = []
    for m, found in outputs.aux[PREDICTIONS].items():
      h = outputs.features[m]
      target = jax.lax.stop_gradient(h) if self.stop_target else h
      for n, prediction in found.items():
        both = jnp.where(batch.mask[n] & batch.mask[m], batch.weight, 0.0)
        distances.append(
          objectives.vicreg_loss(prediction, target, both, sim=self.sim, std=self.std, cov=self.cov)
        )
    fused = objectives.fused(outputs, batch)[FUSED]
    total = sum(distances, jnp.zeros((), jnp.float32))
    return {FUSED: fused, "prediction": self.scaling * total / (len(outputs.features) - 1)}


@dataclasses.dataclass(frozen=True)
class _Alone:
  """The leaves of the first phase: encoders without their prompts, and the head of each modality."""

  modalities: tuple[str, ...]

  def __call__(self, path: str) -> bool:
    words = path.split("/")
    if words[0] == HEADS:
      return words[1] in self.modalities
    return words[0] in self.modalities and words[-1] != "prompts"


@dataclasses.dataclass(frozen=True)
class _Joint:
  """The leaves of the second phase: all but what is frozen."""

  modalities: tuple[str, ...]

  def __call__(self, path: str) -> bool:
    return not _prompted.is_frozen(path, self.modalities)


def missing_prediction(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  scaling: float = SCALING,
  share: float = 0.5,
  sim: float = 25.0,
  std: float = 25.0,
  cov: float = 1.0,
  stop_target: bool = False,
  prompts: int = 4,
  activation: str = "gelu",
  features: int = 32,
  layers: int = 2,
  heads: int = 4,
  dropout: float = 0.1,
) -> Method:
  r"""Phase "encoders": \sum_m CE(z_m), each encoder alone with a linear head. Phase "train":

  L = CE(fused) + scaling \sum_{n != m} VICReg(g_nm(u_n), h_m) / (M - 1), z = [h_1; ...; h_M] W + b.

  Encoders are Transformers of the method's own over tokens (`encoders.Tokens`: a vector in 8 segments, an
  image in 4 x 4 patches, a sequence's steps, words through an embedding); h_m is the mean of their
  tokens, u_m that of `prompts` read-only prompts. In the second phase the encoders' weights are frozen,
  without decay, and their biases, those of norms too, are trained with the prompts, an MLP g_nm a pair
  and the fused head, in half of the epochs. Where m is absent, h_m is the mean of g_nm(u_n) over the n
  that are there, in training too, where such rows count in CE(fused) alone. With all modalities a
  prediction changes nothing. VICReg is over the rows of a batch that have n and m, 0 for fewer than two.
  The paper starts from public encoders instead of a phase of its own, and its own numbers are not
  known to us: all defaults but VICReg's are ours. Two modalities or more, labels of any task; modality
  columns are linear probes of h_m after the first phase, whose best epoch is that of their mean logits.

  Args:
    model: its modalities, the width of its logits and the vocabulary of an `Embedding` are read; its
      encoders and fusion are not used.
    tx: the optimiser of what a phase moves.
    scaling: lambda, default .04, so that the squared error counts once beside CE(fused).
    share: of the epochs for the first phase, default .5.
    sim, std, cov: of VICReg, default 25, 25, 1 (its authors'); 25, 0, 0 is a squared error.
    stop_target: whether h_m passes no gradient in VICReg, default False.
    prompts: P of each encoder, default 4.
    activation: of g, "gelu" (default, exact) or "relu"; its widths are D, 2 D, D.
    features, layers, heads, dropout: of the Transformers, default 32, 2, 4 and .1.

  Raises:
    ValueError: negative scaling or coefficients, no prompt, an unknown activation, a share outside (0, 1).
    Unavailable: one modality, one called "predictors"; at `init` integers without an `Embedding`.
  """
  _check(scaling, sim, std, cov, prompts, activation)
  names = tuple(sorted(model.modalities))
  if len(names) < 2:
    raise Unavailable("missing_prediction predicts modalities from others, and there is only one")
  if PREDICTORS in names:
    raise Unavailable(f"a modality is called {PREDICTORS!r}, which is where predictors are kept")
  alone = _prompted.prompted(
    model,
    activation=activation,
    prompts=prompts,
    features=features,
    layers=layers,
    heads=heads,
    dropout=dropout,
  )
  first = train.supervised(
    alone,
    objectives.unimodal,
    train.moving_only(tx, _Alone(names)),
    predict=fusion.mean_logits,
    name=ENCODERS,
  )
  second = train.supervised(
    dataclasses.replace(alone, biases=True),
    Predicted(scaling, sim, std, cov, stop_target),
    train.moving_only(tx, _Joint(names)),
  )
  return train.then(first, second, share)


def _check(scaling: float, sim: float, std: float, cov: float, prompts: int, activation: str):
  for name, value in {"scaling": scaling, "sim": sim, "std": std, "cov": cov}.items():
    if value < 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  if prompts < 1:
    raise ValueError(f"prompts must be at least 1, got {prompts}")
  if activation not in _prompted.ACTIVATIONS:
    known = ", ".join(_prompted.ACTIVATIONS)
    raise ValueError(f"unknown activation {activation!r}; expected one of: {known}")
