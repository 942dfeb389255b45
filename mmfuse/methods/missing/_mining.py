"""MMANet's mining: which subset of modalities is predicted least like the complete input.

Wei, Luo and Luo, CVPR 2023, eq. 9 to 13 as the released code has them; between epochs, on the host.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import masks, objectives, tasks, train
from mmfuse.core import Batch, Method, State
from mmfuse.methods.missing._branch import own_part
from mmfuse.methods.missing._combinations import chosen
from mmfuse.names import MULTILABEL, SEGMENTATION
from mmfuse.tree import FUSED

FORMS = ("softmax", "plain")


def check_form(form: str) -> None:
  """Raises ValueError for an unknown form."""
  if form not in FORMS:
    raise ValueError(f"unknown histogram {form!r}; expected one of: {', '.join(FORMS)}")


def candidates(names: Sequence[str]) -> list[tuple[str, ...]]:
  """The subsets that lack one modality, in the tables' order: 110, 101, 011; of two 10, 01."""
  return [s for s in masks.combinations(names) if len(s) == len(names) - 1]


def histogram_distance(
  counts: np.ndarray, complete: np.ndarray, form: str = "softmax"
) -> np.ndarray:
  """KL(s(p_c) || s(p_full)), p the share of each predicted label; nats [Q], 0 where nothing was counted.

  Args:
    counts: [Q, C], how often each label was predicted from subset c.
    complete: [C], from everything.
    form: s: "softmax" (default, the released code) of the shares themselves, which damps differences;
      "plain": the shares, one more counted of each label (ours), since KL is infinite where the
      complete input never gives a label.

  Raises:
    ValueError: an unknown form.
  """
  check_form(form)
  counts, complete = np.asarray(counts, np.float64), np.asarray(complete, np.float64)

  def log_shares(n):
    if form == "plain":
      return np.log(n + 1) - np.log((n + 1).sum(-1, keepdims=True))
    p = n / np.maximum(n.sum(-1, keepdims=True), 1)
    return p - np.log(np.exp(p).sum(-1, keepdims=True))

  log_p, log_full = log_shares(counts), log_shares(complete)[None]
  distance = (np.exp(log_p) * (log_p - log_full)).sum(-1)
  return np.where(counts.sum(-1) > 0, distance, 0.0)


def score_gap(scores: np.ndarray, complete: np.ndarray) -> np.ndarray:
  """(score_full - score_c)^2, what segmentation adds up instead, of mIoU. It reads labels.

  scores [..., Q] of the candidates, complete [...].
  """
  return np.square(np.asarray(complete)[..., None] - np.asarray(scores))


def with_singles(weak: tuple[str, ...]) -> list[tuple[str, ...]]:
  """The weak subsets: the one that was found, and each of its modalities alone."""
  return list(dict.fromkeys([weak, *((m,) for m in weak)]))


def warm_up_epochs(epochs: Any, share: float) -> Any:
  """The epochs of a phase in which only the task is learnt: the nearest to share * epochs, at least 1.

  In thousandths, so that a step, where `epochs` is traced, and a hook, where it is an int, agree to the
  last epoch.
  """
  nearest = (epochs * round(1000 * share) + 500) // 1000
  return jnp.maximum(nearest, 1) if isinstance(epochs, jax.Array) else max(int(nearest), 1)


def is_mining(done: int, warm_up: int) -> bool:
  """Whether subsets are compared after `done` epochs: 2, 3 and 4 of 5; of 1 or 2, after the first."""
  last = max(warm_up - 1, 1)
  return min(2, last) <= done <= last


@dataclasses.dataclass(frozen=True)
class Predicted:
  """(state, batch) -> which labels are predicted, 0 or 1 [b, C], from what memory["keep"] leaves."""

  predict: Any
  names: tuple[str, ...]

  def __call__(self, state: State, batch: Batch) -> jax.Array:
    mask = {m: batch.mask[m] & state.memory["keep"][m] for m in self.names}
    logits = self.predict(state, batch.inputs, mask).logits
    if objectives.task_of(batch.label) == MULTILABEL:
      found = (logits > 0).astype(jnp.float32)
    else:
      found = jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1])
    some = jnp.stack([mask[m] for m in self.names]).any(0) & (batch.weight > 0)
    return jnp.where(some[:, None], found, 0.0)


@dataclasses.dataclass(frozen=True)
class HistogramDistance:
  """(state, validation rows) -> [Q]: `histogram_distance` of each candidate."""

  predicted: Predicted
  form: str

  def __call__(self, state: State, split) -> np.ndarray:
    names = self.predicted.names
    *counts, whole = [self._counts(state, split, s) for s in (*candidates(names), names)]
    return histogram_distance(np.stack(counts), whole, self.form)

  def _counts(self, state: State, split, subset: tuple[str, ...]) -> np.ndarray:
    """[C]: how often each label is predicted from a subset, over the rows that have some of it."""
    keep = {m: jnp.asarray(m in subset) for m in self.predicted.names}
    return train.over_split(self.predicted, state._replace(memory={"keep": keep}), split).sum(0)


@dataclasses.dataclass(frozen=True)
class ScoreGap:
  """(state, validation rows) -> [Q]: the squared gap of the mIoU from each candidate; it reads labels."""

  predict: Any
  names: tuple[str, ...]

  def __call__(self, state: State, split) -> np.ndarray:
    shape = jax.eval_shape(self.predict, state, *_one_row(split)).logits.shape
    metric = tasks.metric(SEGMENTATION, shape[-1])
    subsets = [*candidates(self.names), self.names]
    method = Method(None, self.predict, ())  # type: ignore[arg-type]
    found = train.evaluate_subsets(method, state, split, metric=metric, subsets=subsets)
    *scores, whole = [s[FUSED][tasks.get(SEGMENTATION).primary] for _, s in found]
    # A subset that no row has, or a prediction that is not finite, is at no distance.
    return np.nan_to_num(score_gap(np.asarray(scores), np.asarray(whole)), nan=0.0)


def _one_row(split) -> tuple[Any, Any]:
  batch = next(split.batches(1))
  return batch.inputs, batch.mask


@dataclasses.dataclass(frozen=True)
class Hooks:
  """What happens between epochs: the teacher is kept, and weak subsets are looked for."""

  distance: Callable[[State, Any], np.ndarray]  # (state, validation rows) -> [Q] of `candidates`
  names: tuple[str, ...]
  warm_up: float

  def memory(self, state: State, num_rows: int) -> dict[str, Any]:
    """{"initial": weights, "objective": the memory of `Distilled`}."""
    del num_rows
    number, start = len(self.names), train.weights_of(state)
    weak = jnp.zeros(2**number - 1, bool)
    own = {"teacher": _own(start), "distance": jnp.zeros(number), "weak": weak}
    return {"initial": start, "objective": own}

  def ask(self, state: State, splits, key, clock) -> State:
    """Before the teacher: raises Unavailable where nothing could be mined later."""
    del key, clock
    train.validation_of(splits, "mmanet")
    return state

  def begin(self, state: State, splits, key, clock) -> State:
    """The teacher is what was trained; the student begins where it began."""
    del splits, key, clock
    own = {**state.memory["objective"], "teacher": _own(train.weights_of(state))}
    return train.restore(train.remember(state, objective=own), state.memory["initial"])

  def epoch_end(self, state: State, splits, key, clock) -> State:
    """Adds up distances from the complete input, and takes the largest."""
    del key
    if not is_mining(clock.epoch, warm_up_epochs(clock.epochs, self.warm_up)):
      return state
    split = train.validation_of(splits, "mmanet")
    own = state.memory["objective"]
    distance = np.asarray(own["distance"]) + self.distance(state, split)
    subsets = candidates(self.names)
    weak = chosen(with_singles(subsets[int(np.argmax(distance))]), self.names)
    new = {"distance": jnp.asarray(distance, jnp.float32), "weak": jnp.asarray(weak)}
    return train.remember(state, objective={**own, **new})


def _own(kept: dict[str, Any]) -> dict[str, Any]:
  """A teacher needs no branch."""
  return {k: own_part(part) for k, part in kept.items()}
