"""The optimisers every row of a table shares: the learning rate is a traced value of their state.

A learning-rate search then compiles nothing: `fit(learning_rate=...)` writes the value there.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import tree

# Factor of the learning rate as a function of progress in [0, 1).
SCHEDULES: dict[str, Callable[[jax.Array], jax.Array]] = {
  "constant": jnp.ones_like,
  "cosine": lambda p: 0.5 * (1.0 + jnp.cos(jnp.pi * p)),
  "step": lambda p: jnp.where(p < 0.7, 1.0, 0.1),  # x 0.1 at 70 %, as OGM-GE and PMR train
}


def scale_by_progress(
  factor: Callable[[jax.Array], jax.Array],
) -> optax.GradientTransformationExtraArgs:
  """updates * factor(progress), progress = (epoch + batch / batches) / epochs read from `clock`."""

  def update(updates, state, params=None, *, clock, **extra_args):
    del params, extra_args
    done = clock.epoch + clock.batch / jnp.maximum(clock.batches, 1)
    value = factor((done / jnp.maximum(clock.epochs, 1)).astype(jnp.float32))
    return jax.tree.map(lambda u: u * value.astype(u.dtype), updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def scale_by_epoch(
  factor: Callable[[jax.Array, jax.Array], jax.Array],
) -> optax.GradientTransformationExtraArgs:
  """updates * factor(epoch, epochs), of the phase and from 0, read from `clock`."""

  def update(updates, state, params=None, *, clock, **extra_args):
    del params, extra_args
    value = jnp.asarray(factor(clock.epoch, clock.epochs), jnp.float32)
    return jax.tree.map(lambda u: u * value.astype(u.dtype), updates), state

  return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def clip_global_norm(max_norm: float = 8.0) -> optax.GradientTransformation:
  """g min(1, max_norm / (|g| + 1e-6)), |g| over all leaves: the clip of torch.

  `optax.clip_by_global_norm` has no 1e-6. Default 8, as I2M2 and MultiBench train. Raises
  ValueError for a norm that is not positive.
  """
  if max_norm <= 0:
    raise ValueError(f"max_norm must be positive, got {max_norm}")

  def update(updates, state, params=None):
    del params
    factor = jnp.minimum(1.0, max_norm / (tree.norm(updates) + 1e-6))
    return jax.tree.map(lambda u: u * factor.astype(u.dtype), updates), state

  return optax.GradientTransformation(optax.init_empty_state, update)


def _finish(direction, learning_rate, schedule, weight_decay, decoupled):
  if schedule not in SCHEDULES:
    raise ValueError(f"unknown schedule {schedule!r}; expected one of: {', '.join(SCHEDULES)}")
  decay = [optax.add_decayed_weights(weight_decay)] if weight_decay else []
  links = [direction, *decay] if decoupled else [*decay, direction]
  if schedule != "constant":
    links.append(scale_by_progress(SCHEDULES[schedule]))
  rate = optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=float(learning_rate))
  return optax.chain(*links, rate)


class Unsearched(NamedTuple):
  """The state of `unsearched`."""

  unsearched: Any  # of the transform; learning rates below this name are not written


def unsearched(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
  """`tx` that keeps its learning rate under `fit(learning_rate=)`: a critic's, a head's own."""
  tx = optax.with_extra_args_support(tx)

  def update(updates, state, params=None, **extra_args):
    updates, inner = tx.update(updates, state.unsearched, params, **extra_args)
    return updates, Unsearched(inner)

  return optax.GradientTransformationExtraArgs(lambda params: Unsearched(tx.init(params)), update)


def sgd(
  learning_rate: float = 0.03,
  *,
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  schedule: str = "constant",
  searched: bool = True,
) -> optax.GradientTransformationExtraArgs:
  """SGD, momentum .9 as the balancing papers train, coupled decay, learning rate in the state.

  m <- momentum m + (g + weight_decay theta);  theta <- theta - learning_rate factor(progress) m

  Args:
    learning_rate: default .03; `fit(learning_rate=)` writes another one.
    momentum: default .9; 0 = none.
    weight_decay: default 0.
    schedule: "constant" (default) or another factor of `SCHEDULES`, of the progress of the phase.
    searched: False keeps the rate under `fit(learning_rate=)`, as `unsearched` does.

  Raises ValueError for an unknown schedule.
  """
  direction = optax.trace(decay=momentum) if momentum else optax.identity()
  tx = _finish(direction, learning_rate, schedule, weight_decay, decoupled=False)
  return tx if searched else unsearched(tx)


def adam(
  learning_rate: float = 1e-3,
  *,
  weight_decay: float = 0.0,
  decoupled: bool = True,
  schedule: str = "constant",
  searched: bool = True,
) -> optax.GradientTransformationExtraArgs:
  """Adam (b1 = .9, b2 = .999, eps = 1e-8), with decoupled decay, learning rate in the state.

  theta <- theta - learning_rate factor(progress) (m / (sqrt(v) + eps) + weight_decay theta)

  With decoupled=False the decay is part of the gradient, and so of the moments m and v: torch's Adam.

  Args:
    learning_rate: default .001; `fit(learning_rate=)` writes another one.
    weight_decay: default 0; above it this is AdamW.
    decoupled: default True; False is L2 inside Adam.
    schedule, searched: as in `sgd`.

  Raises ValueError for an unknown schedule.
  """
  direction = optax.scale_by_adam()
  tx = _finish(direction, learning_rate, schedule, weight_decay, decoupled)
  return tx if searched else unsearched(tx)


def _names(path) -> list:
  return [getattr(p, "key", getattr(p, "name", None)) for p in path]


def _searched(path) -> bool:
  return "unsearched" not in _names(path)


def _rates(opt: Any) -> list[Any]:
  """The injected learning rates of an optimiser state, leaf by leaf."""
  leaves = jax.tree_util.tree_flatten_with_path(opt)[0]
  return [leaf for path, leaf in leaves if _is_rate(path)]


def _is_rate(path) -> bool:
  return _searched(path) and _names(path)[-2:] == ["hyperparams", "learning_rate"]


def _scheduled(opt: Any) -> bool:
  """Whether an injected rate follows a schedule, which writes it anew at each step."""
  leaves = jax.tree_util.tree_flatten_with_path(opt)[0]
  paths = [_names(path) for path, _ in leaves if _searched(path)]
  pairs = [list(itertools.pairwise(names)) for names in paths]
  return any(("hyperparams_states", "learning_rate") in found for found in pairs)


def has_learning_rate(opt: Any, rate: float | None = None) -> bool:
  """Whether an optimiser state holds a learning rate that `set_learning_rate` can write.

  With `rate`, that of the builder that made the (concrete) state: whether what is written there
  means the same. A builder that scales it, groups with rates of their own and schedules do not.
  """
  found = _rates(opt)
  if not found or _scheduled(opt):
    return False
  return rate is None or all(np.all(np.asarray(r) == np.float32(rate)) for r in found)


def set_learning_rate(opt: Any, learning_rate: Any) -> Any:
  """`opt` (concrete) with every injected learning rate set.

  Raises ValueError where there is none, where one follows a schedule, and where they differ: one
  value would then take the place of several that somebody chose.
  """
  found = _rates(opt)
  if not found:
    raise ValueError(
      "this method's optimiser keeps no learning rate in its state that may be written; build it "
      "with train.sgd, train.adam or optax.inject_hyperparams, or one method per rate"
    )
  if _scheduled(opt):
    raise ValueError(
      "this method's learning rate follows a schedule, which would overwrite the one "
      "given; build one method per rate"
    )
  values = sorted({float(v) for r in found for v in np.ravel(np.asarray(r))})
  if len(values) > 1:
    said = ", ".join(f"{v:.6g}" for v in values)
    raise ValueError(
      f"this method has several learning rates ({said}), one would replace them all; "
      "build one method per rate"
    )
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jnp.asarray(learning_rate, leaf.dtype) if _is_rate(path) else leaf, opt
  )
