"""The deep network: the pathway by hand, what each phase moves, truncation, missing modalities."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import data, train
from mmfuse.core import Batch, Clock, Unavailable
from mmfuse.methods import generative
from mmfuse.methods.generative import mrbm
from mmfuse.methods.generative.mrbm import _deep_net, _layers, _mrbm, _multi_prediction

ROWS = 8
WIDTHS = {"a": 3, "b": 4}
FACTORS = _deep_net.layer_factors(2, 2.0, 2.0)
sigma = jax.nn.sigmoid


def batch(rows=ROWS):
  rng = np.random.default_rng(0)
  inputs = {m: jnp.asarray(rng.integers(0, 2, (rows, d)), jnp.float32) for m, d in WIDTHS.items()}
  mask = {m: jnp.ones(rows, bool) for m in WIDTHS}
  return Batch(inputs, None, mask, jnp.ones(rows), jnp.arange(rows))


def clock(epoch=0):
  return Clock(*(jnp.int32(v) for v in (epoch, epoch, 0, 1, 100)))


def build(**options):
  settings = {"num_hidden": 5, "widths": (6, 3), "steps": 2, "nstop": 2}
  return generative.mdrnn_deep(**{**settings, **options})


def random_params(method, rows=None, scale=40.0):
  """Of `init`, with kernels large enough for gradients to be seen, and random biases."""
  params = train.initial(method, jax.random.key(0), batch() if rows is None else rows).params
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(5), len(leaves))
  fill = lambda k, x: scale * x if x.ndim == 2 else 0.3 * jax.random.normal(k, x.shape)
  return jax.tree.unflatten(tree, [fill(k, x) for k, x in zip(keys, leaves)])


def layers_up(params, m, x):
  """By hand: u = 2 in both layers."""
  for name in ("layer1", "layer2"):
    layer = params[m][name]
    x = sigma(2 * x @ layer["kernel"] + layer["hidden"][None])
  return x


def layers_down(params, m, h):
  """By hand, logits: d = 2 in the joint and the second layer, 1 in the first."""
  top, second, first = (params[m][n] for n in ("top", "layer2", "layer1"))
  f = sigma(2 * h @ top["kernel"].T + top["bias"][None])
  f = sigma(2 * f @ second["kernel"].T + second["bias"][None])
  return f @ first["kernel"].T + first["bias"][None]


def test_factors_and_sizes():
  assert FACTORS == {"layer1": (2.0, 1.0), "layer2": (2.0, 2.0)}
  params = train.initial(build(), jax.random.key(0), batch()).params
  shape = lambda m, n: params[m][n]["kernel"].shape
  assert [shape("a", n) for n in ("layer1", "layer2", "top")] == [(3, 6), (6, 3), (3, 5)]
  path = mrbm.pathway(params, ("layer1", "layer2"), FACTORS)
  x = batch().inputs["b"]
  assert path.up("b", x).shape == (ROWS, 3)
  assert path.down("b", path.up("b", x)).shape == x.shape


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_without_layers_between_it_is_the_shallow_objective(share):
  rows = batch().inputs
  params = mrbm.init_mrbm(jax.random.key(0), {m: jnp.full(d, 0.4) for m, d in WIDTHS.items()}, 5)
  params = jax.tree.map(lambda x: 40 * x, params)
  revealed = {
    m: (jnp.arange(x.size).reshape(x.shape) % 3 == 0) * float(share > 0) for m, x in rows.items()
  }
  options = {"share": dict.fromkeys(rows, share), "steps": 3, "nstop": 2}
  empty = mrbm.pathway({}, (), {})
  found = [
    jax.grad(mrbm.multi_prediction)(params, rows, revealed, jnp.ones(ROWS), **options, **more)
    for more in ({}, {"path": empty})
  ]
  jax.tree.map(np.testing.assert_array_equal, *found)
  mask = {"a": jnp.ones(ROWS, bool), "b": jnp.zeros(ROWS, bool)}
  jax.tree.map(
    np.testing.assert_array_equal,
    mrbm.infer(params, rows, mask),
    mrbm.infer(params, rows, mask, path=empty),
  )


def test_inference_runs_through_the_whole_pathway():
  """One iteration by hand: b goes down to its units and up again; what it holds is not read."""
  method = build(infer_steps=1)
  params, rows = random_params(method), batch()
  state = train.initial(method, jax.random.key(0), rows)._replace(params=params)
  mask = {"a": rows.mask["a"], "b": ~rows.mask["b"]}
  inputs = {**rows.inputs, "b": jnp.full((ROWS, 4), jnp.nan)}
  found = method.predict(state, inputs, mask)
  top, bias = {m: params[m]["top"]["kernel"] for m in "ab"}, params["hidden"]["bias"][None]
  a = layers_up(params, "a", rows.inputs["a"]) @ top["a"]
  h = sigma(2 * a + bias)
  h = sigma(a + layers_up(params, "b", sigma(layers_down(params, "b", h))) @ top["b"] + bias)
  np.testing.assert_allclose(found.features["hidden"], h, rtol=1e-5)
  want = sigma(layers_down(params, "b", h))
  np.testing.assert_allclose(found.aux["reconstructions"]["b"], want, rtol=1e-5)


def unrolled(params, x, revealed, steps, nstop, share):
  """log P of b's hidden units given a, with gradients through the last `nstop` iterations."""
  top, bias = {m: params[m]["top"]["kernel"] for m in "ab"}, params["hidden"]["bias"][None]
  a = layers_up(params, "a", x["a"]) @ top["a"]
  hint = x["b"] * revealed
  said = layers_up(params, "b", hint) - layers_up(params, "b", jnp.zeros_like(hint))
  h = sigma((2 - share) * a + said @ top["b"] + bias)
  for i in range(1, steps + 1):
    v = sigma(layers_down(params, "b", h)) * (1 - revealed) + hint
    v = jax.lax.stop_gradient(v) if i <= steps - nstop else v
    h = sigma(a + layers_up(params, "b", v) @ top["b"] + bias)
  p = sigma(layers_down(params, "b", h))
  log = x["b"] * jnp.log(p) + (1 - x["b"]) * jnp.log(1 - p)
  return (log * (1 - revealed)).sum(-1).mean()


@pytest.mark.parametrize("nstop", [0, 1, 3])
def test_truncated_gradients_are_those_of_the_unrolled_loop(nstop):
  params, rows = random_params(build()), batch()
  revealed = {
    m: (jnp.arange(x.size).reshape(x.shape) % 4 == 0) * 1.0 for m, x in rows.inputs.items()
  }
  want = jax.grad(unrolled)(params, rows.inputs, revealed["b"], 3, nstop, 0.3)

  def objective(params, nstop):
    path = mrbm.pathway(params, ("layer1", "layer2"), FACTORS)
    return _multi_prediction.multi_prediction(
      _deep_net.top_of(params),
      rows.inputs,
      revealed,
      jnp.ones(ROWS),
      share={"a": 0.3, "b": 0.3},
      steps=3,
      nstop=nstop,
      sparsity_weight=0.0,
      l2=0.0,
      factors=_mrbm.Factors(down=2.0),
      path=path,
      targets=("b",),
    )

  found = jax.jit(jax.grad(objective))(params, jnp.int32(nstop))
  for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(want)):
    np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))
  full = jax.grad(unrolled)(params, rows.inputs, revealed["b"], 3, 3, 0.3)
  difference = float(jnp.abs(full["b"]["layer1"]["kernel"] - want["b"]["layer1"]["kernel"]).max())
  assert (difference == 0) == (nstop == 3)


MOVED = {
  "layer1": {"layer1"},
  "layer2": {"layer2"},
  "top": {"top"},
  "joint": {"layer2", "top"},
  "finetune": {"layer1", "layer2", "top"},
}


@pytest.mark.slow
@pytest.mark.parametrize("phase", MOVED)
def test_what_a_phase_moves(phase):
  """Kernels of both modalities, in the layers of the phase, and no leaf of the others."""
  method, rows = build(), batch()
  state = train.initial(method, jax.random.key(0), rows)
  state = state._replace(params=random_params(method))
  step = next(p.step for p in method.phases if p.name == phase)
  after, log = jax.jit(step)(state, rows, jax.random.key(1), clock(50))
  assert all(np.isfinite(v) for v in log.values())
  for m in WIDTHS:
    for part in ("layer1", "layer2", "top"):
      change = [
        float(jnp.abs(x - y).max())
        for x, y in zip(
          jax.tree.leaves(after.params[m][part]), jax.tree.leaves(state.params[m][part])
        )
      ]
      assert (max(change) > 0) == (part in MOVED[phase]), (m, part)
      if part in MOVED[phase]:
        new, old = after.params[m][part]["kernel"], state.params[m][part]["kernel"]
        assert float(jnp.abs(new - old).max()) > 1e-7
  moved = float(jnp.abs(after.params["hidden"]["bias"] - state.params["hidden"]["bias"]).max()) > 0
  assert moved == ("top" in MOVED[phase])


def test_a_direction_predicts_its_target_alone():
  """The loss does not change with what is asked of the source, and a third modality does not move."""
  rows = batch()
  three = rows._replace(
    inputs={**rows.inputs, "c": rows.inputs["a"]}, mask={**rows.mask, "c": rows.mask["a"]}
  )
  method = build(direction=("a", "b"), reveal=0.0)
  state = train.initial(method, jax.random.key(0), three)
  state = state._replace(params=random_params(method, three))
  after, log = jax.jit(method.phases[-1].step)(state, three, jax.random.key(1), clock(50))
  jax.tree.map(np.testing.assert_array_equal, after.params["c"], state.params["c"])
  nothing = jnp.zeros_like(rows.inputs["b"])
  loss = -unrolled(state.params, rows.inputs, nothing, 2, 2, 0.0)
  squares = sum(
    jnp.square(state.params[m][n]["kernel"]).sum()
    for m in "ab"
    for n in ("layer1", "layer2", "top")
  )
  top = _deep_net.top_of(state.params, ("a", "b"))
  path = mrbm.pathway(state.params, ("layer1", "layer2"), FACTORS)
  _, h = _multi_prediction.predict_one(
    top,
    rows.inputs,
    "b",
    nothing,
    share=0.0,
    steps=2,
    nstop=2,
    factors=_mrbm.Factors(down=2.0),
    path=path,
  )
  loss += 1e-5 / 2 * squares - 0.01 * _multi_prediction.sparsity(h, jnp.ones(ROWS), 0.2)
  np.testing.assert_allclose(log["loss"], loss, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("chains", [0, 6])
def test_a_layer_learns_to_reconstruct(chains):
  """CD-1 and PCD-1 of one layer on two patterns; rows of weight 0 hold other ones, and do not count."""
  patterns = jnp.asarray(np.tile([[1, 1, 0, 0], [0, 0, 1, 1]], (8, 1)), jnp.float32)
  rows = jnp.concatenate([patterns, 1 - jnp.eye(4)])
  weight = jnp.concatenate([jnp.ones(16), jnp.zeros(4)])
  layer = _layers.init_layer(jax.random.key(0), "a", 4, 6)
  memory = _layers.init_layer_memory(6, chains)
  options = {"factors": (1.0, 1.0), "sparsity_weight": 0.0, "sparsity_target": 0.2, "l2": 0.0}

  @jax.jit
  def run(layer, memory):
    def body(i, carried):
      layer, memory, _ = carried
      found = _layers.layer_direction(
        "a", layer, rows, weight, memory, jax.random.key(i), **options
      )
      both = jax.tree.map(jnp.add, found.gradient, found.immediate)
      return jax.tree.map(lambda w, g: w + 0.3 * g, layer, both), found.memory, found.loss

    return jax.lax.fori_loop(0, 600, body, (layer, memory, jnp.float32(0)))

  layer, memory, error = run(layer, memory)
  assert float(error) < 0.1  # an untrained layer: 1/4
  assert set(memory) == ({"running", "chains"} if chains else {"running"})
  none = _layers.layer_direction(
    "a", layer, rows, jnp.zeros(20), memory, jax.random.key(0), **options
  )
  assert all(float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves((none.gradient, none.immediate)))
  jax.tree.map(np.testing.assert_array_equal, none.memory, memory)


@pytest.mark.slow
def test_fit_goes_through_all_phases_with_rows_that_lack_a_modality():
  """And begins each from the mean row of what it sees: the visible biases of layer and top."""
  rng = np.random.default_rng(1)
  rows = 24
  a = rng.normal(size=(rows, 2, 3)).astype(np.float32)
  mask = {"a": np.ones(rows, bool), "b": np.arange(rows) % 4 != 0}
  b = np.where(mask["b"][:, None], rng.normal(size=(rows, 4)), np.nan).astype(np.float32)
  split = data.Split({"a": a, "b": b}, np.zeros(rows, np.int32), mask, np.arange(rows), None)
  splits = types.SimpleNamespace(
    train=split, validation=None, task="classification", num_outputs=2, fingerprint=""
  )
  method = build(widths=(3,), chains=4, direction=("b", "a"))
  result = train.fit(method, splits, epochs=4, batch_size=12)
  assert [e["phase"] for e in result.logs[0].history] == ["layer1", "top", "joint", "finetune"]
  state = result.state()
  assert result.logs[0].diverged_at is None
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
  begun = method.phases[1].begin(state, {"train": split}, jax.random.key(0), None)
  units = mrbm.to_units({"b": jnp.asarray(b)}, {"b": jnp.asarray(mask["b"])}, state.stats["range"])
  features = sigma(
    2 * units["b"] @ state.params["b"]["layer1"]["kernel"]
    + state.params["b"]["layer1"]["hidden"][None]
  )
  mean = np.clip(np.asarray(features)[mask["b"]].mean(0), 0.01, 0.99)
  np.testing.assert_allclose(begun.params["b"]["top"]["bias"], np.log(mean / (1 - mean)), atol=1e-5)


@pytest.mark.slow
def test_the_other_modality_is_predicted():
  """b = 1 - a, through a layer each: chance is 1/2, and fine-tuning goes on where the top stood."""
  bits = np.random.default_rng(0).integers(0, 2, (64, 3)).astype(np.float32)
  split = data.Split(
    {"a": bits, "b": 1 - bits},
    np.zeros(64, np.int32),
    {m: np.ones(64, bool) for m in "ab"},
    np.arange(64),
    None,
  )
  splits = types.SimpleNamespace(
    train=split, validation=None, task="classification", num_outputs=2, fingerprint=""
  )
  stage = mrbm.Stage(0.3, decay=0.005, sparsity_weight=0.0)
  method = build(num_hidden=16, widths=(12,), reveal=0.0, stages=dict.fromkeys(mrbm.STAGES, stage))
  epochs = {"layer1": 50, "top": 60, "joint": 1, "finetune": 400}
  result = train.fit(method, splits, epochs=epochs, batch_size=8)
  mask = {"a": jnp.ones(64, bool), "b": jnp.zeros(64, bool)}
  inputs = {m: jnp.asarray(x) for m, x in split.inputs.items()}
  guess = method.predict(result.state(), inputs, mask).aux["reconstructions"]["b"]
  assert float(jnp.mean((guess > 0.5) == (bits < 0.5))) > 0.9
  loss = [e["loss"] for e in result.logs[0].history if e["phase"] == "finetune"]
  assert np.mean(loss[-20:]) < 0.7 * np.mean(loss[:20])


def test_refusals():
  with pytest.raises(ValueError, match="needs layers"):
    build(widths=())
  rows = batch()
  with pytest.raises(
    ValueError, match=r"two modalities, \(source, target\), got \('a', 'c'\); available"
  ):
    train.initial(build(direction=("a", "c")), jax.random.key(0), rows)
  with pytest.raises(Unavailable, match="two modalities"):
    train.initial(build(), jax.random.key(0), rows._replace(inputs={"a": rows.inputs["a"]}))
