"""Methods that are more than a loss or a rule: a model of their own, hooks, several phases.

Every builder is `name(model, learning_rate=0.03, *, tx=None, **hyper) -> Method`. The losses and
rules they are made of stand in `objectives` and `balancing`. A method that is undefined for a model
or for data raises `Unavailable`, whose text says why.
"""

from mmfuse.schemes._agm import agm
from mmfuse.schemes._agm import agm_light
from mmfuse.schemes._amco import amco
from mmfuse.schemes._common import Unavailable
from mmfuse.schemes._common import mean_logits
from mmfuse.schemes._custom import custom
from mmfuse.schemes._dropout import dropout
from mmfuse.schemes._dropout import moddrop
from mmfuse.schemes._gblending import gblending
from mmfuse.schemes._greedy import greedy
from mmfuse.schemes._head import head
from mmfuse.schemes._i2m2 import i2m2
from mmfuse.schemes._i2m2 import intra
from mmfuse.schemes._i2m2_recipes import Recipe
from mmfuse.schemes._i2m2_recipes import i2m2_av_mnist
from mmfuse.schemes._i2m2_recipes import i2m2_mimic
from mmfuse.schemes._lfm import lfm
from mmfuse.schemes._linear_probe import linear_probe
from mmfuse.schemes._mdrnn import mdrnn
from mmfuse.schemes._mdrnn import mdrnn_pcd
from mmfuse.schemes._mean_fill import mean_fill
from mmfuse.schemes._mla import mla
from mmfuse.schemes._mmcosine import mmcosine
from mmfuse.schemes._mses import mses
from mmfuse.schemes._mslr import mslr
from mmfuse.schemes._opm import opm
from mmfuse.schemes._pmr import pmr
from mmfuse.schemes._reconboost import reconboost
from mmfuse.schemes._relearning import relearning
from mmfuse.schemes._umt import umt
from mmfuse.schemes._valuation import valuation_modality
from mmfuse.schemes._valuation import valuation_sample

__all__ = [
  "Recipe",
  "Unavailable",
  "agm",
  "agm_light",
  "amco",
  "custom",
  "dropout",
  "gblending",
  "greedy",
  "head",
  "i2m2",
  "i2m2_av_mnist",
  "i2m2_mimic",
  "intra",
  "lfm",
  "linear_probe",
  "mdrnn",
  "mdrnn_pcd",
  "mean_fill",
  "mean_logits",
  "mla",
  "mmcosine",
  "moddrop",
  "mses",
  "mslr",
  "opm",
  "pmr",
  "reconboost",
  "relearning",
  "umt",
  "valuation_modality",
  "valuation_sample",
]
