"""The tests every balancing rule must pass, ours and yours: `check_contract`."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmfuse import tree
from mmfuse.balancing._base import Aggregator
from mmfuse.balancing._scores import scores
from mmfuse.core import Clock

_BATCH, _CLASSES, _PARTS = 6, 4, 2
_SCORES = jax.jit(scores)


class ContractError(AssertionError):
  """A balancing rule broke the contract; the message says how."""


def check_contract(
  factory: Callable[..., optax.GradientTransformation],
  num_objectives: int = 3,
  *,
  params: Any = None,
) -> None:
  """Checks a balancing rule the way the library checks its own.

  Updates have the shapes and dtypes of the parameters; the state keeps structure, shapes, dtypes
  and weak types; two calls are one trace; unknown extra arguments are accepted; zero gradients and
  a modality absent from a whole batch stay finite; K = 1 works; and, with two or more devices,
  sharded gradients give the same updates.

  Args:
    factory: `factory(num_objectives) -> Aggregator`, or, where every argument has a default,
      `factory() -> ` a shape-preserving transform.
    num_objectives: K = 1 + M of the test problem, >= 2.
    params: parameters to test on, a dict with one subtree per modality; by default two small leaves
      per encoder and head.

  Raises:
    ContractError: with a sentence that says what broke.
  """
  problem = _Problem(num_objectives, params)
  rule = _Checked(factory, problem)
  first, state = rule.call(problem.gradients(0), rule.init(), problem.extra(0))
  rule.same_shapes(first)
  _same_state(rule.init(), state)
  rule.finite(first, state, "ordinary gradients")
  _, state = rule.call(problem.gradients(1), state, problem.extra(1))
  rule.once()

  zero = jax.tree.map(jnp.zeros_like, problem.gradients(0))
  updates, after = rule.call(zero, state, problem.extra(0))
  rule.finite(updates, after, "all-zero gradients")
  updates, after = rule.call(*problem.without_one(state))
  rule.finite(updates, after, f"modality {problem.modalities[-1]!r} absent from the batch")
  rule.once()
  _same_state(state, after)
  if len(jax.devices()) > 1:
    rule.sharded(first)
  if rule.aggregates:
    single = _Checked(factory, _Problem(1, params))
    updates, state = single.call(
      single.problem.gradients(0), single.init(), single.problem.extra(0)
    )
    single.same_shapes(updates)
    single.finite(updates, state, "a single objective (K = 1)")


class _Problem:
  """Parameters, gradients with the zeros of late fusion, and the extra arguments of a step."""

  def __init__(self, num_objectives: int, params: Any):
    if num_objectives < 1:
      raise ValueError(f"num_objectives must be at least 1, got {num_objectives}")
    names = [f"modality_{i}" for i in range(max(num_objectives - 1, 1))]
    self.num, self.params = num_objectives, _default_params(names) if params is None else params
    if params is not None:
      names = sorted(set(params) - set(tree.RESERVED))[: len(names)]
    self.modalities = names
    flat, treedef = jax.tree.flatten(tree.owners_of(self.params, names))
    self.owners = jax.tree.unflatten(
      treedef, [tree.Owner(l.modality, l.part, self._rows(l)) for l in flat]
    )

  def _rows(self, label: tree.Owner) -> tuple[int, ...]:
    if label.modality is None:
      return (0,) if label.part == "head" else tuple(range(self.num))
    own = 1 + self.modalities.index(label.modality)
    rows = (own,) if label.part == "head" else (0, own)
    return tuple(k for k in rows if k < self.num)

  def gradients(self, seed: int) -> Any:
    """[K, *param], zero where a row cannot reach."""
    rng = np.random.default_rng(seed)

    def one(p, label):
      drawn = rng.normal(size=(self.num, *p.shape)).astype(np.float32)
      reach = np.isin(np.arange(self.num), label.objectives).reshape((-1,) + (1,) * p.ndim)
      return jnp.asarray(drawn * reach, p.dtype)

    return jax.tree.map(one, self.params, self.owners)

  def extra(self, seed: int) -> dict[str, Any]:
    """The vocabulary of a training step, and one argument nobody knows."""
    rng = np.random.default_rng(100 + seed)

    def logits():
      return jnp.asarray(rng.normal(size=(_BATCH, _CLASSES)), jnp.float32)

    unimodal = {m: logits() for m in self.modalities}
    label = jnp.arange(_BATCH, dtype=jnp.int32) % _CLASSES
    mask = {m: jnp.ones(_BATCH, bool) for m in self.modalities}
    losses = jnp.asarray(rng.uniform(0.5, 2.0, size=self.num), jnp.float32)
    clock = Clock(*(jnp.asarray(n, jnp.int32) for n in (seed, seed, 0, 1, 9)))
    return {
      "value": losses.sum(),
      "losses": losses,
      "present": jnp.ones(self.num, bool),
      "scores": _SCORES(unimodal, label, mask),
      "logits": logits(),
      "unimodal_logits": unimodal,
      "split_logits": unimodal,
      "label": label,
      "weight": jnp.ones(_BATCH, jnp.float32),
      "mask": mask,
      "features": unimodal,
      "key": jax.random.key(seed),
      "clock": clock,
      "parts": jax.tree.map(lambda *g: jnp.stack(g), *(self.gradients(s) for s in range(_PARTS))),
      "argument_nobody_knows": jnp.zeros((), jnp.float32),
    }

  def without_one(self, state: Any):
    """-> (gradients, state, extra) of a batch that lacks the last modality altogether."""
    last, extra = self.modalities[-1], self.extra(2)
    present = extra["present"].at[-1].set(self.num == 1)
    extra["mask"] = {**extra["mask"], last: jnp.zeros(_BATCH, bool)}
    extra |= {
      "present": present,
      "losses": extra["losses"] * present,
      "scores": _SCORES(extra["unimodal_logits"], extra["label"], extra["mask"]),
    }

    def silence(axis):
      def one(g, label):
        shape = (1,) * axis + (-1,) + (1,) * (g.ndim - axis - 1)
        return g * present.reshape(shape).astype(g.dtype) * (label.modality != last)

      return one

    extra["parts"] = jax.tree.map(silence(1), extra["parts"], self.owners)
    return jax.tree.map(silence(0), self.gradients(2), self.owners), state, extra


def _default_params(modalities):
  def layer(inputs, outputs):
    return {
      "kernel": jnp.ones((inputs, outputs), jnp.float32),
      "bias": jnp.ones(outputs, jnp.float32),
    }

  heads = {m: layer(2, 4) for m in (*modalities, tree.FUSED)}
  return {**{m: layer(4, 2) for m in modalities}, tree.HEADS: heads}


def _build(factory: Callable[..., Any], num_objectives: int) -> Any:
  """`factory(num_objectives)` if it asks for an argument, else `factory()`."""
  positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
  wanted = [
    p
    for p in inspect.signature(factory).parameters.values()
    if p.kind in positional and (p.default is p.empty or p.name == "num_objectives")
  ]
  return factory(num_objectives) if wanted else factory()


class _Checked:
  """A rule under test: jitted once, with a counter of traces."""

  def __init__(self, factory, problem: _Problem):
    self.problem, self.traces = problem, 0
    self.name = getattr(factory, "__name__", type(factory).__name__)
    self.tx = _build(factory, problem.num)
    if not isinstance(self.tx, optax.GradientTransformation):
      raise ContractError(
        f"{self.name} must return an optax transformation, got {type(self.tx).__name__}"
      )
    if "labels" in inspect.signature(self.tx.update).parameters:
      raise ContractError(f"{self.name} names the extra argument 'labels', which is 'owners' now")
    self.aggregates = isinstance(self.tx, Aggregator)

    def update(updates, state, extra):
      self.traces += 1
      if not self.aggregates:
        updates = jax.tree.map(lambda g: g.sum(0), updates)
      return self.tx.update(updates, state, problem.params, owners=problem.owners, **extra)

    self.update = jax.jit(update)

  def init(self):
    return self.tx.init(self.problem.params)

  def call(self, updates, state, extra):
    try:
      return self.update(updates, state, extra)
    except TypeError as error:
      if "unexpected keyword argument" not in str(error):
        raise
      raise ContractError(
        f"{self.name} refuses extra arguments it does not know: end its update with **extra_args "
        f"({error})"
      ) from error

  def once(self):
    if self.traces != 1:
      raise ContractError(
        f"{self.name} was traced {self.traces} times for calls of equal shapes: its state changes "
        "type between calls"
      )

  def same_shapes(self, updates):
    params = self.problem.params
    if _structure(updates) != _structure(params):
      raise ContractError(
        f"{self.name} returned updates of another tree structure than the parameters"
      )
    for (path, u), p in zip(
      jax.tree_util.tree_flatten_with_path(updates)[0], jax.tree.leaves(params)
    ):
      if (u.shape, u.dtype) != (p.shape, p.dtype):
        raise ContractError(
          f"{self.name} returned {u.dtype}{list(u.shape)} for the parameter "
          f"{jax.tree_util.keystr(path)} of {p.dtype}{list(p.shape)} (K = {self.problem.num})"
        )

  def finite(self, updates, state, when: str):
    for kind, value in (("update", updates), ("state", state)):
      for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and not np.isfinite(np.asarray(leaf)).all():
          raise ContractError(
            f"{self.name} gave a non-finite {kind} at {jax.tree_util.keystr(path)} for {when}"
          )

  def sharded(self, expected):
    """The same update with every even-sized last axis spread over two devices."""
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])

    def place(g):
      split = g.ndim > 1 and g.shape[-1] % 2 == 0
      axes = (None,) * (g.ndim - 1) + ("data",) if split else ()
      return jax.device_put(g, NamedSharding(mesh, PartitionSpec(*axes)))

    extra = self.problem.extra(0)
    parts = jax.tree.map(place, extra.pop("parts"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    rest, state = jax.device_put((extra, self.init()), everywhere)
    updates, _ = self.call(
      jax.tree.map(place, self.problem.gradients(0)), state, {**rest, "parts": parts}
    )
    for got, want in zip(jax.tree.leaves(updates), jax.tree.leaves(expected)):
      if not np.allclose(got, want, rtol=1e-4, atol=1e-5):
        raise ContractError(
          f"{self.name} gives other updates when gradients are sharded over two devices"
        )


def _structure(tree) -> Any:
  return jax.tree.structure(tree)


def _same_state(before, after):
  if _structure(before) != _structure(after):
    raise ContractError(
      f"the state changed structure: {jax.tree.structure(before)} "
      f"became {jax.tree.structure(after)}"
    )
  for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(before)[0], jax.tree.leaves(after)):
    kinds = [(np.shape(x), jnp.result_type(x), bool(getattr(x, "weak_type", True))) for x in (a, b)]
    if kinds[0] != kinds[1]:
      what = (
        "weak type (a Python number in init makes one)" if kinds[0][:2] == kinds[1][:2] else "type"
      )
      raise ContractError(
        f"the state leaf {jax.tree_util.keystr(path)} changed {what}: "
        f"{kinds[0][1]}{list(kinds[0][0])} became {kinds[1][1]}{list(kinds[1][0])}"
      )
