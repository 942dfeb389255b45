"""cca: regularised canonical correlation of the inputs themselves, in closed form.

Hotelling: "Relations Between Two Sets of Variates", Biometrika 28, 1936; what it computes is in
`_canonical.py`.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import masks, train
from mmfuse.core import LAST, Batch, Clock, Method, Outputs, Phase, Sequence, State, Unavailable
from mmfuse.fusion._attention import check_counts
from mmfuse.methods.representation import _canonical
from mmfuse.methods.representation._towers import check_pairs, side_by_side
from mmfuse.names import CLASSIFICATION, RETRIEVAL

NAME = "closed_form"


def _flat(x: Any) -> Any:
  """[B, D]; of a sequence its values, which are 0 after the end."""
  x = x.values if isinstance(x, Sequence) else x
  return x.reshape(x.shape[0], -1)


def _width(m: str, x: Any) -> int:
  """D of a modality. Raises Unavailable for what holds no numbers."""
  values = x.values if isinstance(x, Sequence) else x
  if not hasattr(values, "dtype"):
    raise Unavailable(f"cca reads one array per modality, and {m!r} is a {type(values).__name__}")
  if not jnp.issubdtype(values.dtype, jnp.floating):
    raise Unavailable(f"cca correlates numbers, and {m!r} holds {values.dtype} (tokens or classes)")
  return math.prod(values.shape[1:])


@dataclasses.dataclass(frozen=True)
class _Begin:
  """The maps, from the training rows alone."""

  components: int
  ridge: float

  def __call__(self, state: State, splits, key, clock: Clock) -> State:
    del key, clock
    batch = train.to_batch(splits["train"])
    weight = np.asarray(batch.weight, np.float64)
    x, present = {}, {}
    for m in state.params:
      there = np.asarray(batch.mask[m]) & (weight > 0)
      values = np.asarray(_flat(batch.inputs[m]))
      x[m] = np.where(there[:, None], values, 0.0).astype(np.float64)
      present[m] = np.where(there, weight, 0.0)
    found = _canonical.canonical_maps(x, present, self.components, self.ridge)
    params = {
      m: {"mean": jnp.float32(v.mean), "kernel": jnp.float32(v.kernel)} for m, v in found.items()
    }
    return state._replace(params={**state.params, **params})


def _step(state: State, batch: Batch, key, clock: Clock):
  """Nothing is left to do."""
  del batch, key, clock
  return state, {"loss": jnp.zeros(())}


def _no_rows(state: State, splits, key, clock: Clock):
  """One batch of padding: no row is looked at, and none is counted as a gradient evaluation."""
  del state, splits, key, clock
  return np.full((1, 1), -1, np.int32), None


def _predict(state: State, inputs: dict, mask: dict) -> Outputs:
  """features {m: (x - mean) kernel [B, K]}, 0 where absent."""
  names = sorted(state.params)
  x = masks.fill({m: inputs[m] for m in names}, {m: mask[m] for m in names})
  turn = lambda m, p: (_flat(x[m]) - p["mean"][None]) @ p["kernel"]
  features = {m: turn(m, state.params[m]) for m in names}
  return Outputs(None, features=masks.fill(features, {m: mask[m] for m in names}))


@dataclasses.dataclass(frozen=True)
class _Init:
  """Until the phase begins, the first columns as they are."""

  modalities: tuple[str, ...]
  components: int

  def __call__(self, key: jax.Array, batch: Batch, num_rows: int) -> State:
    del key, num_rows
    widths = {m: _width(m, batch.inputs[m]) for m in self.modalities}
    params = {
      m: {"mean": jnp.zeros(d), "kernel": jnp.eye(d, self.components)} for m, d in widths.items()
    }
    return State(params, {}, {NAME: {}}, {})


def cca(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  components: int = 10,
  ridge: float = 0.1,
  share: float = 0.05,
) -> Method:
  r"""The K directions of each modality that are most correlated with those of the others, no labels:

  \sum_{n != m} S_mn w_n = l (S_mm + ridge v_m I) w_m, features (x_m - mean_m) w_m l: each variate
  counts by its correlation. Everything is done when the phase begins; its steps do nothing. Of a
  retrieval that is all, and all rates are the same; of other tasks a phase "head" follows, a linear head on
  the variates of all modalities side by side.

  It reads the inputs, flattened, not the encoders; covariances are over the training rows that have both.

  Args:
    model: its modalities and the width of its logits are read.
    tx: the optimiser of the head.
    task: of the data, default "classification".
    components: K, default 10 (ours).
    ridge: of the mean variance v_m of a column, default .1 (ours).
    share: of the epochs before the head, default .05 (at least one).

  Raises:
    ValueError: components < 1, a negative ridge, a share outside (0, 1).
    Unavailable: one modality; at `init` tokens; on entering, no training row with two modalities.

  Reference: Hotelling, Biometrika 1936.
  """
  check_counts(components=components)
  if ridge < 0:
    raise ValueError(f"ridge must not be negative, got {ridge}")
  check_pairs(model.modalities)
  init = _Init(tuple(sorted(model.modalities)), components)
  phase = Phase(NAME, _step, _Begin(components, ridge), rows=_no_rows, select=LAST)
  found = Method(init, _predict, (phase,))
  if task == RETRIEVAL:
    return found
  return train.with_head(found, side_by_side, train.Width(model), tx, share)
