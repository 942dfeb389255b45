"""What ensembles have in common: the loss of each member, what they say together, a pass that trains them."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfuse import objectives, train
from mmfuse.core import Batch, Outputs, label_weight
from mmfuse.names import CLASSIFICATION, REGRESSION

MEMBERS = "members"  # in `Outputs.aux`: [B, K, C]


def pool(members: jax.Array, task: str) -> jax.Array:
  r"""logits [B, C] of the mean of what members [B, K, C] say: log (1/K) \sum_k softmax(z_k).

  Of several labels the log odds of the mean of sigmoid(z_k), of a regression the mean itself.
  """
  count = jnp.log(jnp.float32(members.shape[1]))
  if task == CLASSIFICATION:
    return jax.nn.logsumexp(jax.nn.log_softmax(members), axis=1) - count
  if task == REGRESSION:
    return members.mean(1)
  mean = lambda z: jax.nn.logsumexp(jax.nn.log_sigmoid(z), axis=1)
  return mean(members) - mean(-members)


def vote(members: jax.Array, task: str) -> jax.Array:
  r"""logits [B, C] = log s_c, s_c = (n_c + 1/C) / (K + 1): the share of each class in the votes.

  n_c of the K members [B, K, C] have their largest logit at c; one more vote is split evenly, so that
  no share is 0. The largest s_c is the modal class, ties to the smallest index. Of several labels the
  log odds of the shares (n + 1/2) / (K + 1) of yes; a regression has no votes, and is the mean.
  """
  number, classes = members.shape[1:]
  if task == REGRESSION:
    return members.mean(1)
  if task == CLASSIFICATION:
    votes = jax.nn.one_hot(jnp.argmax(members, -1), classes).sum(1)
    return jnp.log((votes + 1 / classes) / (number + 1))
  yes = (members > 0).astype(jnp.float32).sum(1)
  return jnp.log((yes + 0.5) / (number - yes + 0.5))


JOINED: dict[str, Callable[[jax.Array, str], jax.Array]] = {"mean": pool, "vote": vote}


def member_losses(members: jax.Array, label: jax.Array, weight: jax.Array) -> jax.Array:
  """[K]: the supervised loss of each of members [B, K, C], over the rows of `weight` [B] above 0."""
  each = jax.vmap(lambda z: objectives.row_losses(z, label), 1, 0)(members)  # [K, B]
  return jnp.stack([objectives.weighted_mean(values, weight) for values in each])


def pairs(number: int) -> list[tuple[int, int]]:
  """All i < j below `number`."""
  return list(itertools.combinations(range(number), 2))


@dataclasses.dataclass(frozen=True)
class Pass:
  """A pass of a `core.Model` in training mode."""

  model: Any

  def __call__(self, variables, batch: Batch, key: jax.Array) -> tuple[Outputs, Any]:
    """(Outputs, statistics)."""
    mask, rngs = self._mask(batch), {"dropout": key}
    features, stats = self.model.encode(variables, batch.inputs, mask, train=True, rngs=rngs)
    variables = {**variables, "batch_stats": stats}
    return self.model.heads(variables, features, mask, train=True, rngs=rngs)

  def probe(self, variables, outputs: Outputs, batch: Batch, key: jax.Array) -> jax.Array:
    """The loss of the uni-modal heads on features that it has no gradient for: linear probes."""
    features = jax.lax.stop_gradient(outputs.features)
    rngs = {"dropout": key}
    said, _ = self.model.heads(variables, features, self._mask(batch), train=True, rngs=rngs)
    losses = objectives.unimodal(said, batch) if said.unimodal_logits else {}
    return sum(losses.values(), jnp.zeros((), jnp.float32))

  def _mask(self, batch: Batch) -> dict[str, jax.Array]:
    return {m: batch.mask[m] for m in self.model.modalities}


@dataclasses.dataclass(frozen=True)
class Init:
  """`init` of `train.alternate`: the model's variables, and those of an opponent under its own name."""

  model: Any
  opponent: Any = None  # a Linen module called with one array [B, columns]
  name: str = ""
  columns: int = 0

  def __call__(self, key: jax.Array, batch: Batch, num_rows: int):
    """(variables, memory {})."""
    del num_rows
    mask = {m: batch.mask[m] for m in self.model.modalities}
    variables = train.init_module(self.model, key, batch.inputs, mask)
    params, stats = dict(variables["params"]), variables.get("batch_stats", {})
    if self.opponent is not None:
      own = jax.random.fold_in(key, 1)
      params[self.name] = train.init_module(self.opponent, own, jnp.zeros((1, self.columns)))[
        "params"
      ]
    return {"params": params, "batch_stats": stats}, {}


@dataclasses.dataclass(frozen=True)
class Predict:
  """What the model says in evaluation mode, whoever its opponent was."""

  model: Any

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    mask = {m: mask[m] for m in self.model.modalities}
    given = {m: inputs[m] for m in mask}
    features, stats = self.model.encode(variables, given, mask, train=False, rngs=None)
    variables = {**variables, "batch_stats": stats}
    return self.model.heads(variables, features, mask, train=False, rngs=None)[0]


@dataclasses.dataclass(frozen=True)
class Owned:
  """Whether a leaf is the opponent's or, not `mine`, anybody else's."""

  name: str
  mine: bool

  def __call__(self, path: str) -> bool:
    return path.startswith(f"{self.name}/") == self.mine


def every_member(outputs: Outputs, batch: Batch, **extra) -> dict[str, jax.Array]:
  r"""{"fused": \sum_k L_k}, of each member by itself."""
  del extra
  losses = member_losses(outputs.aux[MEMBERS], batch.label, label_weight(batch))
  return {"fused": losses.sum()}
