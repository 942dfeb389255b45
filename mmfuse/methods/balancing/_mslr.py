"""MSLR: the learning rate of a modality follows its own validation accuracy.

Yao, Mihalcea: "Modality-specific Learning Rates for Effective Multimodal Additive Late-fusion",
Findings of ACL 2022. The rule stands in `balancing/_mslr.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import objectives, train
from mmfuse.balancing import _mslr
from mmfuse.core import Method, State
from mmfuse.names import REGRESSION


def mslr(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  initial: Mapping[str, float] | None = None,
  window: int = _mslr.WINDOW,
) -> Method:
  """The joint loss; encoder and head of m learn at rate initial_m a_m / mean(last accuracies).

  The accuracy a_m is that of the uni-modal head on the validation rows that have m, after every
  epoch (multi-label: share of right labels).

  Args:
    model: a `core.Model`.
    tx: the optimiser of all its parameters.
    initial, window: as in `balancing.scale_by_mslr`; default 1 for every modality, and 5.

  Raises:
    ValueError: see there; float labels.
    Unavailable: the data have no validation split.
  """
  tx = optax.chain(tx, _mslr.scale_by_mslr(model.modalities, initial=initial, window=window))
  method = train.supervised(model, objectives.fused, tx)
  rates = _mslr.initial_rates(model.modalities, initial)

  def begin(state: State, splits, key, clock) -> State:
    del key, clock
    validation = train.validation_of(splits, "mslr")
    if objectives.task_of(validation.label) == REGRESSION:
      raise ValueError("mslr follows accuracies, which regression labels do not have")
    return state

  def epoch_end(state: State, splits, key, clock) -> State:
    del key, clock
    accuracy = by_modality(method, state, splits["validation"], _right)
    return write_rule(state, mslr_state(read_rule(state), accuracy, rates))

  phase = train.only_phase(method)
  return method._replace(phases=(phase._replace(begin=begin, epoch_end=epoch_end),))


def mslr_state(
  state: _mslr.MslrState, accuracy: Mapping[str, float], initial: Mapping[str, Any]
) -> _mslr.MslrState:
  r"""r_m = a_m / mean(last W accuracies, a_m among them); coefficient_m = initial_m r_m.

  1 in the first epoch, above 1 while the accuracy rises. An accuracy that is NaN (no row had the
  modality) or 0 changes nothing: a factor of 0 would also freeze the head that it is measured by.
  Whether the released mean contains the newest accuracy could not be seen; so it stays below W.
  """
  recent, known, factors = {}, {}, {}
  for m, past in state.recent.items():
    now = jnp.asarray(accuracy[m], jnp.float32)
    there = jnp.isfinite(now)
    recent[m] = jnp.where(there, jnp.append(past[1:], now), past)
    known[m] = jnp.minimum(state.known[m] + there.astype(jnp.int32), past.shape[0])
    mean = recent[m].sum() / jnp.maximum(known[m], 1)  # places not yet filled hold 0
    ratio = now / jnp.where(mean > 0, mean, 1.0)
    factors[m] = jnp.where(there & (now > 0), initial[m] * ratio, state.coefficients[m])
  return _mslr.MslrState(factors, recent, known)


def by_modality(method: Method, state: State, split: Any, judge) -> dict[str, float]:
  """{modality: mean of judge(logits [n, C], label) over labelled rows that have it}; else NaN."""
  outputs, known, out = train.predict_split(method, state, split), train.judged(split), {}
  for m, logits in sorted(outputs.unimodal_logits.items()):
    rows = np.asarray(split.mask[m]) & known
    values = np.asarray(judge(logits, np.asarray(split.label)))
    out[m] = float(values[rows].mean()) if rows.any() else float("nan")
  return out


def _right(logits: np.ndarray, label: np.ndarray) -> np.ndarray:
  if label.ndim == 1:
    return (logits.argmax(-1) == label).astype(np.float64)
  return ((logits > 0) == (label > 0)).mean(-1)


def read_rule(state: State) -> Any:
  """The state of the last link of the optimiser's chain."""
  return state.opt["train"]["tx"][-1]


def write_rule(state: State, rule: Any) -> State:
  """`state` with that link's state replaced: by place, since a field's name may occur elsewhere."""
  opt = state.opt["train"]
  return state._replace(opt={**state.opt, "train": {**opt, "tx": (*opt["tx"][:-1], rule)}})
