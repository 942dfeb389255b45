r"""The multimodal RBM: P(x, h) ~ exp(\sum_m (x_m^T W_m h + b_m^T x_m) + c^T h), all units binary.

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014. There
with two modalities; here with any number, which is the same model with the sum over m.

Parameters: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}, "hidden": {"bias": c [H]}}.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmfuse.methods.generative.mrbm._pathway import STRAIGHT, Path

HIDDEN = "hidden"  # the parameters of no modality
TOLERANCE = 1e-5  # of the authors' early stop
Params = Mapping[str, Mapping[str, jax.Array]]


class Factors(NamedTuple):
  """Multipliers that a layer of a deeper model needs: u_m of W_m upwards, d downwards; all 1 here."""

  up: Mapping[str, float] = {}
  down: float = 1.0

  def of(self, modality: str) -> float:
    """u_m."""
    return self.up.get(modality, 1.0)


PLAIN = Factors()


def modalities_of(params: Params) -> tuple[str, ...]:
  """The modalities, sorted."""
  return tuple(sorted(m for m in params if m != HIDDEN))


def visible_bias(mean: jax.Array) -> jax.Array:
  """b_m = logit(clip(mean, .01, .99)) [D_m]: what a unit without weights needs."""
  kept = jnp.clip(mean, 0.01, 0.99)
  return jnp.log(kept) - jnp.log1p(-kept)


def init_mrbm(key: jax.Array, means: Mapping[str, jax.Array], num_hidden: int) -> dict[str, Any]:
  r"""W_m = .01 N(0, 1), b_m = logit(clip(mean, .01, .99)), c = 0 (the authors').

  Args:
    key: of the draws of W.
    means: {m: mean of x_m over the data [D_m]}; 1/2 gives b_m = 0.
    num_hidden: H.
  """
  if HIDDEN in means:
    raise ValueError(f"a modality of an MRBM cannot be called {HIDDEN!r}")
  params: dict[str, Any] = {}
  for k, (m, mean) in zip(jax.random.split(key, len(means)), sorted(means.items())):
    bias = visible_bias(jnp.asarray(mean, jnp.float32))
    params[m] = {"kernel": 0.01 * jax.random.normal(k, (len(bias), num_hidden)), "bias": bias}
  return {**params, HIDDEN: {"bias": jnp.zeros(num_hidden)}}


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
  """x [B, N] + bias [N]."""
  return x + bias[None]


def evidence(params: Params, visible: Mapping[str, jax.Array], factors: Factors = PLAIN):
  r"""\sum_m u_m W_m^T x_m [B, H] of the given modalities, without the bias."""
  parts = [factors.of(m) * (x @ params[m]["kernel"]) for m, x in sorted(visible.items())]
  return sum(parts[1:], parts[0])


def hidden_given(params: Params, visible: Mapping[str, jax.Array], factors: Factors = PLAIN):
  r"""P(h = 1 | x) = sigma(\sum_m u_m W_m^T x_m + c) [B, H]."""
  return jax.nn.sigmoid(add_bias(evidence(params, visible, factors), params[HIDDEN]["bias"]))


def visible_logits(params: Params, hidden: jax.Array, modality: str, factors: Factors = PLAIN):
  """d W_m h + b_m [B, D_m]."""
  own = params[modality]
  return add_bias(factors.down * (hidden @ own["kernel"].T), own["bias"])


def visible_given(params: Params, hidden: jax.Array, modality: str, factors: Factors = PLAIN):
  """P(x_m = 1 | h) [B, D_m]."""
  return jax.nn.sigmoid(visible_logits(params, hidden, modality, factors))


def free_energy(params: Params, visible: Mapping[str, jax.Array], factors: Factors = PLAIN):
  r"""F(x) = -\sum_m b_m^T x_m - d \sum_j softplus(\sum_m u_m W_m^T x_m + c)_j, [B].

  Args:
    params: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}} and c, as `init_mrbm` makes them.
    visible: {m: x_m [B, D_m]} in [0, 1].
    factors: multipliers u_m and d of a deeper model's layer; default `PLAIN`, all 1.
  """
  inner = add_bias(evidence(params, visible, factors), params[HIDDEN]["bias"])
  linear = [x @ params[m]["bias"] for m, x in sorted(visible.items())]
  return -sum(linear[1:], linear[0]) - factors.down * jax.nn.softplus(inner).sum(-1)


def energy(params: Params, visible: Mapping[str, jax.Array], hidden: jax.Array) -> jax.Array:
  r"""E(x, h) = -\sum_m (x_m^T W_m h + b_m^T x_m) - c^T h, [B].

  Args:
    params: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}} and c, as `init_mrbm` makes them.
    visible: {m: x_m [B, D_m]} in [0, 1].
    hidden: h [B, H].
  """
  linear = [x @ params[m]["bias"] for m, x in sorted(visible.items())]
  inner = (evidence(params, visible) * hidden).sum(-1)
  return -inner - sum(linear[1:], linear[0]) - hidden @ params[HIDDEN]["bias"]


def first_guess(
  params: Params,
  visible: Mapping[str, jax.Array],
  mask: Mapping[str, jax.Array],
  factors: Factors = PLAIN,
) -> jax.Array:
  r"""h^0 = sigma(s \sum_{m present} u_m W_m^T x_m + c), s = \sum_m u_m / \sum_{m present} u_m, [B, H].

  What is absent is taken to say what is present says: of two modalities, the one there counts
  twice. With nothing present, sigma(c).
  """
  names = modalities_of(params)
  there = {m: mask[m].astype(jnp.float32) for m in names}
  weight = jnp.stack([factors.of(m) * there[m] for m in names]).sum(0)
  total = sum(factors.of(m) for m in names)
  scale = jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1.0), 0.0)
  shown = {m: jnp.where(mask[m][:, None], visible[m], 0.0) for m in names}
  a = evidence(params, shown, factors)
  return jax.nn.sigmoid(add_bias(scale[:, None] * a, params[HIDDEN]["bias"]))


def infer(
  params: Params,
  visible: Mapping[str, jax.Array],
  mask: Mapping[str, jax.Array],
  steps: int = 10,
  *,
  factors: Factors = PLAIN,
  tolerance: float = 0.0,
  path: Path = STRAIGHT,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Mean-field inference with modalities missing: (h [B, H], {m: P(x_m | h) [B, D_m]}).

  From `first_guess`, `steps` times: x_m = P(x_m | h) where m is absent, then h = P(h | x). Rows with
  everything present are exact and stay. With layers between (`path`) `params` are those of the top,
  and a missing modality is run through all of its own layers, down and up again.

  Args:
    params: {m: {"kernel": W_m [D_m, H], "bias": b_m [D_m]}} and c, as `init_mrbm` makes them.
    visible: {m: [B, D_m]} in [0, 1]; not read where absent.
    mask: {m: bool [B]}, True = present.
    steps: default 10 (the authors'); 0 = one feed-forward pass.
    tolerance: ends the loop where the mean |change of h| over the batch falls below it. Default 0:
      a row is then independent of the others; the authors' is 1e-5 (`TOLERANCE`).
    factors: multipliers u_m and d of a deeper model's layer; default `PLAIN`, all 1.
    path: through the layers between; default `STRAIGHT`, none.
  """
  names = modalities_of(params)
  known = {m: mask[m][:, None] for m in names}
  seen = {m: path.up(m, visible[m]) for m in names}

  def guess(h, m):
    return jax.nn.sigmoid(path.down(m, visible_logits(params, h, m, factors)))

  def body(carried):
    i, h, _ = carried
    filled = {m: jnp.where(known[m], seen[m], path.up(m, guess(h, m))) for m in names}
    new = hidden_given(params, filled, factors)
    return i + 1, new, jnp.abs(new - h).mean()

  def goes_on(carried):
    i, _, change = carried
    return (i < steps) & (change >= tolerance)

  start = first_guess(params, seen, mask, factors)
  _, h, _ = jax.lax.while_loop(goes_on, body, (jnp.int32(0), start, jnp.float32(jnp.inf)))
  return h, {m: guess(h, m) for m in names}
