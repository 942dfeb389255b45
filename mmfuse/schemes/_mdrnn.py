"""mdrnn, mdrnn_pcd: a joint representation learnt without labels, and one linear head on it.

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014. The
model and its objectives are in `generative`; here it meets labels.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import generative, objectives, train
from mmfuse.core import Batch, Method, Outputs, Phase, State
from mmfuse.fusion._late import named_key
from mmfuse.generative._recipes import RECIPES
from mmfuse.generative._units import check_others
from mmfuse.schemes import _common
from mmfuse.schemes._linear_probe import heads_only
from mmfuse.tree import FUSED, HEADS

MP, PCD = RECIPES["mp"], RECIPES["pcd"]
HIDDEN = "hidden"  # h of all that is present, among the features by modality
LEAST = 0.01  # standard deviation of h by which a unit is divided: a dead unit is not blown up


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
  """logits = s(h) W + b, h given what is present; z_m = s(h_m) W + b, m alone given: a `core.Model`.

  One head for all, as the paper tests one classifier with a half missing. s standardises by the
  training rows (batch_stats["heads"]): after few epochs h varies little, and a head by gradient
  descent would see next to nothing. Features: h and h_m [B, H], frozen. The parameters of
  `unsupervised` stand beside params["heads"]["fused"].
  """

  model: Any  # its number of outputs and its modalities are taken, nothing else
  unsupervised: Method

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's."""
    return tuple(sorted(self.model.modalities))

  def init(self, key, inputs, mask):
    """The parameters and statistics of `unsupervised`, and a head."""
    rows = jnp.arange(next(iter(mask.values())).shape[0])
    state = self.unsupervised.init(
      key, Batch(inputs, None, mask, jnp.ones(rows.shape), rows), rows.shape[0]
    )
    hidden = jax.eval_shape(lambda: self._hidden(state, inputs, mask))
    dense = nn.Dense(_common.num_outputs(self.model, inputs, mask))
    head = dense.init(named_key(key, f"{HEADS}/{FUSED}"), jnp.zeros((1, hidden.shape[1])))["params"]
    moments = {"mean": jnp.zeros(hidden.shape[1]), "std": jnp.ones(hidden.shape[1])}
    return {
      "params": {**state.params, HEADS: {FUSED: head}},
      "batch_stats": {**state.stats, HEADS: moments},
    }

  def moments(self, state: State, split: Any) -> dict[str, jax.Array]:
    """Mean and standard deviation of h over the rows of a split, {"mean": [H], "std": [H]}.

    Labels are not read; rows of weight 0 do not count.
    """
    state = state._replace(params=_without_heads(state.params))
    rows = np.flatnonzero(train.to_batch(split).weight > 0)
    hidden = _common.over_split(self._of_batch, state, split, rows)
    return {"mean": jnp.asarray(hidden.mean(0)), "std": jnp.maximum(hidden.std(0), LEAST)}

  def _of_batch(self, state, batch):
    return self._hidden(state, batch.inputs, batch.mask)

  def _hidden(self, state, inputs, mask):
    return self.unsupervised.predict(state, inputs, mask).features[HIDDEN]

  def encode(self, variables, inputs, mask, *, train, rngs=None):
    """({m: h_m, "hidden": h}, statistics as they were)."""
    del train, rngs
    state = State(_without_heads(variables["params"]), variables["batch_stats"], {}, {})
    alone = lambda m: {n: v if n == m else jnp.zeros_like(v) for n, v in mask.items()}
    views = {**{m: alone(m) for m in self.modalities}, HIDDEN: mask}
    found = {name: self._hidden(state, inputs, view) for name, view in views.items()}
    return jax.lax.stop_gradient(found), variables["batch_stats"]

  def heads(self, variables, features, mask, *, train, rngs=None):
    """The one head on each."""
    del mask, train, rngs
    head: Any = variables["params"][HEADS][FUSED]
    mean, std = (variables["batch_stats"][HEADS][k][None] for k in ("mean", "std"))
    dense: Any = nn.Dense(head["bias"].shape[0])
    logits = {name: dense.apply({"params": head}, (h - mean) / std) for name, h in features.items()}
    fused = logits.pop(HIDDEN)
    return Outputs(fused, logits, dict(features)), variables["batch_stats"]


def _without_heads(params):
  return {k: v for k, v in params.items() if k != HEADS}


def _beside_head(phase: Phase, share: float) -> Phase:
  """The phase of an unsupervised method, on a state that holds a head too."""
  headless = lambda state: state._replace(params=_without_heads(state.params))
  with_its = lambda new, old: new._replace(params={**new.params, HEADS: old.params[HEADS]})

  def step(state, batch, key, clock):
    after, log = phase.step(headless(state), batch, key, clock)
    return with_its(after, state), log

  def begin(state, splits, key, clock):
    if phase.begin is None:
      return state
    return with_its(phase.begin(headless(state), splits, key, clock), state)

  return phase._replace(step=step, begin=begin, share=share)


def with_head(
  model: Any, unsupervised: Method, tx: optax.GradientTransformation, share: float
) -> Method:
  """The phases of an unsupervised method, then "head": W, b of `Reader` by the loss of the labels.

  `share` of the epochs goes to the former, evenly. Raises ValueError unless 0 < share < 1.
  """
  if not 0 < share < 1:
    raise ValueError(f"share must lie in (0, 1), got {share}")
  early = tuple(
    _beside_head(p, share * p.share / _total(unsupervised)) for p in unsupervised.phases
  )
  reader = Reader(model, unsupervised)
  head = train.supervised(reader, objectives.fused, heads_only(tx), name="head")

  def begin(state, splits, key, clock):
    del key, clock
    return state._replace(stats={**state.stats, HEADS: reader.moments(state, splits["train"])})

  late = _common.only_phase(head)._replace(share=1 - share, begin=begin)
  return _common.then(unsupervised._replace(phases=early), head._replace(phases=(late,)))


def _total(method: Method) -> float:
  return sum(p.share for p in method.phases)


def mdrnn(
  model: Any,
  learning_rate: float = 0.1,
  *,
  tx: optax.GradientTransformation | None = None,
  share: float = 0.7,
  num_hidden: int = 256,
  infer_steps: int = 10,
  reveal: float = MP.reveal,
  steps: int = MP.steps,
  nstop: int = MP.nstop,
  sparsity_weight: float = MP.sparsity_weight,
  sparsity_target: float = MP.sparsity_target,
  l2: float = MP.l2,
) -> Method:
  r"""Phase "train": an MRBM by multi-prediction, without labels. Phase "head": a linear head on h.

  Encoders and fusion of `model` are not used: the inputs themselves, flattened and mapped to [0, 1]
  (`generative.unit_ranges`), are the visible units. The head is trained with `tx` on h
  given what is present; where modalities are missing h is inferred by mean field, and the uni-modal
  logits are those of the same head. The first phase is not selected by validation (it has no
  logits) and hands its last state on. It learns from rows that have all modalities.

  Args:
    learning_rate: epsilon of the first phase and, without `tx`, of the head. The authors' .01 is for
      150,000 steps; default .1.
    share: of the epochs for the first phase, default .7.
    num_hidden: H; the authors' 1000 is for 784 visible units and 50,000 rows; default 256, a
      quarter of the cost of a step.
    infer_steps, reveal, steps, nstop, sparsity_weight, sparsity_target, l2: the authors' for MNIST,
      as in `generative.mdrnn`.

  Raises:
    ValueError: a share outside (0, 1).
    Unavailable: one modality; at `init` tokens; on entering, no training row with all modalities.

  Reference: Sohn et al., NIPS 2014, and their code; they use a linear SVM where the head is.
  """
  check_others(model.modalities)
  unsupervised = generative.mdrnn(
    num_hidden,
    learning_rate,
    "mp",
    infer_steps=infer_steps,
    reveal=reveal,
    steps=steps,
    nstop=nstop,
    sparsity_weight=sparsity_weight,
    sparsity_target=sparsity_target,
    l2=l2,
  )
  return with_head(model, unsupervised, _common.optimiser(tx, learning_rate), share)


def mdrnn_pcd(
  model: Any,
  learning_rate: float = 0.1,
  *,
  tx: optax.GradientTransformation | None = None,
  share: float = 0.7,
  num_hidden: int = 256,
  infer_steps: int = 10,
  kcd: int = PCD.kcd,
  chains: int = PCD.chains,
  sparsity_weight: float = PCD.sparsity_weight,
  sparsity_target: float = PCD.sparsity_target,
  l2: float = PCD.l2,
) -> Method:
  """As `mdrnn`, with maximum likelihood by persistent chains in the first phase: its baseline.

  kcd, chains, sparsity_weight, sparsity_target, l2 are the authors'; all else as there. Of one
  modality it is a plain RBM. Inputs are binarised by sampling, as probabilities.
  """
  unsupervised = generative.mdrnn(
    num_hidden,
    learning_rate,
    "pcd",
    infer_steps=infer_steps,
    kcd=kcd,
    chains=chains,
    sparsity_weight=sparsity_weight,
    sparsity_target=sparsity_target,
    l2=l2,
  )
  return with_head(model, unsupervised, _common.optimiser(tx, learning_rate), share)
