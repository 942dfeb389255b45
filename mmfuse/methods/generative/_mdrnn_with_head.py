"""mdrnn, mdrnn_pcd: a joint representation learnt without labels, and one linear head on it.

Sohn, Shang, Lee: "Improved Multimodal Deep Learning with Variation of Information", NIPS 2014. The
model and its objectives are in `_mdrnn.py` and `mrbm/`; here it meets labels.
"""

from typing import Any

import jax
import optax

from mmfuse import train
from mmfuse.core import Method, Outputs
from mmfuse.methods.generative._mdrnn import mdrnn
from mmfuse.methods.generative.mrbm._mrbm import HIDDEN
from mmfuse.methods.generative.mrbm._recipes import RECIPES
from mmfuse.methods.generative.mrbm._units import check_others

MP, PCD = RECIPES["mp"], RECIPES["pcd"]


def hidden(outputs: Outputs) -> jax.Array:
  """h [B, H] given what is present, which the head reads."""
  return outputs.features[HIDDEN]


def mdrnn_with_head(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  learning_rate: float = 0.1,
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
  (`mrbm.unit_ranges`), are the visible units. The head is trained with `tx` on h
  given what is present; where modalities are missing h is inferred by mean field, and the uni-modal
  logits are those of the same head. The first phase is not selected by validation (it has no
  logits) and hands its last state on. It learns from rows that have all modalities.

  Args:
    model: its modalities and the width of its logits are read.
    tx: the optimiser of the head.
    learning_rate: epsilon of the first phase. The authors' .01 is for 150,000 steps; default .1.
    share: of the epochs for the first phase, default .7.
    num_hidden: H; the authors' 1000 is for 784 visible units and 50,000 rows; default 256, a
      quarter of the cost of a step.
    infer_steps, reveal, steps, nstop, sparsity_weight, sparsity_target, l2: the authors' for MNIST,
      as in `mdrnn`.

  Raises:
    ValueError: a share outside (0, 1).
    Unavailable: one modality; at `init` tokens; on entering, no training row with all modalities.

  Reference: Sohn et al., NIPS 2014, and their code; they use a linear SVM where the head is.
  """
  check_others(model.modalities)
  unsupervised = mdrnn(
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
  return train.with_head(unsupervised, hidden, train.Width(model), tx, share)


def mdrnn_pcd_with_head(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  learning_rate: float = 0.1,
  share: float = 0.7,
  num_hidden: int = 256,
  infer_steps: int = 10,
  kcd: int = PCD.kcd,
  chains: int = PCD.chains,
  sparsity_weight: float = PCD.sparsity_weight,
  sparsity_target: float = PCD.sparsity_target,
  l2: float = PCD.l2,
) -> Method:
  """As `mdrnn_with_head`, with maximum likelihood by persistent chains in the first phase: its baseline.

  Of one modality it is a plain RBM. Inputs are binarised by sampling, as probabilities.

  Args:
    model, tx, learning_rate, share, num_hidden, infer_steps: as there.
    kcd, chains, sparsity_weight, sparsity_target, l2: the authors'.
  """
  unsupervised = mdrnn(
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
  return train.with_head(unsupervised, hidden, train.Width(model), tx, share)
