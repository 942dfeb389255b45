r"""Multi-prediction (MP): each modality is predicted from the others through the mean-field loop.

The loop is a recurrent network with tied weights, trained by back-propagation (the "recurrent" of
MDRNN): Sohn, Shang, Lee, NIPS 2014. Minimises -E \sum_t log P(x_t | the others), the variation of
information, with mean-field conditionals.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mmfuse import draws, objectives
from mmfuse.methods.generative.mrbm import _mrbm
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN, PLAIN, Factors, Params
from mmfuse.methods.generative.mrbm._pathway import STRAIGHT, Path

CLIP = 1e-6  # of mean activations, before their logarithm


def predict_one(
  params: Params,
  visible: Mapping[str, jax.Array],
  target: str,
  revealed: jax.Array,
  *,
  share: float | jax.Array,
  steps: int,
  nstop: int | jax.Array,
  factors: Factors = PLAIN,
  path: Path = STRAIGHT,
) -> tuple[jax.Array, jax.Array]:
  r"""(logits of the target [B, D_t], h^{n+1} [B, H]) from the other modalities.

  a = \sum_{m != t} u_m W_m^T x_m; h^1 = sigma(s a + u_t W_t^T (x_t r) + c) with
  s = (\sum_m u_m - u_t p) / \sum_{m != t} u_m; for i = 1..n: v^i = P(x_t | h^i) where not revealed,
  else x_t; h^{i+1} = sigma(a + u_t W_t^T v^i + c).

  With layers between, `params` are those of the top, x_m above is f_m = path.up(m, x_m), and v^i goes
  down to the units, where the revealed ones are put in, and up again. The hint of h^1 is then
  f_t(x_t r) - f_t(0), ours: nothing revealed says nothing, and without layers it is x_t r.

  Args:
    revealed: r [B, D_t], 1 = the unit is given as input too.
    share: p, the expected share of revealed units.
    steps: n, static. nstop: how many of the last steps gradients pass, may be traced: v^i is a
      constant for i <= n - nstop. 0: the last pass only; n: all of them.
  """
  names = _mrbm.modalities_of(params)
  others = {m: path.up(m, visible[m]) for m in names if m != target}
  up, kernel, bias = factors.of(target), params[target]["kernel"], params[HIDDEN]["bias"]
  a = _mrbm.evidence(params, others, factors)
  given = sum(factors.of(m) for m in others)
  scale = (given + up - up * share) / given
  hint = visible[target] * revealed
  known = hint if path is STRAIGHT else path.up(target, hint) - path.up(target, 0 * hint)
  h = jax.nn.sigmoid(_mrbm.add_bias(scale * a + up * (known @ kernel), bias))

  def logits(h):
    return path.down(target, _mrbm.visible_logits(params, h, target, factors))

  def step(h, i):
    v = jax.nn.sigmoid(logits(h)) * (1 - revealed) + hint
    v = jnp.where(i <= steps - nstop, jax.lax.stop_gradient(v), v)
    return jax.nn.sigmoid(_mrbm.add_bias(a + up * (path.up(target, v) @ kernel), bias)), None

  h, _ = jax.lax.scan(step, h, jnp.arange(1, steps + 1))
  return logits(h), h


def log_likelihood(x: jax.Array, logits: jax.Array) -> jax.Array:
  """x log s + (1 - x) log(1 - s), s = sigma(logits), entry by entry; x in [0, 1]."""
  return x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits)


def sparsity(hidden: jax.Array, weight: jax.Array, target: float) -> jax.Array:
  r"""\sum_j t log q_j + (1 - t) log(1 - q_j), q_j = mean of h_j, clipped to [1e-6, 1 - 1e-6]."""
  q = jnp.clip(objectives.mean_rows(hidden, weight), CLIP, 1 - CLIP)
  return (target * jnp.log(q) + (1 - target) * jnp.log1p(-q)).sum()


def multi_prediction(
  params: Params,
  visible: Mapping[str, jax.Array],
  revealed: Mapping[str, jax.Array],
  weight: jax.Array,
  *,
  share: Mapping[str, float],
  steps: int = 5,
  nstop: int | jax.Array = 5,
  sparsity_weight: float = 0.1,
  sparsity_target: float = 0.1,
  l2: float = 1e-4,
  factors: Factors = PLAIN,
  path: Path = STRAIGHT,
  targets: Sequence[str] | None = None,
) -> jax.Array:
  r"""The objective, to be maximised: a scalar.

  \sum_t mean_rows \sum_{i not revealed} log P(x_ti | the others) + lambda sparsity(h_t)
  - (l2 / 2) \sum_m |W_m|^2.

  Args:
    params: as `init_mrbm` makes them.
    visible: {m: [B, D_m]} in [0, 1], not sampled.
    revealed: {m: [B, D_m]} of 0 and 1.
    weight: [B] of rows; those without all modalities must have 0 (and finite contents).
    share: {m: p_m} that `revealed` was drawn with.
    steps, nstop, sparsity_weight, sparsity_target, l2: the authors' for MNIST.
    factors: multipliers u_m and d of a deeper model's layer; default `PLAIN`, all 1.
    path: layers between `visible` and `params`; default `STRAIGHT`, none.
    targets: the t of the sum; default None, all.

  All ones in `revealed` leaves no data gradient. Reference: Sohn et al., NIPS 2014, and their code.
  """
  total = jnp.zeros(())
  for t in _mrbm.modalities_of(params):
    total -= l2 / 2 * jnp.square(params[t]["kernel"]).sum()
    if targets is not None and t not in targets:
      continue
    logits, h = predict_one(
      params,
      visible,
      t,
      revealed[t],
      share=share[t],
      steps=steps,
      nstop=nstop,
      factors=factors,
      path=path,
    )
    found = (log_likelihood(visible[t], logits) * (1 - revealed[t])).sum(-1)
    total += objectives.weighted_mean(found, weight)
    total += sparsity_weight * sparsity(h, weight, sparsity_target)
  return total


def draw_revealed(key: jax.Array, visible: Mapping[str, jax.Array], share: Mapping[str, float]):
  """{m: revealed units [B, D_m]}: p_m rho > u, rho one uniform a batch, u one a unit."""
  found = {}
  for k, (m, x) in zip(jax.random.split(key, len(visible)), sorted(visible.items())):
    scale, units = jax.random.split(k)
    found[m] = reveal(
      share[m], jax.random.uniform(scale), draws.flat(jax.random.uniform, units, x.shape)
    )
  return found


def reveal(share: float, scale: jax.Array, uniform: jax.Array) -> jax.Array:
  """1[p rho > u] as float: about p / 2 of the units on average, a different share each batch."""
  return (share * scale > uniform).astype(jnp.float32)
