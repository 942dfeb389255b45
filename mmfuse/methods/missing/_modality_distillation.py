"""Modality distillation: one modality at test, taught by another one that training rows have as well.

Wei, Luo and Luo, One-stage Modality Distillation for Incomplete Multimodal Learning, arXiv 2309.08204,
2023. Reconstructed: the body of the paper could not be read and its training script is not public, so that
the pairing of the terms and all weights are ours. The network is in `_two_branches.py`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import fusion, objectives, tasks, train
from mmfuse.core import LAST, Batch, Method, Outputs, Unavailable
from mmfuse.methods.missing._distillation_loss import MATCHES, TEACHER, Loss, Terms
from mmfuse.methods.missing._two_branches import RESTORED, Branches
from mmfuse.names import CLASSIFICATION, REGRESSION
from mmfuse.objectives._distillation import check_kind

STUDENT = "student"


def modality_distillation(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  available: str | None = None,
  privileged: str | None = None,
  two_stage: bool = False,
  match: str = "mmd",
  logits: str = "mse",
  temperature: float = 1.0,
  mmd_weight: float = 1.0,
  logit_weight: float = 1.0,
  rec_weight: float = 1.0,
  stop_targets: bool = False,
  share: float = 0.5,
) -> Method:
  r"""Phase "teacher/train": CE(q) of the privileged x'. Phase "student/train", x' for the teacher alone:

  L = CE(o) + mmd_weight MMD^2(g, t) + logit_weight D(r, q) + rec_weight [R(joint_a, a) + R(joint_g, g)].

  t and q are features and logits of the teacher, frozen and in evaluation mode; g and r those of a branch
  that reads the available x in its place; a features of a second encoder of x; joints and o come from
  the block of cross translation over a and g (`Branches`). The block stands once, after the encoders (the
  authors': after each of five stages). R is the mean square. MMD and D are over the rows that have
  both modalities, CE and R over those that have x. With two_stage "student/restored" learns g and r
  first, by MMD and D, and "student/train" the rest, g being frozen and in evaluation mode.

  Prediction reads x alone: it has logits and the uni-modal logits of x, 0 without x. So is it
  selected: "accuracy@<available>"; earlier phases hand on their last epoch, so that x' of validation
  rows is never read. Two modalities, or more, of which the others are not read; labels of any task.

  Args:
    model: a `core.Model` that can be restricted.
    tx: the optimiser of each phase's parameters.
    task: what the labels are; default classification.
    available, privileged: x and x', no default; of two modalities `privileged` is the other one.
    two_stage: default False, one stage.
    match: of g and t: "mmd" (default), "jmmd" of features and raw logits together, "pkt" of similarities;
      see `objectives.mmd_loss`, `jmmd_loss`, `pkt_mmd_loss`.
    logits: D, "mse" (default) or "kl", see `objectives.logit_distillation`; the authors' code has both.
    temperature: of "kl", default 1.
    mmd_weight, logit_weight, rec_weight: default 1 each (ours); all 0: two encoders of x trained by CE.
    stop_targets: a and g are constants as targets of R; default False.
    share: of the epochs for the teacher, default .5 (ours); stages share the rest evenly.

  Raises:
    ValueError: an unknown modality or option, a negative weight, a share outside (0, 1).
    Unavailable: one modality; `available`, or of more than two `privileged`, is not said; a model that
      cannot be restricted; at `init` one without uni-modal heads; "kl" of real numbers.
  """
  weights = {"mmd_weight": mmd_weight, "logit_weight": logit_weight, "rec_weight": rec_weight}
  _check(weights, match, share)
  check_kind(logits, temperature)
  if logits == "kl" and task == REGRESSION:
    raise Unavailable('logits="kl" compares distributions, and labels are real numbers; use "mse"')
  x, other = _chosen(model, available, privileged)
  branches = Branches(model.restrict((x,)), model.restrict((other,)))
  terms = Terms(branches, task, match, logits, temperature, stop_targets=stop_targets, **weights)
  taught = train.supervised(
    branches.privileged, objectives.unimodal, tx, predict=fusion.mean_logits
  )
  taught = taught._replace(phases=(train.only_phase(taught)._replace(select=LAST),))
  methods = {
    TEACHER: train.with_share(taught, share),
    STUDENT: train.with_share(_student(terms, tx, two_stage), 1 - share),
  }
  return train.parts(methods, predict=STUDENT, freeze=(TEACHER,))


def _check(weights: Mapping[str, float], match: str, share: float) -> None:
  for name, weight in weights.items():
    if not weight >= 0:
      raise ValueError(f"{name} must not be negative, got {weight}")
  if match not in MATCHES:
    raise ValueError(f"unknown match {match!r}; expected one of: {', '.join(MATCHES)}")
  if not 0 < share < 1:
    raise ValueError(f"share must lie in (0, 1), got {share}")


def _chosen(model: Any, available: str | None, privileged: str | None) -> tuple[str, str]:
  """(available, privileged), checked."""
  names = sorted(model.modalities)
  if len(names) < 2:
    raise Unavailable("modality_distillation is taught by a second modality, and there is only one")
  if getattr(model, "restrict", None) is None:
    raise Unavailable("modality_distillation needs a model that can be restricted to a modality")
  known = ", ".join(names)
  for name in (available, privileged):
    if name is not None and name not in names:
      raise ValueError(f"modality {name!r} not in the model; available: {known}")
  others = [n for n in names if n != available]
  if available is None or (privileged is None and len(others) > 1):
    also = "" if len(names) == 2 else ", and privileged=, the one that teaches"
    raise Unavailable(
      f"modality_distillation must be told available=, the one modality that is there at test{also}; "
      f"there are: {known}"
    )
  if privileged == available:
    raise ValueError(f"available and privileged must differ, both are {available!r}")
  return available, others[0] if privileged is None else privileged


@dataclasses.dataclass(frozen=True)
class Init:
  """Variables of the student, and no memory."""

  branches: Branches

  def __call__(self, key: jax.Array, batch: Batch, num_rows: int):
    del num_rows
    return self.branches.init(key, batch.inputs, batch.mask), {}


@dataclasses.dataclass(frozen=True)
class Predict:
  """What the student says of the available modality alone."""

  branches: Branches

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    m, given = self.branches.name, (inputs, mask)
    g, _ = self.branches.restore(variables, *given, train=False)
    said, _ = self.branches.translate(variables, g.features, *given, train=False)
    logits = jnp.where(mask[m][:, None], said.logits, jnp.zeros((), said.logits.dtype))
    return Outputs(logits, {m: logits}, {m: said.fused})


@dataclasses.dataclass(frozen=True)
class Restored:
  """Whether a parameter is the restored branch's, or, not `mine`, one of the others."""

  modality: str
  mine: bool

  def __call__(self, path: str) -> bool:
    return path.startswith(f"{self.modality}/{RESTORED}/") == self.mine


def _student(terms: Terms, tx: optax.GradientTransformation, two_stage: bool) -> Method:
  m, init, predict = terms.branches.name, Init(terms.branches), Predict(terms.branches)
  select = f"{tasks.get(terms.task).primary}@{m}"
  if not two_stage:
    return train.minimise(init, Loss(terms), tx, predict=predict, select=select)
  first = train.alternate(
    {RESTORED: train.Player(Restored(m, True), Loss(terms, translates=False), tx)},
    init,
    predict=predict,
    name=RESTORED,
    select=LAST,
  )
  second = train.alternate(
    {"rest": train.Player(Restored(m, False), Loss(terms, restores=False), tx)},
    init,
    predict=predict,
    select=select,
  )
  return train.then(first, second)
