"""Which optimisers may hold an update back; what a step keeps for those, and how it stops what is absent."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfuse import train
from mmfuse.balancing import ogm_ge
from mmfuse.train import _update, _waiting

PARAMS = {"a": jnp.ones((2, 3)), "b": {"w": jnp.zeros(4)}}


class Kept(NamedTuple):
  """The state of a transform of the user's."""

  sums: Any


def own(made):
  """A transform of the user's, which keeps what `made` makes of the parameters."""
  return optax.GradientTransformation(made, lambda u, s, p=None: (u, s))


STEADY = {
  "sgd": train.sgd(),
  "adam, cosine, decay": train.adam(schedule="cosine", weight_decay=0.1),
  "unsearched": train.sgd(searched=False),
  "optax.adamw": optax.adamw(optax.cosine_decay_schedule(0.1, 10)),
  "optax.lion": optax.lion(1e-3),
  "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)),
  "injected": optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
  "parts": optax.partition({"a": optax.sgd(0.1), "b": optax.adam(0.1)}, {"a": "a", "b": "b"}),
  "keeps nothing": own(lambda _: None),
  "masked": optax.masked(optax.sgd(0.1), {"a": True, "b": False}),
  "a modulator": optax.chain(ogm_ge(), train.sgd()),
}
WAITING = {
  "MultiSteps": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
  "inside": optax.chain(optax.clip(1.0), optax.apply_every(2)),
  "a part": optax.partition(
    {"a": optax.sgd(0.1), "b": optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()},
    {"a": "a", "b": "b"},
  ),
  "if finite": optax.apply_if_finite(optax.sgd(0.1), 3),
  "a state of its own": own(Kept),
  "the parameters": own(lambda params: params),
  "a pair": own(lambda params: (jnp.zeros((), int), params)),
  "a number in a chain": optax.chain(own(lambda _: jnp.zeros(())), optax.sgd(0.1)),
  "around another": train.unsearched(
    optax.masked(own(lambda params: params), {"a": True, "b": False})
  ),
}


@pytest.mark.parametrize("name", STEADY)
def test_those_that_move_in_the_step_of_a_gradient(name):
  assert not _waiting.waits(STEADY[name].init(PARAMS))
  assert set(_update.init_opt(STEADY[name], PARAMS, ("a", "b"))) == {"tx"}


@pytest.mark.parametrize("name", WAITING)
def test_those_that_may_wait_and_all_that_is_not_known(name):
  assert _waiting.waits(WAITING[name].init(PARAMS))
  opt = _update.init_opt(WAITING[name], PARAMS, ("a", "b"))
  assert set(opt["seen"]) == {"a", "b", "shared"}
  assert set(_update.init_opt(WAITING[name], PARAMS, ("a", "b"), coast=True)) == {"tx"}


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32])
def test_what_is_kept_is_the_same_bits_and_what_is_not_is_zero(kind):
  u = jnp.array([1.5, -2.0, 0.0, -3e-5], jnp.float32).astype(kind)
  if jnp.issubdtype(kind, jnp.floating):
    u = jnp.concatenate([u, jnp.array([jnp.nan, jnp.inf, -0.0], kind)])
  run = jax.jit(_update._where)
  kept, gone = (run(jnp.asarray(keep), u) for keep in (True, False))
  assert kept.dtype == gone.dtype == kind
  assert np.asarray(kept).tobytes() == np.asarray(u).tobytes()
  assert not np.asarray(gone).any()
