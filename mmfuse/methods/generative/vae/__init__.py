"""What multi-modal VAEs share: networks, likelihoods, posteriors and their bounds.

A bound reads a `Seen`: what encoders say of a batch, and how likely decoders find it.
"""

from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._families import Family
from mmfuse.methods.generative.vae._gaussian import kl_between
from mmfuse.methods.generative.vae._gaussian import product
from mmfuse.methods.generative.vae._importance import dreg
from mmfuse.methods.generative.vae._importance import iwae
from mmfuse.methods.generative.vae._importance import iwae_looser
from mmfuse.methods.generative.vae._likelihood import Likelihood
from mmfuse.methods.generative.vae._mixture import Mixture
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._refine import Lambda
from mmfuse.methods.generative.vae._refine import elbo
from mmfuse.methods.generative.vae._refine import refine
from mmfuse.methods.generative.vae._seen import Seen

__all__ = [
  "FAMILIES",
  "Family",
  "Lambda",
  "Likelihood",
  "Mixture",
  "Net",
  "Seen",
  "dreg",
  "elbo",
  "iwae",
  "iwae_looser",
  "kl_between",
  "product",
  "refine",
]
