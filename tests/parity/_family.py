"""The balancing family's losses and schedules: each function maps a case to {output: value}."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse.core import Batch
from mmfuse.fusion._cosine import cosine_logits
from mmfuse.methods.balancing._amco_masks import amco_ratio, num_masked
from mmfuse.methods.balancing._lfm_loss import alignment
from mmfuse.methods.balancing._opm_rates import opm_drop_rates
from mmfuse.methods.balancing._reconboost_losses import agreement_loss, reconboost_loss
from mmfuse.objectives import weighted_mean
from mmfuse.objectives._cml import ranking_penalty
from mmfuse.objectives._mbsd import branch_losses, mutual_distillation

from ._cases import Case


def _named(case: Case, prefix: str) -> dict:
  """{name: array} of the inputs `<prefix><name>`, in the order they were given."""
  found = {k.removeprefix(prefix): v for k, v in case.inputs.items() if k.startswith(prefix)}
  return {k: jnp.asarray(v, jnp.float32) for k, v in found.items()}


def _label(case: Case):
  return jnp.asarray(case.inputs["label"], jnp.int32)


def _full(case: Case, names):
  """Every modality present in every row: (mask, weight)."""
  rows = case.inputs["label"].shape[0]
  return {m: jnp.ones(rows, bool) for m in names}, jnp.ones(rows)


def _cross_entropy(logits, label):
  return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def _with_gradients(loss, logits: dict) -> dict:
  value, grads = jax.value_and_grad(loss)(logits)
  return {"loss": value} | {f"grad_{m}": g for m, g in grads.items()}


def cml(case: Case) -> dict:
  """`in/bias`, `hp/removal_order`: indices of modalities as they are removed."""
  logits, label = _named(case, "logits_"), _label(case)
  names = [m for m in logits if m != "output"]
  weight, order = jnp.ones(label.shape[0]), np.atleast_1d(case.hp["removal_order"])
  share = jnp.asarray(case.inputs["bias"], jnp.float32)[None] / len(names)

  def loss(logits):
    chain = [logits["output"]]
    for i in order:
      chain.append(chain[-1] - logits[names[int(i)]] + share)
    fitted = sum(_cross_entropy(z, label) for z in chain) / len(chain)
    return fitted + case.hp["lam"] * ranking_penalty(chain, [weight] * len(chain))

  return _with_gradients(loss, logits)


def mbsd(case: Case) -> dict:
  logits, label = _named(case, "logits_"), _label(case)
  mask, weight = _full(case, logits)

  def loss(logits):
    branches = {m: z for m, z in logits.items() if m != "output"}
    batch = Batch({}, label, mask, weight, jnp.arange(label.shape[0]))
    return (
      _cross_entropy(logits["output"], label)
      + branch_losses(branches, batch)
      + mutual_distillation(branches, label, mask, weight)
    )

  return _with_gradients(loss, logits)


def lfm(case: Case) -> dict:
  logits, label = _named(case, "logits_"), _label(case)
  mask, weight = _full(case, logits)

  def loss(logits):
    branches = {m: z for m, z in logits.items() if m != "output"}
    fused = _cross_entropy(logits["output"], label)
    return 2 * (case.hp["a0"] * fused + case.hp["a1"] * alignment(branches, mask, weight))

  return _with_gradients(loss, logits)


def mmcosine(case: Case) -> dict:
  """`in/head_weight` [C, sum D], its blocks in the order of the features given."""
  features, label = _named(case, "feat_"), _label(case)
  weight = jnp.asarray(case.inputs["head_weight"], jnp.float32)
  place = {m: f"{i}" for i, m in enumerate(features)}  # sorted as given, up to ten

  def run(weight, features):
    found = cosine_logits({place[m]: h for m, h in features.items()}, weight.T, case.hp["scaling"])
    return {m: found[place[m]] for m in features}

  def loss(weight, features):
    split = run(weight, features)
    return _cross_entropy(sum(split.values()), label), split

  (value, split), (of_weight, of_features) = jax.value_and_grad(loss, (0, 1), has_aux=True)(
    weight, features
  )
  out = {f"logits_{m}": z for m, z in split.items()} | {"logits_output": sum(split.values())}
  out |= {f"grad_feat_{m}": g for m, g in of_features.items()}
  return out | {"loss": value, "grad_head_weight": of_weight}


def reconboost(case: Case) -> dict:
  """The first modality given is active, the last one is the one before it."""
  logits, label, hp = _named(case, "logits_"), _label(case), case.hp
  active, *others = logits

  def rows(z):
    ensemble = hp["boost_rate"] * sum(logits[m] for m in others)
    loss = reconboost_loss(z, ensemble, label, own=hp["w1"], residual=hp["w2"])
    return loss + hp["alpha"] * agreement_loss(z, logits[[*logits][-1]]).mean()

  weight = jnp.ones(label.shape[0])
  return {
    "loss_per_sample": rows(logits[active]),
    "grad_current": jax.grad(lambda z: weighted_mean(rows(z), weight))(logits[active]),
  }


def opm_rates(case: Case) -> dict:
  """The released code's: scores are sums over the batch, divided in place in the order given."""
  logits, label = _named(case, "logits_"), _label(case)
  picked = {
    m: jnp.take_along_axis(jax.nn.softmax(z), label[:, None], 1).sum() for m, z in logits.items()
  }
  rates = opm_drop_rates(
    picked, q_base=case.hp["q_base"], alpha=case.hp["alpha"], variant="released"
  )
  return {f"q_{m}": q for m, q in rates.items()}


def amco_schedule(case: Case) -> dict:
  ratio = amco_ratio(jnp.asarray(case.inputs["l"], jnp.float32), case.hp["eps"])
  return {"pt": ratio, "n_masked": num_masked(ratio, case.hp["n_classes"])}
