"""Builders made from what others write: a loss, an aggregator, a modulator. They need no name."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

import optax

from mmfuse import objectives, train
from mmfuse.balancing import Aggregator
from mmfuse.core import Method

Build = Callable[..., Method]


def with_options(build: Build, made_of: Callable[..., Any], *, without: Collection[str]) -> Build:
  """`build(model, tx, **options)` that shows the options and the docstring of what it is made of.

  An option that it does not have is refused by name then. `without`: parameters of `made_of` that
  `build` itself fills in.
  """
  own = [p for p in inspect.signature(build).parameters.values() if p.kind is not p.VAR_KEYWORD]
  names = {p.name for p in own}
  options = [
    p.replace(kind=p.KEYWORD_ONLY)
    for p in inspect.signature(made_of).parameters.values()
    if p.name not in {*without, *names} and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
  ]
  build.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
  build.__doc__ = made_of.__doc__
  return build


def of_loss(loss: Callable[..., Any]) -> Build:
  """Minimises `loss(**options)`."""

  def build(model, tx, **options) -> Method:
    return train.supervised(model, loss(**options), tx)

  return with_options(build, loss, without=())


def of_modulator(
  rule: Callable[..., Any], given: Callable[[Any], dict] = lambda model: {}
) -> Build:
  """The joint loss with `rule(**given(model), **options)` as a link before `tx`."""

  def build(model, tx, **options) -> Method:
    modulator = rule(**given(model), **options)
    return train.supervised(model, objectives.fused, optax.chain(modulator, tx))

  return with_options(build, rule, without=("owners", "modalities"))


def of_rule(rule: Callable[..., Aggregator], parts: int, on: str = "parameters") -> Build:
  """The fused and uni-modal losses under `rule(1 + M, **options)`, on `parts` of each batch."""

  def build(model, tx, *, parts=parts, **options) -> Method:
    return train.supervised(
      model,
      objectives.fused_and_unimodal,
      tx,
      aggregator=rule(1 + len(model.modalities), **options),
      parts=parts,
      aggregate_on=on,
    )

  # A rule with a rate of its own keeps it: in a row that name is the rate that is searched.
  return with_options(build, rule, without=("num_objectives", "learning_rate"))
