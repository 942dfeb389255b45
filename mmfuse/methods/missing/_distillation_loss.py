"""What modality distillation minimises: distances to a teacher, reconstructions, and the task.

Wei, Luo and Luo, One-stage Modality Distillation for Incomplete Multimodal Learning, arXiv 2309.08204,
2023. Of the authors' code is how the distances are measured; which terms are added up is ours.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmfuse import objectives, train
from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.methods.missing._two_branches import Branches, Restoration, Translated, own_logits
from mmfuse.names import MULTILABEL
from mmfuse.objectives._distillation import mean_square
from mmfuse.train._lens import FROZEN
from mmfuse.tree import FUSED

MATCHES = ("mmd", "jmmd", "pkt")
TEACHER = "teacher"  # the part that the student reads


@dataclasses.dataclass(frozen=True)
class Terms:
  """The weighted terms of the objective."""

  branches: Branches
  task: str
  match: str
  logits: str
  temperature: float
  mmd_weight: float
  logit_weight: float
  rec_weight: float
  stop_targets: bool

  def restoring(self, g: Restoration, told: Outputs, batch: Batch) -> dict[str, jax.Array]:
    """{"match", "logits"}: of the restored branch to the teacher, over rows that have both modalities."""
    (other,) = self.branches.privileged.modalities
    both = jnp.where(batch.mask[self.branches.name] & batch.mask[other], batch.weight, 0.0)
    t, q = told.features[other], own_logits(told, other)
    t = t.reshape(t.shape[0], -1)
    if self.match == "jmmd":
      apart = objectives.jmmd_loss([g.rows, g.logits], [t, q], both)
    else:
      apart = {"mmd": objectives.mmd_loss, "pkt": objectives.pkt_mmd_loss}[self.match](
        g.rows, t, both
      )
    differ = objectives.logit_distillation(
      self._distributions(g.logits),
      self._distributions(q),
      both,
      kind=self.logits,
      temperature=self.temperature,
    )
    return {"match": self.mmd_weight * apart, "logits": self.logit_weight * differ}

  def translating(self, g: Restoration, said: Translated, batch: Batch) -> dict[str, jax.Array]:
    """{"fused", "reconstruction"}, over rows that have the available modality."""
    here = batch.mask[self.branches.name]
    target = jax.lax.stop_gradient if self.stop_targets else lambda h: h
    rows = mean_square(said.joint_own, target(said.own))
    rows += mean_square(said.joint_restored, target(g.features))
    label = jnp.where(here, label_weight(batch), 0.0)
    rec = objectives.weighted_mean(rows, jnp.where(here, batch.weight, 0.0))
    fused = objectives.weighted_mean(objectives.row_losses(said.logits, batch.label), label)
    return {FUSED: fused, "reconstruction": self.rec_weight * rec}

  def _distributions(self, z: jax.Array) -> jax.Array:
    """Logits [B, C]; those of labels that are told one by one [B, L, 2], where they are distributions."""
    several = self.logits == "kl" and self.task == MULTILABEL
    return jnp.stack([jnp.zeros_like(z), z], axis=-1) if several else z


@dataclasses.dataclass(frozen=True)
class Loss:
  """What a phase of the student minimises: the sum of the terms of what it trains."""

  terms: Terms
  restores: bool = True  # the restored branch; False: frozen, in evaluation mode
  translates: bool = True  # the other one and the block between them

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock
    terms, branches = self.terms, self.terms.branches
    given, rngs = (batch.inputs, batch.mask), {"dropout": key}
    g, stats = branches.restore(
      variables, *given, train=self.restores, rngs=rngs if self.restores else None
    )
    losses: dict[str, jax.Array] = {}
    if self.restores:
      teacher = train.weights_of(memory[FROZEN][TEACHER])
      told = train.outputs_of(branches.privileged, teacher, *given)
      losses |= terms.restoring(g, told, batch)
    if self.translates:
      variables = {**variables, "batch_stats": stats}
      said, stats = branches.translate(variables, g.features, *given, train=True, rngs=rngs)
      losses |= terms.translating(g, said, batch)
    log = {f"loss/{name}": loss for name, loss in losses.items()}
    return sum(losses.values(), jnp.zeros(())), train.Aux(stats, log=log)
