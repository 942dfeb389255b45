"""MMANet's losses, mining, masks and learning rates on parity cases."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks, objectives
from mmfuse.methods.missing import _mining, recipes
from mmfuse.objectives._margin import entropy_weights, teacher_entropy

from ._cases import Case


def _arrays(case: Case, *names: str) -> list[jax.Array]:
  return [jnp.asarray(case.inputs[n]) for n in names]


def _with_gradient(loss, student) -> dict:
  value, gradient = jax.value_and_grad(loss)(student)
  return {"loss": value, "grad_student": gradient}


def margin(case: Case) -> dict:
  """Classification: as released, weights on the columns and nothing guarded."""
  student, teacher, logits = _arrays(case, "student", "teacher", "teacher_logits")
  loss = lambda s: objectives.margin_distillation(
    s, teacher, logits, weight_axis="column", variant="released"
  )
  entropy = teacher_entropy(logits, "released")
  weights = entropy_weights(entropy, jnp.ones(len(entropy)), "released")
  return {**_with_gradient(loss, student), "weights": weights}


def similarity(case: Case) -> dict:
  """Without weights."""
  student, teacher = _arrays(case, "student", "teacher")
  loss = lambda s: objectives.similarity_distillation(s, teacher, variant="released")
  return _with_gradient(loss, student)


def dense_rows(case: Case) -> dict:
  """Pixels as rows, already of one size: a map of height 1."""
  student, teacher, logits = _arrays(case, "student", "teacher", "teacher_logits")
  image = lambda x: x[None, None]
  loss = lambda s: objectives.dense_margin_distillation(
    image(s), image(teacher), image(logits), variant="released"
  )
  return _with_gradient(loss, student)


def dense_maps(case: Case) -> dict:
  """Channels first there."""
  student, teacher, logits = _arrays(case, "student_map", "teacher_map", "teacher_logit_map")
  last = lambda x: jnp.moveaxis(x, 1, -1)
  loss = lambda s: objectives.dense_margin_distillation(
    last(s), last(teacher), last(logits), variant="released"
  )
  return _with_gradient(loss, student)


def _rows(mask) -> dict:
  """{m: bool [B]} of an array [B, M]; names sort as the columns do."""
  return {f"m{i:02}": mask[:, i] > 0 for i in range(mask.shape[1])}


def weak_loss(case: Case) -> dict:
  """Both forms of the loss of weak rows."""
  logits, label, mask, combos = _arrays(case, "aux_logits", "label", "mask", "weak_combos")
  hard = _mining.is_weak(_rows(mask), combos > 0)
  out = {}
  for variant in ("released", "intended"):

    def loss(z, variant=variant):
      rows = objectives.row_losses(z, label)
      return objectives.hard_combination_loss(rows, hard, jnp.ones(len(rows)), variant=variant)

    out[variant], out[f"{variant}_grad"] = jax.value_and_grad(loss)(logits)
  return out


def mining(case: Case) -> dict:
  """predicted_labels [epochs, candidates and the complete input, rows]."""
  number = int(case.hp["n_classes"])
  count = lambda labels: np.bincount(labels, minlength=number)
  subsets = np.asarray(case.hp["candidates"], bool)
  distance = np.zeros(len(subsets))
  for epoch in case.inputs["predicted_labels"]:
    *each, whole = [count(labels) for labels in epoch]
    distance += _mining.histogram_distance(np.stack(each), whole)
  weak = _mining.with_singles(subsets[int(np.argmax(distance))])
  return {"distance": distance, "weak_combos": weak.astype(int)}


def segmentation_mining(case: Case) -> dict:
  """miou [epochs, candidates and the complete input]."""
  miou = case.inputs["miou"]
  distance = _mining.score_gap(miou[:, :-1], miou[:, -1]).sum(0)
  return {"distance": distance, "weak_index": np.argmax(distance)}


def total(case: Case) -> dict:
  """The student's loss, before and after the warm-up."""
  label, teacher, teacher_logits, weak = _arrays(case, "label", "teacher", "teacher_logits", "weak")
  count = jnp.ones(len(label))

  def loss(logits, student, aux):
    rows = lambda z: objectives.row_losses(z, label)
    similar = objectives.margin_distillation(
      student, teacher, teacher_logits, weight_axis="column", variant="released"
    )
    hard = objectives.hard_combination_loss(rows(aux), weak > 0, count)
    task = objectives.weighted_mean(rows(logits), count)
    return task + case.hp["mar_scale"] * hard + case.hp["mad_scale"] * similar, task

  given = _arrays(case, "logits", "student", "aux_logits")
  (value, task), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*given)
  names = ("grad_logits", "grad_student", "grad_aux")
  return {"total": value, "warmup_total": task, **dict(zip(names, grads))}


def schedule(case: Case) -> dict:
  """The rate in force in each epoch."""
  factor = recipes.warm_up_and_steps(
    jnp.asarray(case.inputs["epoch"]),
    int(case.hp["epochs"]),
    warm_up=int(case.hp["warmup_epochs"]),
    gamma=case.hp["gamma"],
  )
  return {"lr": case.hp["base_lr"] * factor}


def dropped(case: Case) -> dict:
  """`combo_index` counts the subsets in the tables' order; modalities come as in the case."""
  names = [n for n in case.inputs if n != "combo_index"]
  order = [n for n in ("rgb", "depth", "ir") if n in names]
  order += [n for n in names if n not in order]
  subsets = masks.combinations(order)
  table = jnp.asarray([[m in s for m in order] for s in subsets])
  rows = table[jnp.asarray(case.inputs["combo_index"])]
  keep = dict(zip(order, rows.T))
  filled = masks.fill({m: jnp.asarray(case.inputs[m]) for m in order}, keep)
  return {**filled, "mask": rows.astype(jnp.float32)}
