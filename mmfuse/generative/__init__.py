"""Generative models of several modalities: energies, samples, inference of what is missing."""

from mmfuse.generative._contrastive import Chains
from mmfuse.generative._contrastive import contrastive
from mmfuse.generative._contrastive import percloss
from mmfuse.generative._deep_net import STAGES
from mmfuse.generative._deep_net import Stage
from mmfuse.generative._enumerate import exact
from mmfuse.generative._mdrnn import mdrnn
from mmfuse.generative._mdrnn_deep import mdrnn_deep
from mmfuse.generative._mrbm import Factors
from mmfuse.generative._mrbm import energy
from mmfuse.generative._mrbm import free_energy
from mmfuse.generative._mrbm import infer
from mmfuse.generative._mrbm import init_mrbm
from mmfuse.generative._multi_prediction import multi_prediction
from mmfuse.generative._pathway import Path
from mmfuse.generative._pathway import pathway
from mmfuse.generative._recipes import RECIPES
from mmfuse.generative._recipes import Recipe
from mmfuse.generative._units import to_units
from mmfuse.generative._units import unit_ranges

__all__ = [
  "RECIPES",
  "STAGES",
  "Chains",
  "Factors",
  "Path",
  "Recipe",
  "Stage",
  "contrastive",
  "energy",
  "exact",
  "free_energy",
  "infer",
  "init_mrbm",
  "mdrnn",
  "mdrnn_deep",
  "multi_prediction",
  "pathway",
  "percloss",
  "to_units",
  "unit_ranges",
]
