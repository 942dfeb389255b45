"""Some leaves of the parameters and not the others: what an optimiser sees, and what it may move."""

from collections.abc import Callable
from typing import Any

import jax
import optax

Owns = Callable[[str], bool]  # of the path of a leaf, "decoders/audio/kernel"


def path_of(path: Any) -> str:
  """The path of a leaf as predicates read it."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def owned(tree: Any, owns: Owns) -> Any:
  """`tree` with the leaves of others left out, as `optax.masked` leaves them out."""
  return jax.tree_util.tree_map_with_path(
    lambda path, x: x if owns(path_of(path)) else optax.MaskedNode(), tree
  )


def graft(tree: Any, mine: Any) -> Any:
  """`tree` with the leaves that are in `mine`."""
  masked = lambda x: isinstance(x, optax.MaskedNode)
  return jax.tree.map(lambda m, p: p if masked(m) else m, mine, tree, is_leaf=masked)


def moving_only(
  tx: optax.GradientTransformation, owns: Owns
) -> optax.GradientTransformationExtraArgs:
  """`tx` of the leaves that `owns` names, and of no other: neither gradient, momentum nor decay move those.

  `tx` neither sees the others (a norm over all leaves leaves them out) nor keeps anything of them.
  owns: of the path of a leaf, "audio/block0/qkv/bias"; `Player.owns` is the same in `alternate`. A
  gradient of what stays is still computed, unless the model stops it (`frozen`).
  """
  tx = optax.with_extra_args_support(tx)

  def update(grads, state, params=None, **extra_args):
    if "owners" in extra_args:
      extra_args = {**extra_args, "owners": owned(extra_args["owners"], owns)}
    mine = None if params is None else owned(params, owns)
    updates, state = tx.update(owned(grads, owns), state, mine, **extra_args)
    return graft(optax.tree.zeros_like(grads), updates), state

  return optax.GradientTransformationExtraArgs(lambda params: tx.init(owned(params, owns)), update)
