r"""Sampled statistics of an MRBM: CD, PCD and CD-PercLoss, as ascent directions.

A direction is a tree like the parameters: d(-F)/d(parameters) at the data minus the same at samples
of the model. What is random comes from a function `uniform(name, i, shape)`; a unit is on where its
probability is above its uniform number, so the numbers can be given (tests) or drawn from a key.

Sohn, Shang, Lee, NIPS 2014, and their code.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse import draws, objectives
from mmfuse.methods.generative.mrbm import _mrbm
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, PLAIN, Factors, Params

# (name of the layer, number of the step, shape) -> uniform numbers
Uniform = Callable[[str, Any, tuple[int, ...]], jax.Array]
DAMPING = 0.9  # of the running mean activation


class Chains(NamedTuple):
  """States of `C` Gibbs chains."""

  visible: dict[str, jax.Array]  # {m: [C, D_m]}
  hidden: jax.Array  # [C, H]


def uniform_from(key: jax.Array, names: tuple[str, ...]) -> Uniform:
  """Uniform numbers that depend on the key, the layer and the step."""
  place = {n: i for i, n in enumerate((*sorted(names), HIDDEN))}

  def uniform(name, i, shape):
    return draws.flat(
      jax.random.uniform, jax.random.fold_in(jax.random.fold_in(key, place[name]), i), shape
    )

  return uniform


def switch_on(prob: jax.Array, uniform: jax.Array) -> jax.Array:
  """1[prob > u] as float."""
  return (prob > uniform).astype(jnp.float32)


def binarise(visible: Mapping[str, jax.Array], uniform: Uniform, i: Any = 0):
  """{m: binary [B, D_m]} of probabilities."""
  return {m: switch_on(x, uniform(m, i, x.shape)) for m, x in sorted(visible.items())}


def statistics(visible: Mapping[str, jax.Array], hidden: jax.Array, weight: jax.Array):
  """{m: {"kernel": mean x_m h^T, "bias": mean x_m}, "hidden": {"bias": mean h}} of weighted rows."""
  total = jnp.where(weight.sum() > 0, weight.sum(), 1.0)
  scaled = hidden * (weight / total)[:, None]
  found = {
    m: {"kernel": x.T @ scaled, "bias": objectives.mean_rows(x, weight)}
    for m, x in sorted(visible.items())
  }
  return {**found, HIDDEN: {"bias": objectives.mean_rows(hidden, weight)}}


def init_chains(params: Params, count: int, uniform: Uniform) -> Chains:
  """Chains that start from the biases: x_m on with probability sigma(b_m), then h ~ P(h | x)."""
  visible = {}
  for m in _mrbm.modalities_of(params):
    bias = params[m]["bias"]
    prob = jnp.broadcast_to(jax.nn.sigmoid(bias)[None], (count, bias.shape[0]))
    visible[m] = switch_on(prob, uniform(m, 0, prob.shape))
  h = _mrbm.hidden_given(params, visible)
  return Chains(visible, switch_on(h, uniform(HIDDEN, 0, h.shape)))


def gibbs(
  params: Params, hidden: jax.Array, count: Any, uniform: Uniform, factors: Factors = PLAIN
) -> jax.Array:
  """States h [C, H] after `count` steps x_m ~ P(x_m | h) for all m, h ~ P(h | x).

  `count` may be traced.
  """
  names = _mrbm.modalities_of(params)

  def step(i, h):
    prob = {m: _mrbm.visible_given(params, h, m, factors) for m in names}
    h = _mrbm.hidden_given(params, binarise(prob, uniform, i), factors)
    return switch_on(h, uniform(HIDDEN, i, h.shape))

  return jax.lax.fori_loop(1, count + 1, step, hidden)


def with_regularisers(
  gradient, params: Params, running: jax.Array, weight: float, target: float, l2: float
):
  """`gradient` - l2 W_m, and - weight (running mean activation - target) on the hidden bias."""
  found = {
    m: {**gradient[m], "kernel": gradient[m]["kernel"] - l2 * params[m]["kernel"]}
    for m in _mrbm.modalities_of(params)
  }
  bias = gradient[HIDDEN]["bias"] - weight * (running - target)
  return {**found, HIDDEN: {"bias": bias}}


def running_mean(running: jax.Array, mean: jax.Array, damping: float = DAMPING) -> jax.Array:
  """.9 running + .1 mean."""
  return damping * running + (1 - damping) * mean


def percloss_chain(
  params: Params,
  visible: Mapping[str, jax.Array],
  target: str,
  count: Any,
  uniform: Uniform,
  factors: Factors = PLAIN,
) -> dict[str, jax.Array]:
  """`visible` with the target replaced by a sample given the others: that of lowest free energy.

  Start: h from the others as `first_guess`, x_t ~ P(x_t | h); `count` times h ~ P(h | x),
  x_t ~ P(x_t | h). Row by row the best of the count + 1 samples is kept.
  """

  def sample(prob, i):
    h = switch_on(prob, uniform(HIDDEN, i, prob.shape))
    x = _mrbm.visible_given(params, h, target, factors)
    return switch_on(x, uniform(target, i, x.shape))

  def cost(x):
    return _mrbm.free_energy(params, {**visible, target: x}, factors)

  def step(i, carried):
    x, best, lowest = carried
    x = sample(_mrbm.hidden_given(params, {**visible, target: x}, factors), i)
    found = cost(x)
    best = jnp.where((found < lowest)[:, None], x, best)
    return x, best, jnp.minimum(found, lowest)

  rows = visible[target].shape[0]
  mask = {m: jnp.full(rows, m != target) for m in _mrbm.modalities_of(params)}
  x = sample(_mrbm.first_guess(params, visible, mask, factors), 0)
  _, best, _ = jax.lax.fori_loop(1, count + 1, step, (x, x, cost(x)))
  return {**visible, target: best}


def percloss(
  params: Params,
  visible: Mapping[str, jax.Array],
  weight: jax.Array,
  count: Any,
  uniforms: Mapping[str, Uniform],
  factors: Factors = PLAIN,
):
  r"""(positive, negative) statistics of CD-PercLoss on binary rows [B, D_m].

  Negative: mean over targets t of the statistics at `percloss_chain` of t, whose numbers come from
  uniforms[t]; h are probabilities in both.

  Args:
    params: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}} and c, as `init_mrbm` makes them.
    visible: {m: x_m [B, D_m]} in [0, 1].
    weight: of the rows [B].
    count: steps of a chain, may be traced.
    uniforms: {target: numbers in [0, 1)}.
    factors: multipliers u_m and d of a deeper model's layer; default `PLAIN`, all 1.
  """
  names = _mrbm.modalities_of(params)
  positive = statistics(visible, _mrbm.hidden_given(params, visible, factors), weight)
  found = []
  for t in names:
    rows = percloss_chain(params, visible, t, count, uniforms[t], factors)
    found.append(statistics(rows, _mrbm.hidden_given(params, rows, factors), weight))
  return positive, jax.tree.map(lambda *x: sum(x[1:], x[0]) / len(names), *found)


def contrastive(
  params: Params,
  visible: Mapping[str, jax.Array],
  weight: jax.Array,
  count: Any,
  positive_uniform: Uniform,
  chain_uniform: Uniform,
  hidden: jax.Array | None = None,
  factors: Factors = PLAIN,
):
  """(positive, negative, states h) of CD, or of PCD where `hidden` [C, H] holds its chains.

  Positive: binarised rows and P(h | x). Negative: states h after `count` steps of `gibbs` and the
  probabilities P(x | h). CD starts from a sample of P(h | x), and weighs chains as their rows.

  Args:
    params: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}} and c, as `init_mrbm` makes them.
    visible: {m: x_m [B, D_m]} in [0, 1].
    weight: of the rows [B].
    count: Gibbs steps, may be traced.
    positive_uniform, chain_uniform: numbers in [0, 1) for the binarised rows and for the chain.
    hidden: chains [C, H] of PCD; default None, CD.
    factors: multipliers u_m and d of a deeper model's layer; default `PLAIN`, all 1.
  """
  visible = binarise(visible, positive_uniform)
  h = _mrbm.hidden_given(params, visible, factors)
  if hidden is None:
    start, chain_weight = switch_on(h, positive_uniform(HIDDEN, 0, h.shape)), weight
  else:
    start, chain_weight = hidden, jnp.ones(hidden.shape[0])
  states = gibbs(params, start, count, chain_uniform, factors)
  prob = {m: _mrbm.visible_given(params, states, m, factors) for m in visible}
  negative = statistics(prob, states, chain_weight)
  return statistics(visible, h, weight), negative, states
