"""The multimodal RBM: energies, samples, what training follows, inference of what is missing."""

from mmfuse.methods.generative.mrbm._contrastive import Chains
from mmfuse.methods.generative.mrbm._contrastive import contrastive
from mmfuse.methods.generative.mrbm._contrastive import percloss
from mmfuse.methods.generative.mrbm._deep_net import STAGES
from mmfuse.methods.generative.mrbm._deep_net import Stage
from mmfuse.methods.generative.mrbm._enumerate import exact
from mmfuse.methods.generative.mrbm._mrbm import Factors
from mmfuse.methods.generative.mrbm._mrbm import energy
from mmfuse.methods.generative.mrbm._mrbm import free_energy
from mmfuse.methods.generative.mrbm._mrbm import infer
from mmfuse.methods.generative.mrbm._mrbm import init_mrbm
from mmfuse.methods.generative.mrbm._multi_prediction import multi_prediction
from mmfuse.methods.generative.mrbm._pathway import Path
from mmfuse.methods.generative.mrbm._pathway import pathway
from mmfuse.methods.generative.mrbm._recipes import RECIPES
from mmfuse.methods.generative.mrbm._units import to_units
from mmfuse.methods.generative.mrbm._units import unit_ranges

__all__ = [
  "RECIPES",
  "STAGES",
  "Chains",
  "Factors",
  "Path",
  "Stage",
  "contrastive",
  "energy",
  "exact",
  "free_energy",
  "infer",
  "init_mrbm",
  "multi_prediction",
  "pathway",
  "percloss",
  "to_units",
  "unit_ranges",
]
