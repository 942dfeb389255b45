"""Methods of methods: phases one after the other, memory, parameter sets side by side."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from mmfuse.core import Method, Outputs, Phase, State
from mmfuse.fusion._late import named_key
from mmfuse.train._lens import FROZEN, lift


def with_memory(method: Method, extend: Callable[[State, int], dict[str, Any]]) -> Method:
  """`method` whose initial memory also holds `extend(state, num_rows)`: the structure `init` fixes."""

  def init(key, batch, num_rows):
    state = method.init(key, batch, num_rows)
    return state._replace(memory={**state.memory, **extend(state, num_rows)})

  return method._replace(init=init)


def remember(state: State, **entries: Any) -> State:
  """`state` with entries of its memory replaced."""
  return state._replace(memory={**state.memory, **entries})


def weights_of(state: State) -> dict[str, Any]:
  """{"params", "stats"}: a copy of the model to keep in memory."""
  return {"params": state.params, "stats": state.stats}


def restore(state: State, kept: Mapping[str, Any]) -> State:
  """`state` with the parameters and statistics that `weights_of` kept."""
  return state._replace(params=kept["params"], stats=kept["stats"])


def only_phase(method: Method) -> Phase:
  """The phase of a method that has one."""
  (phase,) = method.phases
  return phase


def with_share(method: Method, share: float) -> Method:
  """`method` whose phases have `share` of the epochs together, in their old proportion."""
  total = sum(p.share for p in method.phases)
  phases = tuple(p._replace(share=share * p.share / total) for p in method.phases)
  return method._replace(phases=phases)


def then(first: Method, second: Method, share: float | None = None) -> Method:
  """The phases of both, one after the other, on one state; `second` predicts.

  Both start from the same key, hence from the same parameters where they have the same model; those
  of `second` are kept. A phase of `first` is validated with the prediction of `first`.

  Args:
    first, second: methods whose parameters have one structure (`parts` takes any).
    share: of the epochs for `first`, the rest for `second`; None keeps the shares of the phases.

  Raises:
    ValueError: two phases of one name, a share outside (0, 1).
  """
  _check_names([p.name for m in (first, second) for p in m.phases])
  if share is not None:
    check_share(share)
    first, second = with_share(first, share), with_share(second, 1 - share)

  def init(key, batch, num_rows):
    a, b = first.init(key, batch, num_rows), second.init(key, batch, num_rows)
    return b._replace(opt={**a.opt, **b.opt}, memory={**a.memory, **b.memory})

  early = tuple(p._replace(predict=p.predict or first.predict) for p in first.phases)
  return second._replace(init=init, phases=(*early, *second.phases))


def check_share(share: float) -> None:
  """Raises ValueError for a share that leaves one of two methods nothing."""
  if not 0 < share < 1:
    raise ValueError(f"share must lie in (0, 1), got {share}")


def _check_names(names: Sequence[str]) -> None:
  twice = sorted({n for n in names if names.count(n) > 1})
  if twice:
    raise ValueError(f"two phases are called {twice[0]!r}; give one another name=")


@dataclasses.dataclass(frozen=True)
class _Part:
  """The lens of one part: its entry of params, stats and memory, its own keys of opt."""

  name: str
  frozen: tuple[str, ...]  # other parts, seen as memory["frozen"][part]

  def take(self, state: State) -> State:
    prefix = f"{self.name}/"
    opt = {k.removeprefix(prefix): v for k, v in state.opt.items() if k.startswith(prefix)}
    memory = state.memory[self.name]
    if self.frozen:
      others = {name: _Part(name, ()).take(state)._replace(opt={}) for name in self.frozen}
      memory = {**memory, FROZEN: others}
    return State(state.params[self.name], state.stats[self.name], opt, memory)

  def put(self, state: State, own: State) -> State:
    memory = {k: v for k, v in own.memory.items() if not (self.frozen and k == FROZEN)}
    return State(
      {**state.params, self.name: own.params},
      {**state.stats, self.name: own.stats},
      {**state.opt, **_prefixed(self.name, own.opt)},
      {**state.memory, self.name: memory},
    )


def _prefixed(name: str, entries: Mapping[str, Any]) -> dict[str, Any]:
  return {f"{name}/{k}": v for k, v in entries.items()}


@dataclasses.dataclass(frozen=True)
class _AllParts:
  """`Method.predict` of several parts, of what each of them says."""

  predicts: tuple[tuple[str, Callable[..., Outputs]], ...]
  join: Callable[[dict[str, Outputs], dict], Outputs]

  def __call__(self, state: State, inputs: dict, mask: dict) -> Outputs:
    return self.join({name: p(state, inputs, mask) for name, p in self.predicts}, mask)


def parts(
  methods: Mapping[str, Method],
  *,
  predict: str | Callable[[dict[str, Outputs], dict], Outputs],
  freeze: Sequence[str] = (),
) -> Method:
  """Several methods side by side, each with parameters of its own; any architectures.

  `State.params`, `stats` and `memory` hold each part under its name; phases are "part/phase", in the
  order given, and so are the optimisers' states and the functions (those of the part that predicts
  are there under their own names too). A phase moves its own part alone;
  its hooks, prediction, metric and selection are those of the method. Shares are scaled to one in
  total. The key of a part is that of the run folded with its name: equal methods start differently.

  Args:
    methods: {part: method}. A teacher before its student, or M networks.
    predict: the part that predicts, or `({part: Outputs}, mask) -> Outputs` (compared by value: a
      function of a module or a frozen dataclass).
    freeze: parts that the others may read: in their phases, hooks and predictions
      `state.memory["frozen"][part]` is its `State` without optimiser, which
      `methods[part].predict` takes. The loss of `minimise` gets it with its memory, an objective of
      `supervised` as `frozen`, where it names it. What is written there is dropped.

  Raises:
    ValueError: no part, a name with "/", an unknown part in `predict` or `freeze`.
  """
  names = tuple(methods)
  _check_parts(names, predict, freeze)
  lenses = {n: _Part(n, tuple(f for f in freeze if f != n)) for n in names}
  lifted = {n: lift(method, lenses[n]) for n, method in methods.items()}
  total = sum(p.share for m in methods.values() for p in m.phases)

  def init(key: jax.Array, batch, num_rows: int) -> State:
    states = {n: m.init(named_key(key, n), batch, num_rows) for n, m in methods.items()}
    opt = {k: v for n, s in states.items() for k, v in _prefixed(n, s.opt).items()}
    params, stats, memory = (
      {n: getattr(s, field) for n, s in states.items()} for field in ("params", "stats", "memory")
    )
    return State(params, stats, opt, memory)

  phases = [
    p._replace(name=f"{n}/{p.name}", predict=p.predict or lifted[n].predict, share=p.share / total)
    for n in names
    for p in lifted[n].phases
  ]
  said = (
    lifted[predict].predict
    if isinstance(predict, str)
    else _AllParts(tuple((n, lifted[n].predict) for n in names), predict)
  )
  functions = {k: v for n in names for k, v in _prefixed(n, lifted[n].functions).items()}
  if isinstance(predict, str):
    functions |= lifted[predict].functions
  return Method(init, said, tuple(phases), functions)


def _check_parts(names: tuple[str, ...], predict, freeze: Sequence[str]) -> None:
  if not names:
    raise ValueError("parts needs at least one method, got none")
  for name in names:
    if "/" in name:
      raise ValueError(f"a part's name holds no '/', which joins it to its phases; got {name!r}")
  asked = [*freeze, *([predict] if isinstance(predict, str) else [])]
  unknown = [n for n in asked if n not in names]
  if unknown:
    raise ValueError(f"no part {unknown[0]!r}; there are: {', '.join(names)}")
