"""The network, data and rows of `experiments.missing_toy`, and how a row is trained and scored."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import data, encoders, fusion, masks, methods, tasks, train
from mmfuse.core import LAST, Clock, Method
from mmfuse.data import _digits
from mmfuse.fusion._early import concat_vectors

NAMES = ("A", "B", "C")
SUBSETS = masks.combinations(NAMES)
WIDTHS = (64, 32, 64)  # hidden and output of an encoder, of the trunk
RATE, CONTROL = 0.02, 0.1
BATCH = 64


class NormedTrunk(nn.Module):
  """logits = W relu(BN(V [h_1; ...; h_M])) + b: batch norm over every row, absent features zero.

  `(features {m: [B, D_m]}, mask {m: bool [B]}, *, num_classes, train) -> (logits [B, C], {"latent":
  what W reads [B, width]})`.
  """

  width: int = WIDTHS[-1]

  @nn.compact
  def __call__(self, features, mask, *, num_classes: int, train: bool):
    some = jnp.stack([mask[m] for m in sorted(features)]).any(0)
    joined = nn.Dense(self.width, use_bias=False, name="dense")(concat_vectors(features))
    latent = nn.relu(encoders.Norm("batch", name="norm")(joined, some, train=train))
    return nn.Dense(num_classes, name="out")(latent), {"latent": latent}


def make_model(scale: int = 1) -> fusion.LateFusion:
  """Three encoders and the trunk, every width times `scale`."""
  hidden, width, trunk = (scale * w for w in WIDTHS)
  encoder = encoders.MLP(width, (hidden,), "batch", linear=True)
  return fusion.LateFusion(dict.fromkeys(NAMES, encoder), 10, NormedTrunk(trunk))


@functools.cache
def make_data(seed: int, smoke: bool = False) -> data.Splits:
  """The first 700 digits train and the others test, as they are, with the noise of a seed."""
  x, label = _digits.views(seed)

  def part(rows):
    inputs = {m: np.float32(v[rows]) for m, v in x.items()}
    present = {m: np.ones(len(rows), bool) for m in x}
    return data.Split(inputs, np.int32(label[rows]), present, np.int32(rows), None)

  rows = np.arange(len(label))[: 200 if smoke else None]
  pool = 100 if smoke else _digits.POOL
  return data.Splits(
    name="digits",
    parts={"train": part(rows[:pool]), "test": part(rows[pool:])},
    task="classification",
    num_outputs=10,
    class_names=(),
    encoders={},
    scaler=None,
    fingerprint="",
  )


def make_tx(learning_rate: float = RATE) -> optax.GradientTransformation:
  """SGD, Nesterov momentum .9, decay 5e-4, x .1 from three quarters of the steps on; a rate to write."""
  rate = optax.inject_hyperparams(optax.scale_by_learning_rate)(learning_rate=learning_rate)
  return optax.chain(
    optax.add_decayed_weights(5e-4),
    optax.trace(decay=0.9, nesterov=True),
    train.scale_by_progress(lambda done: jnp.where(done < 0.75, 1.0, 0.1)),
    rate,
  )


class Row(NamedTuple):
  """A row of the table."""

  name: str  # of the method in the index
  options: Mapping[str, Any] = {}
  rate: float = RATE
  scale: int = 1  # of the network's widths
  recorded: str = ""  # on record: mean ± sd over 6 seeds


# Prior matching is DMRNet without its second term, distillation MMANet without its own. As many
# units are Gaussian as the trunk has.
_PRIOR = {"alpha": 1e-3, "beta": 0.0, "width": WIDTHS[-1]}
_INTENDED = {**_PRIOR, "beta": 0.5}
_RELEASED = {**_PRIOR, "beta": 0.2, "hcr": "released"}
ROWS = {
  "joint": Row("joint", recorded="52.9 ± 2.4"),
  "uniform": Row("uniform"),
  "mean_fill": Row("mean_fill"),
  "dropout": Row("dropout", recorded="65.4 ± 0.5"),
  "prior": Row("dmrnet", _PRIOR, recorded="66.2 ± 0.7"),
  "hcr_intended": Row("dmrnet", _INTENDED, recorded="66.5 ± 0.9"),
  "hcr_released": Row("dmrnet", _RELEASED, recorded="67.7 ± 0.5"),
  "hcr_by_loss": Row("dmrnet", {**_INTENDED, "mine": "loss"}),
  "mad": Row("mmanet", {"mad": 3.0, "mar": 0.0}, recorded="66.7 ± 0.5"),
  "joint_fast": Row("joint", rate=CONTROL),
  "dropout_fast": Row("dropout", rate=CONTROL, recorded="66.9 ± 0.7"),
  "prior_fast": Row("dmrnet", _PRIOR, CONTROL, recorded="67.5 ± 0.5"),
  "hcr_intended_fast": Row("dmrnet", _INTENDED, CONTROL, recorded="67.6 ± 1.2"),
  "shaspec": Row("shaspec"),
  "shaspec_structure": Row("shaspec", {"alpha": 0.0, "beta": 0.0}),
  "shaspec_specific": Row("shaspec", {"residual": "specific"}),
  "dropout_wide": Row("dropout", scale=2),
  "custom": Row("custom"),
}


def build(row: Row) -> Method:
  """The row's method; what one of them asks of validation rows is not asked: there are none."""
  method = methods.METHODS[row.name](make_model(row.scale), tx=make_tx(), **row.options)
  if row.name != "mmanet":
    return method
  # Its weak subsets, of the term that is off here, are looked for there; a teacher is its last epoch.
  teacher, student = method.phases
  phases = (teacher._replace(begin=None, select=LAST), student._replace(epoch_end=None))
  return method._replace(phases=phases)


def programs(names: Iterable[str]) -> list[list[str]]:
  """Rows that differ in nothing but the rate, which is a number to a compiled step, side by side."""
  groups: dict[str, list[str]] = {}
  for name in names:
    groups.setdefault(repr(ROWS[name]._replace(rate=RATE, recorded="")), []).append(name)
  return list(groups.values())


class Trained(NamedTuple):
  """What ten runs of a row leave."""

  scores: np.ndarray  # [seeds, subsets], test accuracy in percent
  hard: np.ndarray | None  # [subsets], in how many runs a combination was found hard
  parameters: int
  flops: float  # of a step of the last phase as it is written, before XLA simplifies it

  @property
  def means(self) -> list[float]:
    """Per seed, over the subsets."""
    return self.scores.mean(1).tolist()


def run(method: Method, row: Row, seeds: int, epochs: int, smoke: bool) -> Trained:
  """Every seed draws noise, weights, batches and subsets; the last epoch of each phase counts."""
  scores, hard = [], []
  for seed in range(seeds):
    splits = make_data(seed, smoke)
    result = train.fit(
      method,
      splits.sealed(),
      epochs={phase.name: epochs for phase in method.phases},
      batch_size=BATCH,
      seeds=[seed],
      learning_rate=row.rate,
      select=LAST,
      diagnose=False,
    )
    state = result.state()
    metric = tasks.metric_of(splits)
    found = train.evaluate_subsets(method, state, splits.test, metric=metric, subsets=SUBSETS)
    scores.append([100 * heads["fused"]["accuracy"] for _, heads in found])
    hard.append(np.asarray(_mined(state)))
  size = sum(x.size for x in jax.tree.leaves(state.params))
  mined = sum(hard) if row.name == "dmrnet" and row.options["beta"] else None
  return Trained(np.asarray(scores), mined, size, flops(method, splits))


def flops(method: Method, splits: data.Splits) -> float:
  """Of a step; nothing is compiled."""
  batch = jax.tree.map(lambda x: jnp.asarray(x[:BATCH]), train.to_batch(splits.train))
  state = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), batch)
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  lowered = jax.jit(method.phases[-1].step).lower(state, batch, jax.random.key(0), clock)
  return (lowered.cost_analysis() or {}).get("flops", float("nan"))


def _mined(state) -> Any:
  """bool [subsets]: the hard combinations in the memory of `dmrnet`; none of other methods."""
  own = state.memory.get("objective", ())
  return own["hard"] if isinstance(own, Mapping) and "hard" in own else np.zeros(len(SUBSETS), bool)
