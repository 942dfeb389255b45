"""Every rule passes `check_contract`; broken rules are told what broke."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

from mmfuse import balancing

RULES = {
  "uniform": balancing.uniform,
  "mimo": balancing.mimo,
  "mimo_hard": functools.partial(balancing.mimo, lam=lambda step: 0.1 * step, form="hard_max"),
  "stch": balancing.stch,
  "mmpareto": balancing.mmpareto,
  "mmpareto_encoder": functools.partial(balancing.mmpareto, rescale="encoder"),
  "mgda": balancing.mgda,
  "mgda_released": functools.partial(balancing.mgda, normalize="loss+", clip_ends=True),
  "mgda_encoder": functools.partial(balancing.mgda, scope="encoder", rescale="sum"),
  "pcgrad": balancing.pcgrad,
  "cagrad": balancing.cagrad,
  "bogc": balancing.bogc,
  "bogc_parts": functools.partial(balancing.bogc, variance="parts", mode="belief"),
  "ogm": balancing.ogm,
  "ogm_ge": balancing.ogm_ge,
}


@pytest.mark.parametrize("name", RULES)
def test_rule(name):
  balancing.check_contract(RULES[name], num_objectives=3)


def test_four_modalities():
  balancing.check_contract(balancing.cagrad, num_objectives=5)


def test_own_parameters():
  params = {"a": {"w": jnp.ones((2, 2))}, "b": {"w": jnp.ones(4)}, "trunk": jnp.ones(2)}
  balancing.check_contract(balancing.mgda, num_objectives=3, params=params)


class LossShareState(NamedTuple):
  weights: jax.Array
  ema: jax.Array


def loss_share(num_objectives, decay=0.9, *, weights=None, combine=None, ema=None):
  """A user's rule; the keywords break one clause of the contract each."""

  def init_fn(params):
    del params
    uniform = jnp.full(num_objectives, 1 / num_objectives, jnp.float32)
    return LossShareState(uniform, ema if ema is not None else jnp.zeros(num_objectives))

  def update_fn(updates, state, params=None, *, losses, **extra_args):
    del params, extra_args
    average = decay * state.ema + (1 - decay) * losses
    share = (weights or (lambda e, g: e / e.sum()))(average, updates)
    total = combine or (lambda w, g: jnp.tensordot(w, g, axes=1))
    return jax.tree.map(lambda g: total(share, g), updates), LossShareState(share, average)

  return balancing.Aggregator(init_fn, update_fn)


def test_a_users_rule():
  balancing.check_contract(loss_share, num_objectives=3)


def by_norm(average, updates):
  """Divides by the gradients' norm: NaN where all are zero."""
  square = sum(jnp.sum(g**2) for g in jax.tree.leaves(updates))
  return average / jnp.sqrt(square)


def by_least_norm(average, updates):
  """Divides by the smallest norm relative to the largest: infinite where one row is zero."""
  norms = jnp.sqrt(
    sum(jnp.sum(g.reshape(g.shape[0], -1) ** 2, axis=1) for g in jax.tree.leaves(updates))
  )
  top = norms.max()
  return average / jnp.where(top > 0, norms.min() / jnp.where(top > 0, top, 1.0), 1.0)


@pytest.mark.parametrize(
  ("broken", "message"),
  [
    ({"combine": lambda w, g: g}, r"returned float32\[3, .* \(K = 3\)"),
    ({"combine": lambda w, g: g[0].astype(jnp.bfloat16)}, "returned bfloat16"),
    ({"weights": by_norm}, "non-finite update .* all-zero gradients"),
    ({"weights": by_least_norm}, "non-finite update .* modality 'modality_1' absent"),
    ({"ema": jnp.zeros(1)}, r"state leaf .ema changed type: float32\[1\] became float32\[3\]"),
    ({"ema": 0.0}, "state leaf .ema changed"),
  ],
)
def test_broken_rules_are_told(broken, message):
  with pytest.raises(balancing.ContractError, match=message):
    balancing.check_contract(functools.partial(loss_share, **broken), num_objectives=3)


def test_a_weak_type_is_named():
  def rule(num_objectives):
    def update_fn(updates, state, params=None, *, losses, **extra_args):
      del params, extra_args
      return jax.tree.map(lambda g: g.sum(0), updates), {"w": 0.9 * state["w"] + losses.sum()}

    return balancing.Aggregator(lambda params: {"w": jnp.full((), 0.5)}, update_fn)

  with pytest.raises(balancing.ContractError, match="weak type"):
    balancing.check_contract(rule)


def test_an_argument_of_before_is_told_its_new_name():
  def rule(num_objectives):
    def update_fn(updates, state, params=None, *, labels=None, **extra_args):
      return jax.tree.map(lambda g: g.sum(0), updates), state

    return balancing.Aggregator(lambda params: (), update_fn)

  with pytest.raises(balancing.ContractError, match="'labels', which is 'owners' now"):
    balancing.check_contract(rule)


def test_unknown_arguments_must_be_swallowed():
  def rule(num_objectives):
    def update_fn(updates, state, params=None, *, losses):
      return jax.tree.map(lambda g: g.sum(0), updates), state

    return balancing.Aggregator(lambda params: (), update_fn)

  with pytest.raises(balancing.ContractError, match=r"\*\*extra_args"):
    balancing.check_contract(rule)


def test_another_trace_is_noticed():
  calls = []

  def rule(num_objectives):
    def update_fn(updates, state, params=None, **extra_args):
      return jax.tree.map(lambda g: g.sum(0), updates), tuple(state) or (jnp.zeros(()),)

    return balancing.Aggregator(lambda params: calls.append(1) or (), update_fn)

  with pytest.raises(balancing.ContractError, match="changed structure"):
    balancing.check_contract(rule)
  assert calls


def test_a_factory_must_return_a_transformation():
  with pytest.raises(balancing.ContractError, match="must return an optax transformation, got int"):
    balancing.check_contract(lambda num_objectives: 3)


def test_optax_own_transforms_pass_as_modulators():
  balancing.check_contract(lambda: optax.with_extra_args_support(optax.scale(0.5)))


def test_names_of_the_papers_are_the_same_functions():
  assert balancing.mimo is balancing.aggregate_by_mimo
  assert balancing.ogm_ge is balancing.scale_by_ogm_ge
  assert balancing.uniform is balancing.aggregate_by_sum
  assert sorted(balancing.__all__) == sorted(set(balancing.__all__))
  assert all(getattr(balancing, name).__doc__ for name in balancing.__all__)
