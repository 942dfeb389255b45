"""Generative models of several modalities: energies, samples, inference of what is missing."""

from mmfuse.generative._contrastive import Chains
from mmfuse.generative._contrastive import contrastive
from mmfuse.generative._contrastive import percloss
from mmfuse.generative._enumerate import exact
from mmfuse.generative._mdrnn import mdrnn
from mmfuse.generative._mdrnn import mdrnn_pcd
from mmfuse.generative._mrbm import Factors
from mmfuse.generative._mrbm import energy
from mmfuse.generative._mrbm import free_energy
from mmfuse.generative._mrbm import infer
from mmfuse.generative._mrbm import init_mrbm
from mmfuse.generative._multi_prediction import multi_prediction

__all__ = [
  "Chains",
  "Factors",
  "contrastive",
  "energy",
  "exact",
  "free_energy",
  "infer",
  "init_mrbm",
  "mdrnn",
  "mdrnn_pcd",
  "multi_prediction",
  "percloss",
]
