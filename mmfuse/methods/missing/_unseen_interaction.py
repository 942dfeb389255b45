"""Learning unseen modality interaction: a combination at test that no training row has.

Zhang, Doughty and Snoek, Learning Unseen Modality Interaction, NeurIPS 2023. The network is in
`_slots.py`, the losses in `_unseen_losses.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import encoders, fusion, objectives, train
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Batch, Method, Outputs, Unavailable, label_weight
from mmfuse.fusion._attention import check_counts, check_width
from mmfuse.methods.missing import _pseudo_labels
from mmfuse.methods.missing import _unseen_losses as losses
from mmfuse.methods.missing._pseudo_labels import TABLE
from mmfuse.methods.missing._slots import TOKENS, SlotFusion
from mmfuse.methods.missing._unseen_retrieval import of_retrieval
from mmfuse.names import CLASSIFICATION, RETRIEVAL
from mmfuse.tree import FUSED, HEADS

ALPHA = 0.788  # 3000 over the 3806 classes that the released loss takes a mean over
PSEUDO = ("best", "all")
BRANCHES = 2


def _is_fused(path: str) -> bool:
  return path.startswith(f"{HEADS}/{FUSED}/")


def _is_unimodal(path: str) -> bool:
  return not _is_fused(path)


@dataclasses.dataclass(frozen=True)
class _LateAverage:
  """How the first phase is judged: the mean of what the modalities that are there say."""

  task: str

  def __call__(self, outputs: Outputs, mask: dict) -> Outputs:
    if self.task != CLASSIFICATION:
      return fusion.mean_logits(outputs, mask)
    return outputs._replace(logits=fusion.mix_experts(outputs.unimodal_logits, mask))


@dataclasses.dataclass(frozen=True)
class _Predict:
  """Both branches' mean; encoders and the modalities' own heads are those of the first phase."""

  model: Any

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    kept = {"params": variables["params"], "stats": variables["batch_stats"]}
    return train.outputs_of(self.model, kept, inputs, mask)


@dataclasses.dataclass(frozen=True)
class _Loss:
  """L_label(z_0) + alpha L_pseudo(z_1) + lam L_align, of encoders in evaluation mode."""

  model: Any
  task: str
  alpha: float
  lam: float
  smoothing: float
  pseudo: str

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del clock
    names, weight = self.model.modalities, label_weight(batch)
    mask = {m: batch.mask[m] for m in names}
    features, _ = self.model.encode(variables, batch.inputs, mask, train=False, rngs=None)
    outputs, _ = self.model.heads(variables, features, mask, train=True, rngs={"dropout": key})
    z, latent = outputs.aux["members"], outputs.aux["latent"]
    table = {m: memory[TABLE]["of"][m][batch.index] for m in names}
    counts = mask
    if self.pseudo == "best":
      best = losses.best_pseudo(table, batch.label, mask)
      counts = {m: mask[m] & (best == i) for i, m in enumerate(names)}
    tokens = variables["params"][HEADS][FUSED][TOKENS]
    parts = {
      "label": losses.smoothed_loss(z[:, 0], batch.label, weight, self.smoothing),
      "pseudo": self.alpha * losses.pseudo_loss(z[:, 1], table, counts, weight, self.task),
      "alignment": self.lam
      * losses.alignment_loss(latent, tokens, batch.label, mask, weight, self.task),
    }
    return sum(parts.values()), train.Aux(log={f"part/{k}": v for k, v in parts.items()})


def unseen_interaction(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  alpha: float = ALPHA,
  lam: float = 0.001,
  smoothing: float = 0.1,
  pseudo: str = "best",
  window: int = 20,
  slots: int = 16,
  width: int = 32,
  layers: int = 1,
  heads: int = 4,
  tokens: int = 128,
) -> Method:
  r"""Phase "alone": \sum_m CE(z_m), each modality by itself. Phase "train", with these encoders frozen:

  L = L_label(z_0) + alpha L_pseudo(z_1) + lam L_align; both branches z_0, z_1 [B, C] are averaged.

  `SlotFusion` deals the tokens of a modality out to slots and adds the modalities that are there, so
  that parts of training may have disjoint modalities: they are rows with masks. Late predictions of
  the first phase on its own training rows fill a table [N, C] per modality, the pseudo-labels of the
  second branch. L_align draws each modality's slots to the token of the class (other tasks: the
  nearest of `tokens`), in the common width. A row without a label counts in none of the losses.

  Each phase has half of the epochs. Both are validated on the validation rows as they are: rows with a
  combination that training lacks would leak it. Tokens are `encoders.token_encoder`'s: an encoder that keeps
  its steps stays, any other is replaced. Regression and multi-label alike; of a retrieval see
  `_unseen_retrieval`. At least two modalities.

  Args:
    model: a `fusion.LateFusion`; its fusion is replaced.
    tx: the optimiser, of the parameters that a phase moves.
    task: of the label, default "classification".
    alpha: weight of a row's pseudo-label, default .788 (released: 3000 over 3806 classes).
    lam: weight of the alignment, default .001 (authors).
    smoothing: of the labels, see `smoothed_loss`; default .1 (authors).
    pseudo: of a row with several modalities "best" (default, paper), the pseudo-label most like its
      label, or "all" (released), the sum over them.
    window: last epochs of the first phase whose predictions are averaged, default 20 (authors), at
      most half of it (ours).
    slots: default 16 (authors, MSR-VTT), an even number.
    width: of the common space, default 32; this and the next two are ours (authors: 256, 6, 8).
    layers: of each transformer, those that replace encoders too, default 1.
    heads: of its attention, default 4.
    tokens: where labels are no classes, default 128 (authors, MSR-VTT).

  Raises:
    ValueError: a negative weight, a smoothing outside [0, 1), an unknown choice, an impossible size.
    Unavailable: one modality, a model that is no `LateFusion`.
  """
  _check(alpha, lam, smoothing, pseudo, slots)
  check_counts(window=window, layers=layers, tokens=tokens)
  check_width(width, heads)
  if len(model.modalities) < 2:
    raise Unavailable("unseen_interaction adds modalities up; it needs at least two")
  head = SlotFusion(task, slots, width, layers, heads, tokens, BRANCHES)
  model = fusion.with_fusion(model, head, "unseen_interaction")
  own = {m: encoders.token_encoder(e, layers=layers) for m, e in model.encoders.items()}
  model = dataclasses.replace(model, encoders=own)
  if task == RETRIEVAL:
    return of_retrieval(model, tx, lam, width, functools.partial(_checked_init, model))
  predictions = _pseudo_labels.Predictions(model, task)
  alone = train.supervised(
    model,
    objectives.unimodal,
    train.moving_only(tx, _is_unimodal),
    predict=_LateAverage(task),
    name="alone",
  )

  def init(key, batch, num_rows):
    state = alone.init(key, batch, num_rows)
    variables = {"params": state.params, "batch_stats": state.stats}
    return variables, _pseudo_labels.empty(model.modalities, num_rows, model.num_classes)

  loss = _Loss(model, task, alpha, lam, smoothing, pseudo)
  player = train.Player(_is_fused, loss, tx)
  late = train.alternate({FUSED: player}, init, predict=_Predict(model), name="train")
  first = train.only_phase(alone)._replace(epoch_end=_pseudo_labels.Collect(predictions, window))
  last = train.only_phase(late)._replace(begin=_pseudo_labels.Begin(predictions))
  alone = alone._replace(init=functools.partial(_checked_init, model, alone.init), phases=(first,))
  return train.then(alone, late._replace(phases=(last,)), 0.5)


def _checked_init(model, init, key, batch, num_rows):
  """`init`, where every modality of integers has an encoder that knows how many there are."""
  for m, encoder in sorted(model.encoders.items()):
    first = encoder.stages[0] if isinstance(encoder, encoders.Chain) else None
    integers = jnp.issubdtype(jax.tree.leaves(batch.inputs[m])[0].dtype, jnp.integer)
    if integers and isinstance(first, encoders.Tokens) and first.vocabulary is None:
      raise Unavailable(
        f"unseen_interaction embeds integers, and no encoders.Embedding says how many {m!r} has"
      )
  return init(key, batch, num_rows)


def _check(alpha: float, lam: float, smoothing: float, pseudo: str, slots: int) -> None:
  for name, value in (("alpha", alpha), ("lam", lam)):
    if value < 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  if not 0 <= smoothing < 1:
    raise ValueError(f"smoothing must lie in [0, 1), got {smoothing}")
  check_choice("pseudo", pseudo, PSEUDO)
  if slots < BRANCHES or slots % BRANCHES:
    raise ValueError(f"slots must be a positive multiple of {BRANCHES}, got {slots}")
