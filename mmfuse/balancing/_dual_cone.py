"""Projection on the dual cone of the gradients {d : d . g_i >= 0 for all i}, in Gram space.

The projection of \\sum_i u_i g_i is \\sum_i v_i g_i with v = argmin v^T A v over v >= u (Quinton and
Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv 2406.16232, 2024). O(K^3) a pivot.
"""

import jax
import jax.numpy as jnp

_RIDGE = 1e-6  # on cosines: keeps the subproblems of dependent gradients solvable
_TOLERANCE = 1e-6  # of a product d . u_i, relative to what d is summed from


def project_dual_cone(cosines: jax.Array, target: jax.Array) -> jax.Array:
  r"""v = argmin v^T C v over v >= u; cosines C [K, K] with a unit diagonal, u >= 0 [K] -> v [K].

  With s = v - u >= 0 and z = C v the solution has z >= 0 and s_i z_i = 0. An active-set method: the
  most negative z_i becomes free, the free z are solved to 0, and an s that would turn negative is
  fixed again; at most 4 K + 4 pivots. u itself comes back unchanged where C u >= 0.
  """
  num = cosines.shape[0]
  regular = cosines + _RIDGE * jnp.eye(num, dtype=cosines.dtype)
  linear = cosines @ target

  def body(carry):
    s, free, _, i = carry
    # Rows and columns that are not free become those of the identity.
    system = jnp.where(free[:, None] & free[None, :], regular, jnp.eye(num, dtype=cosines.dtype))
    wanted = jnp.where(free, jnp.linalg.solve(system, jnp.where(free, -linear, 0.0)), 0.0)
    blocked = free & (wanted <= 0)
    # A step towards `wanted` that stops where the first s reaches zero.
    room = jnp.where(blocked, s / jnp.where(blocked & (s > wanted), s - wanted, 1.0), jnp.inf)
    partial = jnp.where(free, s + jnp.minimum(room.min(), 1.0) * (wanted - s), 0.0)
    stuck = blocked.any()
    s = jnp.maximum(jnp.where(stuck, partial, wanted), 0.0)
    z = cosines @ (target + s)
    tolerance = _TOLERANCE * jnp.sum(target + s)
    entering = jnp.argmin(jnp.where(free, jnp.inf, z))
    enters = ~stuck & (jnp.where(free, jnp.inf, z)[entering] < -tolerance)
    leaves = blocked & (room == room.min())
    free = jnp.where(stuck, free & ~leaves, free.at[entering].set(free[entering] | enters))
    return s, free, stuck | enters, i + 1

  def unfinished(carry):
    return carry[2] & (carry[3] < 4 * num + 4)

  start = (jnp.zeros_like(target), jnp.zeros(num, bool), jnp.array(True), jnp.int32(0))
  return target + jax.lax.while_loop(unfinished, body, start)[0]


def dual_cone_gap(cosines: jax.Array, target: jax.Array, point: jax.Array) -> jax.Array:
  r"""Duality gap of v as projection of u: s^T z + (\sum v) max(0, -min z), s = v - u, z = C v.

  The first term is the gap where d is in the cone (z >= 0); the second bounds what could still be
  gained where it is not, for steps of up to \sum v. Relative to u^T u. Shapes as above; a scalar.
  """
  z = cosines @ point
  gap = (point - target) @ z + point.sum() * jnp.maximum(0.0, -z.min())
  return gap / jnp.maximum(target @ target, 1e-30)
