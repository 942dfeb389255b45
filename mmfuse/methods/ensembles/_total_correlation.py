"""Conditional total correlation of several features given the class, by a critic."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import draws, objectives

# (z [N, B, d], label [B]) -> T [B]
Critic = Callable[[jax.Array, jax.Array], jax.Array]


class CriticNetwork(nn.Module):
  """([z_1; ...; z_N; onehot y] [B, N d + C]) -> T [B]: an MLP; default two hidden layers of 64.

  shifts: default True; False: T has no bias, for `dv`, which no constant changes: its gradient would be
  rounding, which Adam makes as large as any other.
  """

  hidden: tuple[int, ...] = (64, 64)
  shifts: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for i, width in enumerate(self.hidden):
      x = nn.relu(nn.Dense(width, name=f"dense{i}")(x))
    return nn.Dense(1, use_bias=self.shifts, name="out")(x)[..., 0]


def beside_label(z: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
  """[z_1; ...; z_N; onehot y] [B, N d + C] of z [N, B, d] and label [B]: what a critic reads."""
  return jnp.concatenate([*z, jax.nn.one_hot(label, num_classes, dtype=z.dtype)], -1)


def permute_within_classes(key: jax.Array, label: jax.Array, number: int) -> jax.Array:
  """int [N, B]: permutations of the rows that keep every class in its rows; the first is the identity.

  Rows are sorted by (class, place) and by (class, random key), and the i-th of one goes to the i-th of the
  other: shapes do not depend on the labels. A class of one row keeps it.

  Args:
    key: of the draw; that of a row does not depend on how many rows come after it.
    label: int [B]. Rows that are not to be mixed with others are a class of their own.
    number: N.
  """
  place = jnp.arange(label.shape[0])
  drawn = draws.flat(jax.random.uniform, key, (label.shape[0], number)).T
  here = jnp.lexsort((place, label))

  def one(draw):
    return jnp.zeros_like(place).at[here].set(jnp.lexsort((draw, label)))

  return jax.vmap(one)(drawn).at[0].set(place)


def permuted(z: jax.Array, perms: jax.Array) -> jax.Array:
  """z [N, B, d] with the rows of z_n in the order perms[n]: samples of prod_n p(z_n | y)."""
  return jnp.take_along_axis(z, perms[:, :, None], axis=1)


def log_mean_exp(values: jax.Array, weight: jax.Array) -> jax.Array:
  """log (sum_i w_i e^{v_i} / sum_i w_i) over the rows with w > 0, the only ones read; 0 without any."""
  used = weight > 0
  some = used.any()
  top = jax.lax.stop_gradient(jnp.where(some, jnp.max(values, initial=-jnp.inf, where=used), 0.0))
  mean = objectives.weighted_mean(jnp.exp(jnp.where(used, values - top, 0.0)), weight)
  return jnp.where(some, jnp.log(jnp.where(some, mean, 1.0)) + top, 0.0)


def dv(joint: jax.Array, product: jax.Array, weight: jax.Array) -> jax.Array:
  """E_joint T - log E_product e^T (Donsker and Varadhan): T [B] each, a lower bound in nats."""
  return objectives.weighted_mean(joint, weight) - log_mean_exp(product, weight)


def nwj(joint: jax.Array, product: jax.Array, weight: jax.Array) -> jax.Array:
  """E_joint T - E_product e^{T - 1} (Nguyen, Wainwright and Jordan): never above `dv` of the same T."""
  weighed = objectives.weighted_mean
  return weighed(joint, weight) - weighed(jnp.exp(product - 1), weight)


def density_ratio(joint: jax.Array, product: jax.Array, weight: jax.Array) -> jax.Array:
  """E_joint T, T the logarithm of the ratio of densities by a critic trained by `ratio_loss`."""
  del product
  return objectives.weighted_mean(joint, weight)


def ratio_loss(joint: jax.Array, product: jax.Array, weight: jax.Array) -> jax.Array:
  """E_joint softplus(-T) + E_product softplus(T): telling joint samples from permuted ones."""
  weighed = objectives.weighted_mean
  return weighed(jax.nn.softplus(-joint), weight) + weighed(jax.nn.softplus(product), weight)


Estimator = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({"dv": dv, "nwj": nwj, "dre": density_ratio})


def critic_loss(kind: str, joint: jax.Array, product: jax.Array, weight: jax.Array) -> jax.Array:
  """What a critic minimises: less of the bound, or `ratio_loss` of "dre".

  Args:
    kind: one of `ESTIMATORS`.
    joint, product: T [B] of samples of either kind.
    weight: [B].
  """
  if kind == "dre":
    return ratio_loss(joint, product, weight)
  return -ESTIMATORS[kind](joint, product, weight)


def judged(
  critic: Critic, z: jax.Array, label: jax.Array, perms: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(T of joint samples, T of permuted ones), [B] each.

  Args:
    critic: T.
    z: [N, B, d].
    label: [B].
    perms: [N, B].
  """
  return critic(z, label), critic(permuted(z, perms), label)


def gaussian_total_correlation(sigma: jax.Array, block: int) -> jax.Array:
  """1/2 (sum_n log |Sigma_nn| - log |Sigma|) of jointly Gaussian blocks of `block` columns, in nats."""
  number = sigma.shape[0] // block
  cut = sigma.reshape(number, block, number, block)
  own = jnp.stack([cut[n, :, n] for n in range(number)])
  return 0.5 * (jnp.linalg.slogdet(own)[1].sum() - jnp.linalg.slogdet(sigma)[1])
