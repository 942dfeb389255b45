"""Training for rows that lack modalities, and its page of the index."""

from mmfuse.methods._entry import ALL_TASKS
from mmfuse.methods._entry import LABELLED
from mmfuse.methods._entry import WITH_MAPS
from mmfuse.methods._entry import row
from mmfuse.methods.missing._custom import custom
from mmfuse.methods.missing._dmrnet import dmrnet
from mmfuse.methods.missing._dropout import dropout
from mmfuse.methods.missing._dropout import moddrop
from mmfuse.methods.missing._mean_fill import mean_fill
from mmfuse.methods.missing._missing_prediction import missing_prediction
from mmfuse.methods.missing._mmanet import mmanet
from mmfuse.methods.missing._modality_distillation import modality_distillation
from mmfuse.methods.missing._shaspec import shaspec
from mmfuse.methods.missing._unseen_interaction import unseen_interaction
from mmfuse.names import RETRIEVAL, SEGMENTATION

__all__ = [
  "custom",
  "dmrnet",
  "dropout",
  "mean_fill",
  "missing_prediction",
  "mmanet",
  "modality_distillation",
  "moddrop",
  "shaspec",
  "unseen_interaction",
]

# fmt: off
ROWS = {
  "dropout": row(
    dropout, "baseline", "baseline", about="features of uniformly drawn subsets",
    tasks=WITH_MAPS),
  "moddrop": row(
    moddrop, "forward", "equations", "neverova2016moddrop", {"drop": (0.2, 0.5, 0.8)}),
  "mean_fill": row(
    mean_fill, "baseline", "baseline", about="absent features are their training mean"),
  "dmrnet": row(
    dmrnet, "forward", "parity", "wei2024robust", {"beta": (0.25, 0.5, 1.0)}, tasks=WITH_MAPS),
  "mmanet": row(
    mmanet, "schedule", "parity", "wei2023mmanet", {"mad": (3.0, 10.0, 30.0)},
    tasks=(*LABELLED, SEGMENTATION),
    reads_validation=True, needs=("task",)),
  "unseen_interaction": row(
    unseen_interaction, "forward", "parity", "zhang2023unseen", {"alpha": (0.2, 0.788, 3.0)},
    needs=("task",), tasks=(*ALL_TASKS, RETRIEVAL)),
  "modality_distillation": row(
    modality_distillation, "schedule", "reconstructed", "wei2023onestage",
    {"mmd_weight": (0.3, 1.0, 3.0)}, needs=("task",)),
  "missing_prediction": row(
    missing_prediction, "forward", "reconstructed", "kim2024missing", {"scaling": (0.01, 0.04, 0.2)}),
  "custom": row(
    custom, "baseline", "baseline", about="a model per subset of modalities", by_name=True),
  "shaspec": row(
    shaspec, "forward", "equations", "wang2023shaspec", {"alpha": (0.1, 0.5, 1.0)},
    tasks=WITH_MAPS),
}
# fmt: on
