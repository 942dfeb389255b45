"""What a student learns from a teacher row by row: its features, and its logits."""

import jax
import jax.numpy as jnp

from mmfuse.objectives._classification import weighted_mean

KINDS = ("mse", "kl")


def mean_square(x: jax.Array, y: jax.Array) -> jax.Array:
  """mean |x_i - y_i|^2 over the elements of each row [B, ...]; float32 [B]."""
  square = jnp.square(x.astype(jnp.float32) - y.astype(jnp.float32))
  return jnp.mean(square.reshape(square.shape[0], -1), axis=-1)


def feature_distillation(student: jax.Array, teacher: jax.Array, weight: jax.Array) -> jax.Array:
  """MSE(teacher, student): the mean over the elements of a row, then over rows by weight; scalar.

  Args:
    student, teacher: [B, ...] of one shape; the teacher is a constant.
    weight: [B]; a row of weight 0 is never read.
  """
  return weighted_mean(mean_square(student, jax.lax.stop_gradient(teacher)), weight)


def logit_distillation(
  student: jax.Array,
  teacher: jax.Array,
  weight: jax.Array | None = None,
  *,
  kind: str = "mse",
  temperature: float = 1.0,
) -> jax.Array:
  r"""The mean over rows of |z_i - t_i|^2 / C, or of T^2 KL(softmax(t_i / T) || softmax(z_i / T)); scalar.

  Args:
    student, teacher: z and t [B, C]; of labels that are told one by one [B, L, 2] for "kl", whose mean
      over the labels is taken. The teacher is a constant.
    weight: [B]; a row of weight 0 is never read. None = 1 each.
    kind: "mse" (default) or "kl", in nats (Hinton, Vinyals and Dean, arXiv 1503.02531, 2015).
    temperature: T of "kl", default 1.

  Raises:
    ValueError: an unknown kind, a temperature that is not positive.
  """
  check_kind(kind, temperature)
  teacher = jax.lax.stop_gradient(teacher)
  if kind == "mse":
    rows = mean_square(student, teacher)
  else:
    rows = temperature**2 * _divergence(student, teacher, temperature)
  return weighted_mean(rows, jnp.ones(rows.shape[0]) if weight is None else weight)


def check_kind(kind: str, temperature: float) -> None:
  """Raises ValueError for what `logit_distillation` does not know."""
  if kind not in KINDS:
    raise ValueError(f"unknown kind {kind!r}; expected one of: {', '.join(KINDS)}")
  if not temperature > 0:
    raise ValueError(f"temperature must be positive, got {temperature}")


def _divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
  """KL(softmax(t / T) || softmax(z / T)) [B], a mean over axes between the first and the last."""
  log_p, log_q = (
    jax.nn.log_softmax(x.astype(jnp.float32) / temperature) for x in (student, teacher)
  )
  found = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
  return jnp.mean(found.reshape(found.shape[0], -1), axis=-1)
