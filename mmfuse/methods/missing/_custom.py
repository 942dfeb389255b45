"""Custom: a model of its own for every subset of modalities, what one model for all is measured by."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import masks, objectives, train
from mmfuse.core import Batch, Method, Outputs, Phase, State, Unavailable

MOST = 4  # modalities: 15 models
PHASE = "train"


def custom(model: Any, tx: optax.GradientTransformation) -> Method:
  """2^M - 1 independent models, each of one subset S of modalities and trained by CE(fused) on it.

  A step moves all of them, each by the rows of the batch that have some of S. A row is predicted by
  the model of exactly what it has, and a modality's own column is the model of it alone. One
  learning rate and one epoch for all. A step costs M 2^(M - 1) encoder passes, not M.

  Args:
    model: a `core.Model` that can be restricted.
    tx: the optimiser of each model's parameters, by itself.

  Raises:
    Unavailable: a model without `restrict`, more than four modalities.
  """
  names = tuple(sorted(model.modalities))
  if getattr(model, "restrict", None) is None:
    raise Unavailable("custom needs a model that can be restricted to fewer modalities")
  if len(names) > MOST:
    raise Unavailable(
      f"custom trains a model per subset: at most {MOST} modalities, these are {len(names)}"
    )
  experts = {
    pattern(subset, names): train.supervised(model.restrict(subset), objectives.fused, tx)
    for subset in masks.combinations(names)
  }
  predict = _Predict(names, tuple((name, e.predict) for name, e in experts.items()))
  steps = _Steps(names, {name: train.only_phase(e) for name, e in experts.items()})

  def init(key, batch, num_rows):
    # One key: an encoder starts from the same parameters in all models, as between rows of a table.
    made = {name: e.init(key, batch, num_rows) for name, e in experts.items()}
    part = lambda field: {name: getattr(state, field) for name, state in made.items()}
    opt = {name: state.opt[PHASE] for name, state in made.items()}
    return State(part("params"), part("stats"), {PHASE: opt}, part("memory"))

  return Method(init, predict, (Phase(PHASE, steps),))


def pattern(subset: tuple[str, ...], names: tuple[str, ...]) -> str:
  """("a", "c") of a, b, c -> "101", as the field's tables write it."""
  return "".join("01"[m in subset] for m in names)


def _members(name: str, names: tuple[str, ...]) -> tuple[str, ...]:
  return tuple(m for m, bit in zip(names, name) if bit == "1")


def _part(state: State, name: str) -> State:
  """The state of one model; without an optimiser where it was left out."""
  opt = {PHASE: state.opt[PHASE][name]} if PHASE in state.opt else {}
  return State(state.params[name], state.stats[name], opt, state.memory[name])


class _Steps:
  """The step of all models."""

  def __init__(self, names: tuple[str, ...], phases: dict[str, Phase]):
    self.names, self.phases = names, phases

  def __call__(self, state: State, batch: Batch, key: jax.Array, clock):
    new, logs = {}, {}
    for i, (name, phase) in enumerate(self.phases.items()):
      some = jnp.stack([batch.mask[m] for m in _members(name, self.names)]).any(0)
      mine = batch._replace(weight=jnp.where(some, batch.weight, 0.0))
      new[name], logs[name] = phase.step(
        _part(state, name), mine, jax.random.fold_in(key, i), clock
      )
    part = lambda field: {name: getattr(s, field) for name, s in new.items()}
    log = {f"loss/{name}": own["loss/fused"] for name, own in logs.items()}
    norms = jnp.stack([own["gradient_norm"] for own in logs.values()])
    log["gradient_norm"] = jnp.sqrt(jnp.square(norms).sum())
    log["finite"] = jnp.stack([own["finite"] for own in logs.values()]).all()
    opt = {name: s.opt[PHASE] for name, s in new.items()}
    return State(part("params"), part("stats"), {PHASE: opt}, part("memory")), log


@dataclasses.dataclass(frozen=True)
class _Predict:
  """Each row by the model of what it has; one that has nothing by the complete model."""

  names: tuple[str, ...]
  experts: tuple[tuple[str, Any], ...]  # (pattern, prediction), the complete one last

  def __call__(self, state: State, inputs: dict, mask: dict) -> Outputs:
    found = {name: predict(_part(state, name), inputs, mask) for name, predict in self.experts}
    complete = found["1" * len(self.names)]
    logits = complete.logits
    for name, outputs in found.items():
      wanted = _members(name, self.names)
      mine = jnp.stack([mask[m] == (m in wanted) for m in self.names]).all(0)
      logits = jnp.where(mine[:, None], outputs.logits, logits)
    alone = {m: found[pattern((m,), self.names)].logits for m in self.names}
    return Outputs(logits, alone, complete.features)
