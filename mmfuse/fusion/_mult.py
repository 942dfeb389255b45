"""MulT: every modality attends to every other one.

Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov: Multimodal Transformer for Unaligned Multimodal
Language Sequences, ACL 2019; the form of MultiBench (Liang et al., NeurIPS 2021).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmfuse import choose
from mmfuse.core import Sequence
from mmfuse.encoders._dense import Dense
from mmfuse.encoders._dropout import Dropout
from mmfuse.encoders._norm import Norm
from mmfuse.fusion._attention import MultiHead, check_counts, check_width
from mmfuse.fusion._features import sequences, within
from mmfuse.fusion._side_by_side import at, in_order, keys_of, say, start


def sinusoids(rows: int, width: int) -> np.ndarray:
  """[sin(p f_i), cos(p f_i)] in two halves, f_i = 1e4^(-i / (E/2 - 1)): table [rows, width E].

  Row p = 0, of padding, is zero; an odd width ends in a zero column. Needs width >= 4.
  """
  half = width // 2
  angles = np.arange(rows)[:, None] * np.exp(-np.arange(half) * np.log(1e4) / (half - 1))[None]
  table = np.pad(np.concatenate([np.sin(angles), np.cos(angles)], 1), ((0, 0), (0, width % 2)))
  table[:1] = 0
  return table.astype(np.float32)


def causal(queries: int, keys: int, shift: jax.Array) -> jax.Array:
  """bool [B, Tq, Tk]: step t sees keys s <= t + shift, shift [B] = |Lk - Lq| of the lengths."""
  later = np.arange(keys)[None] - np.arange(queries)[:, None]
  return jnp.asarray(later)[None] <= shift[:, None, None]


class CrossEncoder(nn.Module):
  r"""L pre-norm layers: x += MHA(N0(x), N0(k), N0(k)); x += W2 relu(W1 N1(x)); a final norm.

  `(x, context or None, *, train) -> [B, Tq, E]`, x a `core.Sequence` of values [B, Tq, E], context
  of [B, Tk, E]; steps beyond a row's length are not read. Both come in as sqrt(E) x + position,
  positions from 1; a step whose first channel is exactly 0 is padding and has none. k is the
  context as it came in, in every layer, or x itself where context is None; rows of which the
  context is absent (length 0) read nothing. Norms use the epsilon of the source, 1e-5.
  """

  layers: int = 3
  heads: int = 3
  masked: bool = True
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Sequence, context: Sequence | None, *, train: bool):
    drop = lambda a: Dropout(self.dropout)(a, train=train)
    read = x if context is None else context
    allowed = within(read)[:, None, :]
    if self.masked:
      shift = jnp.abs(read.length - x.length)
      allowed = allowed & causal(x.values.shape[1], read.values.shape[1], shift)
    h = drop(_placed(x.values))
    keys = None if context is None else drop(_placed(context.values))
    for i in range(self.layers):
      norm0, norm1 = Norm(name=f"norm0_{i}"), Norm(name=f"norm1_{i}")
      own = norm0(h, None, train=train)
      other = own if keys is None else norm0(keys, None, train=train)
      h = h + drop(MultiHead(self.heads, name=f"attention_{i}")(own, other, allowed))
      up = Dense(4 * h.shape[-1], name=f"up_{i}")(norm1(h, None, train=train))
      h = h + drop(Dense(h.shape[-1], name=f"down_{i}")(drop(nn.relu(up))))
    return Norm(name="norm")(h, None, train=train)


def last(x: jax.Array, length: jax.Array) -> jax.Array:
  """[B, E]: of x [B, T, E] the last of each row's steps, its first one where it has none."""
  return choose.along(x, jnp.maximum(length - 1, 0)[:, None], 1)


def _placed(x):
  """sqrt(E) x + position of x [B, T, E]."""
  steps, width = x.shape[1:]
  table = jnp.asarray(sinusoids(steps + 1, width)[1:], x.dtype)
  return width**0.5 * x + jnp.where(x[..., :1] == 0, jnp.zeros((), x.dtype), table[None])


class MulT(nn.Module):
  """h_i = last step of self-encoder([c_i1; ...; c_iM]), c_ij = cross-encoder(x_i; x_j).

  `(features {m: [B, D_m] or [B, T_m, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits
  [B, C], None)`; [B, D] is a sequence of one step. x_m = P_m h_m without bias, to width E; all
  ordered pairs with i = j; o = [h_1; ...; h_M]; logits = W (o + W2 relu(W1 o + b1) + b2) + b. The
  cost grows with M^2. T_m may differ (ours: there all are equal). Where j is absent c_ij reads
  nothing of it, and h_i = 0 where i is (ours). Any M >= 1. Parameters of the cross-encoders are leaves
  [M, M, ...] under "cross", by i and j in sorted order, those of the self-encoders [M, ...] under "memory".

  Args:
    width: E, default 9; defaults are MultiBench's.
    heads: of the attention, default 3.
    layers: of the cross-encoders, default 3.
    memory_layers: default 3; the self-encoder has the larger of this and `layers`.
    masked: steps attend backwards, default True.
    dropout: on inputs, hidden and residual, default 0 (there .25, .1 and .1).

  Raises:
    ValueError: a width below 4 or no multiple of heads, a number of layers below 1, or a dropout
      outside [0, 1).
  """

  reads_steps = True  # of encoders that keep them (pool="none"); other features are one step

  width: int = 9
  heads: int = 3
  layers: int = 3
  memory_layers: int = 3
  masked: bool = True
  dropout: float = 0.0

  def __post_init__(self):
    check_width(self.width, self.heads, 4)
    check_counts(layers=self.layers, memory_layers=self.memory_layers)
    if not 0 <= self.dropout < 1:
      raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
    super().__post_init__()

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    each = sequences(features, mask)
    narrow = lambda m, h: Dense(self.width, use_bias=False, name=f"project_{m}")(h.values)
    x = [h._replace(values=narrow(m, h)) for m, h in each.items()]
    # Encoders of modalities of as many steps run side by side, T by T.
    alike: dict[int, list[int]] = {}
    for i, h in enumerate(x):
      alike.setdefault(h.values.shape[1], []).append(i)
    groups = list(alike.values())
    beside = [jax.tree.map(lambda *h: jnp.stack(h), *(x[i] for i in g)) for g in groups]
    cross = self._encoders("cross", self.layers, (len(x), len(x)), x[0], x[0], train=train)
    both = []
    for g, q in zip(groups, beside):
      c = in_order([cross((g, o), q, k) for o, k in zip(groups, beside)], groups, 1)
      c = jnp.moveaxis(c, 1, -2)  # of [I, M, B, T, E]
      both.append(Sequence(c.reshape(*c.shape[:-2], -1), q.length))
    deep, first = max(self.layers, self.memory_layers), jax.tree.map(lambda h: h[0], both[0])
    memory = self._encoders("memory", deep, (len(x),), first, None, train=train)
    read = [jax.vmap(last)(memory((g,), h, None), h.length) for g, h in zip(groups, both)]
    present = jnp.stack([mask[m] for m in each])[..., None]
    states = jnp.where(present, in_order(read, groups, 0), jnp.zeros((), read[0].dtype))
    o = jnp.moveaxis(states, 0, 1).reshape(states.shape[1], -1)  # of [M, B, M E]
    hidden = nn.relu(nn.Dense(o.shape[-1], name="up")(o))
    o = o + nn.Dense(o.shape[-1], name="down")(Dropout(self.dropout)(hidden, train=train))
    return nn.Dense(num_classes, name="out")(o), None

  def _encoders(self, name: str, layers: int, number: tuple[int, ...], *example, train: bool):
    """`(places, x, context) -> what the encoders at these places say`, of leaves [*number, ...]."""
    encoder = CrossEncoder(layers, self.heads, self.masked, self.dropout, parent=None)
    if self.is_initializing():
      params = self.param(name, lambda key: start(encoder, key, number, *example))
    else:  # to compare shapes, `param` would trace `start` in every step
      params = self.get_variable("params", name)
    keys = keys_of(self.make_rng("dropout"), number) if train and self.dropout else None

    def run(places, x, context):
      mine, drops = at((params, keys), *places)
      return say(encoder, mine, drops, x, context, train=train)

    return run
