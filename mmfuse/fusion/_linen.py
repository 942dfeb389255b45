"""A user's own Linen module as a `core.Model`."""

from collections.abc import Mapping, Sequence

import flax.linen as nn

from mmfuse import core, encoders, masks
from mmfuse.core import Functions, Model, Outputs
from mmfuse.fusion._late import check_modalities, check_present


def from_linen(module: nn.Module, modalities: Sequence[str]) -> Model:
  """Adapts a Linen module with methods `encode` and `heads` to `core.Model`.

  `encode(inputs {m: [B, ...]}, mask {m: bool [B]}, train)` returns features {m: ...};
  `heads(features, mask, train)` returns `Outputs`. Their submodules are made in `setup`, named
  after the modality (encoders) and collected under one named "heads", if the parameters are to be
  told apart by modality (`tree.owners_of`); all others count as shared. Absent input rows come
  in as zeros, and so do the values of a `core.Sequence` after each row's end. `restrict` is None:
  only the module's author knows what it is on fewer modalities.
  Raises TypeError for a module without these methods, ValueError for no modality or a reserved
  name.
  """
  missing = [name for name in ("encode", "heads") if not callable(getattr(module, name, None))]
  if missing:
    raise TypeError(
      f"{type(module).__name__} has no method {missing[0]!r}; from_linen needs "
      "encode(inputs, mask, train) and heads(features, mask, train)"
    )
  names = tuple(sorted(modalities))
  check_modalities(names)

  def both(module, inputs, mask, train):
    return module.heads(module.encode(inputs, mask, train), mask, train)

  def select(inputs, mask):
    check_present(names, inputs, mask)
    return {m: _ended(x) for m, x in masks.fill({m: inputs[m] for m in names}, mask).items()}

  def apply(variables, method, *args, train, rngs):
    collections = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
    if not train:
      out = module.apply(collections, *args, False, rngs=rngs, method=method)
      return out, variables["batch_stats"]
    out, new = module.apply(
      collections, *args, True, rngs=rngs, method=method, mutable=["batch_stats"]
    )
    # A call that touches no statistics returns none of them: those that came in still hold.
    return out, _merge(variables["batch_stats"], new.get("batch_stats", {}))

  def init(key, inputs, mask):
    variables = module.init(key, select(inputs, mask), mask, False, method=both)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}

  def encode(variables, inputs, mask, *, train, rngs=None):
    return apply(variables, "encode", select(inputs, mask), mask, train=train, rngs=rngs)

  def heads(variables, features, mask, *, train, rngs=None):
    outputs, stats = apply(variables, "heads", features, mask, train=train, rngs=rngs)
    if not isinstance(outputs, Outputs):
      raise TypeError(f"heads must return core.Outputs, got {type(outputs).__name__}")
    return outputs, stats

  return Functions(init, encode, heads, names)


def _ended(x):
  """A sequence with zeros after its rows' ends; anything else as it is."""
  return x._replace(values=encoders.as_array(x)) if isinstance(x, core.Sequence) else x


def _merge(old, new):
  """`old` with the entries of `new` put in, depth first."""
  if not isinstance(old, Mapping):
    return new
  return {k: _merge(v, new[k]) if k in new else v for k, v in old.items()}
