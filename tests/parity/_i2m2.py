"""I2M2 on parity cases: combinations of experts, its training loop, and its encoders."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import encoders, fusion, masks, metrics, objectives, train
from mmfuse.core import Batch, Clock
from mmfuse.methods import METHODS

from ._cases import Case


def _float(x):
  return jnp.asarray(x, jnp.float32)


def _linear(weights: dict, name: str) -> dict:
  """A torch layer [out, in] as a Linen one."""
  return {
    "kernel": _float(weights[f"{name}.weight"]).T,
    "bias": _float(weights[f"{name}.bias"]),
  }


def _under(case: Case, prefix: str) -> dict:
  found = {k: v for k, v in case.inputs.items() if k.startswith(prefix)}
  return {k.removeprefix(prefix): v for k, v in found.items()}


def _loss(log_probs, case: Case):
  labels = jnp.asarray(case.inputs["labels"], jnp.int32)
  return objectives.row_losses(log_probs, labels).mean()


def _product(logits: dict, case: Case):
  """(log-probabilities, loss, clipped gradients by expert)."""
  value = lambda z: _loss(fusion.combine_experts(z), case)
  loss, grads = jax.value_and_grad(value)(logits)
  if "clip_norm" in case.hp:
    clip = train.clip_global_norm(float(case.hp["clip_norm"]))
    grads, _ = clip.update(grads, clip.init(logits))
    # Theirs were read off a step of SGD with rate 1 on the logits, whose rounding they carry.
    grads = {e: z - optax.apply_updates(z, -grads[e]) for e, z in logits.items()}
  return fusion.combine_experts(logits), loss, grads


def product(case: Case) -> dict:
  """`logits_<expert>` [B, C] each -> the product, its loss, `grad_<expert>`, the mixture."""
  logits = {e: _float(z) for e, z in _under(case, "logits_").items()}
  log_probs, loss, grads = _product(logits, case)
  return {
    "log_probs": log_probs,
    "log_probs_train": log_probs,
    "loss": loss,
    "log_mixture_test": fusion.mix_experts(logits),
  } | {f"grad_{e}": g for e, g in grads.items()}


def stacked_product(case: Case) -> dict:
  """The same with `logits` [E, B, C]."""
  stacked = _float(case.inputs["logits"])
  names = [f"{i:03}" for i in range(len(stacked))]
  log_probs, loss, grads = _product(dict(zip(names, stacked)), case)
  return {"log_probs": log_probs, "loss": loss, "grads": jnp.stack([grads[n] for n in names])}


def vqa_head(case: Case) -> dict:
  """Three heads on features; the product goes as a logit into a cross-entropy per answer."""
  logits = {}
  weights = _under(case, "w.")
  for name, at in (("joint", "cat_model"), ("image", "image_model"), ("text", "text_model")):
    x = _float(case.inputs[f"x_{name}"])
    norm = {"scale": _float(weights[f"{at}.1.weight"]), "bias": _float(weights[f"{at}.1.bias"])}
    params = {
      "dense0": _linear(weights, f"{at}.0"),
      "norm0": norm,
      "out": _linear(weights, f"{at}.3"),
    }
    width, classes = params["out"]["kernel"].shape
    head = fusion.ExpertHead(classes, width)
    logits[name] = head.apply({"params": params}, x, jnp.ones(len(x), bool), train=False)
  log_probs = fusion.combine_experts(logits)
  answers = optax.sigmoid_binary_cross_entropy(log_probs, _float(case.inputs["targets"]))
  loss = answers.mean() * log_probs.shape[-1]
  return {"log_probs": log_probs, "vqa_loss": loss} | {f"logits_{e}": z for e, z in logits.items()}


class _Layers(nn.Module):
  """Linear layers fc0, fc1...; those of `relu` are followed by one."""

  widths: tuple[int, ...]
  relu: tuple[int, ...]

  @nn.compact
  def __call__(self, x, mask, *, train):
    for i, width in enumerate(self.widths):
      x = nn.Dense(width, name=f"fc{i}")(x)
      x = nn.relu(x) if i in self.relu else x
    return x


def _optimiser(hp: dict) -> optax.GradientTransformation:
  clip, decay = train.clip_global_norm(float(hp["clip_norm"])), hp["weight_decay"]
  if hp["optimizer"] == "SGD":
    direction = optax.sgd(hp["lr"])
  else:
    assert hp["optimizer"] == "RMSprop"
    direction = optax.rmsprop(hp["lr"], decay=0.99, eps=1e-8, eps_in_sqrt=False, initial_scale=0.0)
  return optax.chain(clip, optax.add_decayed_weights(decay), direction)


def epochs(case: Case) -> dict:
  """Steps of the method from scratch; each expert has encoders of its own."""
  names = sorted(k for k in case.inputs if k.startswith("x"))
  weights = _under(case, "w0.")
  width = lambda name: weights[f"{name}.bias"].shape[0]
  classes = width("inter.head.fc2")
  own, shared, places = (
    {},
    {},
    {"inter.head.fc": ("heads", "fused", "dense0"), "inter.head.fc2": ("heads", "fused", "out")},
  )
  for i, m in enumerate(names):
    alone, joint = f"uni{i}", f"inter.encoders.{i}"
    layers = (f"{alone}.0.fc", f"{alone}.0.fc2", f"{alone}.1.fc")
    own[m] = _Layers(tuple(width(n) for n in layers), (0, 2))
    shared[m] = _Layers((width(f"{joint}.fc"), width(f"{joint}.fc2")), (0,))
    places |= {n: (m, "alone", m, f"fc{j}") for j, n in enumerate(layers)}
    places[f"{alone}.1.fc2"] = (m, "alone", "heads", m)
    places |= {f"{joint}.fc": (m, "joint", "fc0"), f"{joint}.fc2": (m, "joint", "fc1")}
  method = METHODS["i2m2"](
    fusion.LateFusion(own, classes),
    tx=_optimiser(case.hp),
    joint=fusion.LateFusion(shared, classes, fusion.Early((width("inter.head.fc"),))),
    pretrained=False,
  )
  labels = jnp.asarray(case.inputs["labels"], jnp.int32)
  steps, size = labels.shape

  def batch(i):
    inputs = {m: _float(case.inputs[m][i]) for m in names}
    return Batch(inputs, labels[i], masks.full(names, size), jnp.ones(size), jnp.arange(size))

  state = train.initial(method, jax.random.key(0), batch(0))
  params = jax.tree.map(lambda x: x, state.params)
  for name, path in places.items():
    _at(params, path[:-1])[path[-1]] = _linear(weights, name)
  state, losses = state._replace(params=params), []
  step = jax.jit(method.phases[-1].step)
  for i in range(steps):
    clock = Clock(*(jnp.int32(n) for n in (i, 0, i, steps, 1)))
    state, log = step(state, batch(i), jax.random.key(i), clock)
    losses.append(log["loss/fused"])
  out = {"losses": jnp.stack(losses)}
  for name, path in places.items():
    layer = _at(state.params, path)
    out |= {f"w1.{name}.weight": layer["kernel"].T, f"w1.{name}.bias": layer["bias"]}
  return out


def _at(tree, path):
  for key in path:
    tree = tree[key]
  return tree


def lenet(case: Case) -> dict:
  """Both modes; torch's running variance is unbiased, ours biased: its gain times n / (n - 1)."""
  x = jnp.moveaxis(_float(case.inputs["x_nchw"]), 1, -1)
  blocks = case.hp["additional_layers"] + 1
  weights = {k: _float(v) for k, v in _under(case, "w.").items()}
  params, stats = {}, {}
  for i in range(blocks):
    params[f"conv{i}"] = {"kernel": weights[f"convs.{i}.weight"].transpose(2, 3, 1, 0)}
    params[f"norm{i}"] = {"scale": weights[f"bns.{i}.weight"], "bias": weights[f"bns.{i}.bias"]}
    stats[f"norm{i}"] = {
      "mean": weights[f"bns.{i}.running_mean"],
      "var": weights[f"bns.{i}.running_var"],
    }
  model = encoders.LeNet(case.hp["channels"], case.hp["additional_layers"])
  variables, mask = {"params": params, "batch_stats": stats}, jnp.ones(len(x), bool)
  trained, new = model.apply(variables, x, mask, train=True, mutable=["batch_stats"])
  out = {"eval": model.apply(variables, x, mask, train=False), "train": trained}
  height, wide = x.shape[1:3]
  for i in range(blocks):
    old, moved, n = stats[f"norm{i}"], new["batch_stats"][f"norm{i}"], len(x) * height * wide
    kept = 0.9 * old["var"]
    out[f"after_train.bns.{i}.running_mean"] = moved["mean"]
    out[f"after_train.bns.{i}.running_var"] = kept + (moved["var"] - kept) * n / (n - 1)
    height, wide = height // 2, wide // 2
  return {k: v.reshape(case.outputs[k].shape) for k, v in out.items()}


def gru(case: Case) -> dict:
  """All hidden states, through a linear layer where the case has one, flattened."""
  w = {k: _float(v) for k, v in _under(case, "w.").items()}
  names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
  parts = {k: jnp.split(w[f"gru.{k}_l0"], 3) for k in names}
  cell = {}
  for j, gate in enumerate("rzn"):
    into, own = parts["bias_ih"][j], parts["bias_hh"][j]
    new = gate == "n"
    cell[f"i{gate}"] = {"kernel": parts["weight_ih"][j].T, "bias": into if new else into + own}
    cell[f"h{gate}"] = {"kernel": parts["weight_hh"][j].T} | ({"bias": own} if new else {})
  params = {"cell": cell}
  if "linear.weight" in w:
    params["project"] = _linear(w, "linear")
  project = w["linear.bias"].shape[0] if "linear.bias" in w else 0
  x = _float(case.inputs["x"])
  model = encoders.GRU(case.hp["hidden"], pool="all", project=project)
  return {"y": model.apply({"params": params}, x, jnp.ones(len(x), bool), train=False)}


def auprc(case: Case) -> dict:
  labels = np.asarray(case.inputs["labels"]).astype(int)
  return {"ap": metrics.average_precision(case.inputs["scores"], labels)}
