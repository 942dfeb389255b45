"""Training for rows that lack modalities, and its page of the index."""

from mmfuse.methods._entry import row
from mmfuse.methods.missing._custom import custom
from mmfuse.methods.missing._dropout import dropout
from mmfuse.methods.missing._dropout import moddrop
from mmfuse.methods.missing._mean_fill import mean_fill
from mmfuse.methods.missing._missing_prediction import missing_prediction

__all__ = ["custom", "dropout", "mean_fill", "missing_prediction", "moddrop"]

# fmt: off
ROWS = {
  "dropout": row(
    dropout, "baseline", "baseline", about="features of uniformly drawn subsets"),
  "moddrop": row(
    moddrop, "forward", "equations", "neverova2016moddrop", {"drop": (0.2, 0.5, 0.8)}),
  "mean_fill": row(
    mean_fill, "baseline", "baseline", about="absent features are their training mean"),
  "missing_prediction": row(
    missing_prediction, "forward", "reconstructed", "kim2024missing", {"scaling": (0.01, 0.04, 0.2)}),
  "custom": row(
    custom, "baseline", "baseline", about="a model per subset of modalities", by_name=True),
}
# fmt: on
