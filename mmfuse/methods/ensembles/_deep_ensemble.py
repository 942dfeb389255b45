"""Deep ensemble: networks that differ by where they start, averaged.

Lakshminarayanan, Pritzel and Blundell, Simple and Scalable Predictive Uncertainty Estimation using
Deep Ensembles, NeurIPS 2017.
"""

from typing import Any

import optax

from mmfuse import train
from mmfuse.core import Method
from mmfuse.methods.ensembles._checks import check_sizes
from mmfuse.methods.ensembles._copies import Copies
from mmfuse.methods.ensembles._members import every_member
from mmfuse.names import CLASSIFICATION


def deep_ensemble(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  members: int = 4,
) -> Method:
  r"""L = \sum_k CE(z_k) of K complete networks; p = (1/K) \sum_k softmax(z_k).

  Nothing is shared, so each member takes the steps of `joint`, all on the same batches: they differ by
  their initialisation (and their dropout). K times the cost of a step, and as many examples as any
  other row. Adversarial examples, the paper's other half, are left out. Of several labels or a
  regression see `pool`; any number of modalities, any fusion.

  Args:
    model: a `core.Model` with a fused head.
    tx: the optimiser of all its parameters.
    task: what the labels are; default classification.
    members: K, default 4 (ours; as many as `dibs`); 1 is `joint`.

  Raises:
    ValueError: fewer than one member. Unavailable: (in `init`) a model without a fused head.
  """
  check_sizes(members=members)
  return train.supervised(Copies(model, members, task), every_member, tx)
