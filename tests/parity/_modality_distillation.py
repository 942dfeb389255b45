"""Discrepancies, translation and distillation of modality distillation on parity cases."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import objectives
from mmfuse.methods.missing._two_branches import cross_translation

from ._cases import Case


def _float(case: Case, *names: str) -> list[jax.Array]:
  return [jnp.asarray(case.inputs[n], jnp.float32) for n in names]


def _kernels(case: Case) -> dict:
  return {"factor": float(case.hp["kernel_mul"]), "kernels": int(case.hp["kernel_num"])}


def _of_student(loss, case: Case) -> dict:
  student, teacher = _float(case, "student", "teacher")
  value, gradient = jax.value_and_grad(loss)(student, teacher)
  return {"loss": value, "grad_student": gradient}


def discrepancy(case: Case) -> dict:
  loss = lambda x, y: objectives.mmd_loss(x, y, variant="released", **_kernels(case))
  value, grads = jax.value_and_grad(loss, (0, 1))(*_float(case, "source", "target"))
  return {"loss": value, "grad_source": grads[0], "grad_target": grads[1]}


def translation(case: Case) -> dict:
  """Channels first there, kernels [out, in]."""
  layers = {"first": "1", "second": "2", "join": "12"}
  weights = {}
  for name, number in layers.items():
    kernel, bias = _float(case, f"w{number}", f"b{number}")
    weights[name] = {"kernel": kernel.reshape(bias.shape[0], -1).T, "bias": bias}

  def run(m1, m2):
    last = [jnp.moveaxis(x, 1, -1) for x in (m1, m2)]
    said = [jnp.moveaxis(x, -1, 1) for x in cross_translation(weights, *last)]
    return said[0].sum(), said

  (_, said), grads = jax.value_and_grad(run, (0, 1), has_aux=True)(*_float(case, "m1", "m2"))
  names = ("fused", "joint2", "joint3", "grad_m1", "grad_m2")
  return dict(zip(names, (*said, *grads)))


def soft_target(case: Case) -> dict:
  temperature = float(case.hp["T"])
  loss = lambda z, t: objectives.logit_distillation(z, t, kind="kl", temperature=temperature)
  return _of_student(loss, case)


def logits(case: Case) -> dict:
  return _of_student(objectives.logit_distillation, case)


def similarities(case: Case) -> dict:
  loss = lambda z, t: objectives.pkt_mmd_loss(z, t, variant="released")
  return _of_student(loss, case)


def joint(case: Case) -> dict:
  """Layers in the order given; the first alone is the marginal."""
  layers = [k.removeprefix("source_") for k in case.inputs if k.startswith("source_")]
  source, target = (_float(case, *(f"{s}_{l}" for l in layers)) for s in ("source", "target"))
  options = {"variant": "released", **_kernels(case)}
  return {
    "loss": objectives.jmmd_loss(source, target, **options),
    "marginal_only": objectives.mmd_loss(source[0], target[0], **options),
  }


def sketch(case: Case) -> dict:
  """The composition of the case, which is not that of the method."""
  fused, privileged, x, y = _float(
    case, "fused_logits", "privileged_logits", "hallucinated", "privileged"
  )
  label, hp = jnp.asarray(case.inputs["label"]), case.hp
  entropy = lambda z: objectives.row_losses(z, label).mean()
  terms = {
    "ce_fused": entropy(fused),
    "ce_priv": entropy(privileged),
    "mmd": objectives.mmd_loss(x, y, variant="released"),
    "logit": objectives.logit_distillation(fused, privileged),
  }
  weight = np.asarray([1.0, 1.0, hp["w_mmd"], hp["w_logit"]], np.float32)
  return {**terms, "total": jnp.stack(list(terms.values())) @ weight}
