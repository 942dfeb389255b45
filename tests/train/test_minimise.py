"""minimise and alternate: what a loss is given, what moves, what is logged."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import train
from mmfuse.core import LAST, Outputs

from . import _problems

STILL = train.sgd(0.5, momentum=0.0)


def init(key, batch, num_rows):
  """One weight per modality, named after it, and one of nobody."""
  del key, batch
  params = {"a": jnp.ones(3), "b": jnp.ones(2), "top": jnp.ones(())}
  return {"params": params, "batch_stats": {"mean": jnp.zeros(())}}, {"rows": jnp.int32(num_rows)}


def loss(variables, batch, key, clock, memory):
  """Sum over the present rows of x_m w_m, plus top; reads its memory and its key."""
  del key
  p, total = variables["params"], 0.0
  for m in ("a", "b"):
    x = jnp.where(batch.mask[m], batch.inputs[m] @ p[m], 0.0)
    total += jnp.sum(x * batch.weight)
  aux = train.Aux({"mean": jnp.float32(7.0)}, {"rows": memory["rows"] + 1}, {"epoch": clock.epoch})
  return total + p["top"], aux


def say(variables, memory, inputs, mask):
  del memory
  params = variables["params"]
  return Outputs(sum(inputs[m] @ params[m] for m in sorted(mask))[:, None])


def method(**options):
  return train.minimise(init, loss, options.pop("tx", STILL), predict=say, select=LAST, **options)


def test_a_step_by_hand_and_its_log():
  given = _problems.batch()
  before, after, log = _problems.one_step(method(name="elbo", share=0.3), given)
  want = {}
  for m in "ab":
    x = np.where(given.mask[m][:, None], np.nan_to_num(given.inputs[m]), 0)
    want[m] = 1 - 0.5 * (x * np.asarray(given.weight)[:, None]).sum(0)
    np.testing.assert_allclose(after.params[m], want[m], rtol=1e-5)
  assert float(after.params["top"]) == 0.5 and float(after.stats["mean"]) == 7
  rows = given.weight.shape[0]
  assert int(before.memory["rows"]) == rows and int(after.memory["rows"]) == rows + 1
  assert set(log) == {"loss", "epoch", "gradient_norm", "finite"} and bool(log["finite"])
  moved = optax.tree.norm(jax.tree.map(lambda a, b: (a - b) / 0.5, before.params, after.params))
  np.testing.assert_allclose(log["gradient_norm"], moved, rtol=1e-5)
  assert method(name="elbo", share=0.3).phases[0][0] == "elbo" and list(after.opt) == ["elbo"]
  assert jax.tree.map(jax.typeof, before) == jax.tree.map(jax.typeof, after)


def test_what_is_absent_is_zero_and_an_absent_encoder_stays_even_with_momentum():
  given = _problems.batch(nan=True)
  momentum = method(tx=train.sgd(0.5, momentum=0.9, weight_decay=0.1))
  _, state, log = _problems.one_step(momentum, given)
  assert bool(log["finite"])
  gone = given._replace(mask={**given.mask, "b": jnp.zeros_like(given.mask["b"])})
  before, after, _ = _problems.one_step(momentum, gone, state)
  _problems.same(after.params["b"], before.params["b"])
  assert bool((after.params["a"] != before.params["a"]).all())
  empty = gone._replace(weight=jnp.zeros_like(gone.weight))
  before, after, _ = _problems.one_step(momentum, empty, state)
  _problems.same(after.params, before.params)  # no row, nothing moves
  said = momentum.predict(before, given.inputs, given.mask).logits
  assert np.isfinite(said).all()


def test_equal_methods_predict_alike_so_that_they_share_programs():
  assert method().predict == method(name="other").predict
  assert hash(method().predict) == hash(method().predict)


def test_a_loss_that_is_not_finite_is_said():
  given = _problems.batch()
  state = train.initial(method(), jax.random.key(0), given)
  state = state._replace(params={**state.params, "top": jnp.float32(jnp.nan)})
  assert not _problems.one_step(method(), given, state)[2]["finite"]


def test_memory_that_init_did_not_make_is_refused():
  wrong = lambda *args: (loss(*args)[0], train.Aux(memory={"chains": jnp.ones(2)}))
  bad = train.minimise(init, wrong, STILL, predict=say)
  with pytest.raises(ValueError, match="memory 'chains'; init made: rows"):
    _problems.one_step(bad, _problems.batch())


# Several players.


def pair_init(key, batch, num_rows):
  del key, batch, num_rows
  return {"params": {"critic": {"w": jnp.float32(1.0)}, "model": {"w": jnp.float32(2.0)}}}, {}


def product(variables, batch, key, clock, memory):
  del batch, key, clock, memory
  p = variables["params"]
  return p["critic"]["w"] * p["model"]["w"], train.Aux(log={"critic": p["critic"]["w"]})


def negative(*args):
  return -product(*args)[0], train.Aux()


def pair(**options):
  players = {
    "critic": train.Player(
      lambda path: path.startswith("critic/"), negative, STILL, steps=3, searched=False
    ),
    "model": train.Player(lambda path: path == "model/w", product, STILL),
  }
  return train.alternate(
    {**players, **options}, pair_init, predict=lambda *a: Outputs(None), select=LAST
  )


def test_players_take_turns_by_hand():
  """Critic: three times w_c += .5 w_m; then the model sees it: w_m -= .5 w_c."""
  _, after, log = _problems.one_step(pair(), _problems.batch())
  assert float(after.params["critic"]["w"]) == 4.0
  assert float(after.params["model"]["w"]) == 0.0
  assert float(log["loss/critic"]) == -6.0  # of its last update: -3 x 2
  assert float(log["loss/model"]) == 8.0 and float(log["critic"]) == 4.0
  np.testing.assert_allclose(log["gradient_norm"], np.sqrt(2.0**2 + 4.0**2), rtol=1e-6)
  assert set(after.opt["train"]) == {"critic", "model"}


def test_the_key_of_a_turn_is_folded_from_its_player_and_its_number():
  def drawn(who):
    def loss(variables, batch, key, clock, memory):
      value, _ = product(variables, batch, key, clock, memory)
      return value, train.Aux(log={f"drawn/{who}": jax.random.uniform(key)})

    return loss

  method = pair(
    critic=train.Player(lambda path: path.startswith("critic/"), drawn("critic"), STILL, steps=3),
    model=train.Player(lambda path: path == "model/w", drawn("model"), STILL),
  )
  _, _, log = _problems.one_step(method, _problems.batch(), key=7)
  for who, place, turn in (("critic", 0, 2), ("model", 1, 0)):
    own = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), place), turn)
    want = jax.random.uniform(jax.random.split(own)[0])
    assert float(log[f"drawn/{who}"]) == float(want)


def test_fit_sets_the_rate_of_those_that_are_searched():
  state = train.initial(pair(), jax.random.key(0), _problems.batch())
  assert train.has_learning_rate(state.opt, 0.5)
  opt = train.set_learning_rate(state.opt, 0.25)
  found = {
    jax.tree_util.keystr(p, simple=True, separator="/"): float(v)
    for p, v in jax.tree_util.tree_flatten_with_path(opt)[0]
    if "learning_rate" in str(p)
  }
  assert sorted(found.values()) == [0.25, 0.5]
  assert all(("critic" in k) == (v == 0.5) for k, v in found.items())


def test_alternate_refuses():
  with pytest.raises(ValueError, match="at least one player"):
    train.alternate({}, pair_init, predict=say)
  with pytest.raises(ValueError, match="steps of player 'x' must be at least 1, got 0"):
    pair(x=train.Player(lambda path: True, product, STILL, steps=0))
  nobody = pair(x=train.Player(lambda path: False, product, STILL))
  with pytest.raises(ValueError, match="'x' owns no leaf of the parameters; there are: critic/w"):
    train.initial(nobody, jax.random.key(0), _problems.batch())
