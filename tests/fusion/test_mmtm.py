"""MMTM: the equation by hand, absent modalities, running gates and held ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.fusion._mmtm import Mmtm

WIDTHS = {"a": 3, "b": 2, "c": 4}


def problem(num, rows=5, seed=0):
  """(module, variables, features, mask)."""
  rng = np.random.default_rng(seed)
  names = "abc"[:num]
  mask = {m: jnp.asarray(np.arange(rows) % 3 != i) for i, m in enumerate(names)}
  features = {
    m: jnp.asarray(rng.normal(size=(rows, WIDTHS[m])), jnp.float32) * mask[m][:, None]
    for m in names
  }
  module = Mmtm()
  variables = module.init(jax.random.key(0), features, mask, num_classes=3, train=False)
  return module, variables, features, mask


def apply(module, variables, features, mask, train=False):
  """(logits, batch statistics)."""
  if not train:
    return module.apply(variables, features, mask, num_classes=3, train=False)[0], None
  (logits, _), new = module.apply(
    variables, features, mask, num_classes=3, train=True, mutable=["batch_stats"]
  )
  return logits, new["batch_stats"]["running"]


def gates(params, features):
  """The gates in NumPy."""
  joint = np.concatenate([features[m] for m in sorted(features)], -1)
  squeezed = np.maximum(joint @ params["squeeze"]["kernel"] + params["squeeze"]["bias"], 0)
  return {
    m: 2
    / (1 + np.exp(-(squeezed @ params[f"excite_{m}"]["kernel"] + params[f"excite_{m}"]["bias"])))
    for m in features
  }


@pytest.mark.parametrize("num", [1, 2, 3])
def test_the_equation(num):
  module, variables, features, mask = problem(num)
  params = jax.tree.map(lambda p: np.asarray(p, np.float64), variables["params"])
  rows = {m: np.asarray(h, np.float64) for m, h in features.items()}
  g = gates(params, rows)
  gated = np.concatenate([g[m] * rows[m] for m in sorted(rows)], -1)
  want = gated @ params["out"]["kernel"] + params["out"]["bias"]
  np.testing.assert_allclose(apply(module, variables, features, mask)[0], want, atol=1e-5)
  assert params["squeeze"]["bias"].shape == (max(1, sum(WIDTHS[m] for m in rows) // 2),)


def test_running_gates_are_means_over_present_rows_and_steps():
  module, variables, features, mask = problem(2)
  params = jax.tree.map(np.asarray, variables["params"])
  g = gates(params, features)
  _, first = apply(module, variables, features, mask, train=True)
  want = {m: g[m][np.asarray(mask[m])].mean(0) for m in g}
  np.testing.assert_allclose(first["gate"]["a"], want["a"], rtol=1e-5)
  absent = {"a": mask["a"], "b": jnp.zeros_like(mask["b"])}
  other = {"a": 2 * features["a"], "b": jnp.zeros_like(features["b"])}
  _, second = apply(module, {**variables, "batch_stats": {"running": first}}, other, absent, True)
  np.testing.assert_array_equal(second["gate"]["b"], first["gate"]["b"])
  assert (float(second["steps"]["a"]), float(second["steps"]["b"])) == (2.0, 1.0)
  later = gates(params, other)["a"][np.asarray(mask["a"])].mean(0)
  np.testing.assert_allclose(second["gate"]["a"], (want["a"] + later) / 2, rtol=1e-5)


def test_a_held_gate_is_the_running_one_in_training_alone():
  module, variables, features, mask = problem(2)
  mean = np.array([0.5, 1.0, 1.5], np.float32)
  running = variables["batch_stats"]["running"]
  held = {
    "gate": {**running["gate"], "a": jnp.asarray(mean)},
    "steps": running["steps"],
    "held": {"a": jnp.float32(1), "b": jnp.float32(0)},
  }
  held_variables = {**variables, "batch_stats": {"running": held}}
  params = jax.tree.map(np.asarray, variables["params"])
  rows = {m: np.asarray(h) for m, h in features.items()}
  gated = np.concatenate([mean * rows["a"], gates(params, rows)["b"] * rows["b"]], -1)
  want = gated @ params["out"]["kernel"] + params["out"]["bias"]
  np.testing.assert_allclose(
    apply(module, held_variables, features, mask, True)[0], want, atol=1e-5
  )
  np.testing.assert_array_equal(
    apply(module, held_variables, features, mask)[0], apply(module, variables, features, mask)[0]
  )

  def loss(params):
    return apply(module, {**held_variables, "params": params}, features, mask, True)[0].sum()

  grads = jax.grad(loss)(variables["params"])
  np.testing.assert_array_equal(grads["excite_a"]["kernel"], 0.0)
  assert np.abs(grads["excite_b"]["kernel"]).max() > 0


def test_the_ratio_must_be_positive():
  with pytest.raises(ValueError, match="ratio"):
    Mmtm(ratio=0.0)
