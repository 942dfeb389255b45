r"""MVAE: a product of experts, q(z | X) \propto p(z) \prod_m q_m(z | x_m), trained on sub-sampled ELBOs.

Wu, Goodman: "Multimodal Generative Models for Scalable Weakly-Supervised Learning", NeurIPS 2018.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import draws, masks, objectives
from mmfuse.core import Clock, Method
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import product
from mmfuse.methods.generative.vae._method import build
from mmfuse.methods.generative.vae._mixture import Mixture, single
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._seen import Seen, total, warmed_by
from mmfuse.names import CLASSIFICATION
from mmfuse.objectives import kl_losses


class Term(NamedTuple):
  """The ELBO of one subset S of the modalities, row by row."""

  nll: jax.Array  # [B], of the modalities of S that are present
  kl: jax.Array  # [B], KL(q_S || N(0, 1))
  rows: jax.Array  # bool [B], that it is defined of


def term(seen: Seen, members: jax.Array | Sequence[bool], noise: jax.Array) -> Term:
  r"""q_S = N(0, 1) times the experts of S that are present; z_S from it explains those modalities.

  Args:
    seen: the batch.
    members: bool [M], who is in S; of a tuple of Python bools only those are decoded.
    noise: [B, L].
  """
  known = not isinstance(members, jax.Array)
  chosen = jnp.asarray(members)
  here = seen.present & chosen[:, None]
  mu, lv = product(seen.mu, seen.lv, here, prior=True)
  z = mu + jnp.exp(0.5 * lv) * noise
  if known:
    who = [i for i, inside in enumerate(members) if inside]
    nll = -total(tuple(seen.explain[i] for i in who), here[np.asarray(who)], z)
  else:
    nll = -total(seen.explain, here, z)
  return Term(nll, kl_losses(mu, lv), here.any(0))


def subsets(number: int, extra: jax.Array | None = None) -> list:
  """Members [M] of all modalities, of each alone, and of the further subsets `extra` bool [k, M]."""
  joint = (True,) * number
  alone = [tuple(i == m for i in range(number)) for m in range(number)] if number > 1 else []
  return [joint, *alone, *([] if extra is None else list(extra))]


def draw_subsets(key: jax.Array, number: int, count: int) -> jax.Array | None:
  """bool [k, M]: k subsets of 2..M-1 modalities, without replacement; None of two modalities or fewer.

  Args:
    key: of the draw.
    number: M.
    count: k, at most as many as there are.
  """
  names = [str(m) for m in range(number)]
  between = [s for s in masks.combinations(names) if 2 <= len(s) < number]
  count = min(count, len(between))
  if not count:
    return None
  table = jnp.asarray([[m in s for m in names] for s in between])
  return table[jax.random.choice(key, len(between), (count,), replace=False)]


@dataclasses.dataclass(frozen=True)
class Mvae:
  r"""\sum_S mean over its rows of NLL_S + beta_t KL_S; a drawn S counts in rows that have all of it."""

  beta: float
  warmup: int
  count: int
  subsampling: bool

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log)."""
    modalities, rows, width = seen.mu.shape
    which, noise_key = jax.random.split(key)
    extra = draw_subsets(which, modalities, self.count) if self.subsampling else None
    every = subsets(modalities, extra) if self.subsampling else [(True,) * modalities]
    noise = draws.rows_first(jax.random.normal, noise_key, (len(every),), rows, width)
    beta, value = warmed_by(clock, self.warmup, self.beta), jnp.zeros((), jnp.float32)
    for members, eps in zip(every, noise, strict=True):
      found = term(seen, members, eps)
      # A drawn subset that a row has in part would be a smaller one, which is there already.
      whole = found.rows
      if isinstance(members, jax.Array):
        whole = (seen.present | ~members[:, None]).all(0)
      weight = jnp.where(whole, seen.weight, 0.0)
      value = value + objectives.weighted_mean(found.nll + beta * found.kl, weight)
    return value, {"beta": beta}

  def posterior(self, seen: Seen) -> Mixture:
    """The product of the prior and the experts that are present."""
    return single(FAMILIES["normal"], *product(seen.mu, seen.lv, seen.present, prior=True))


def mvae(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  beta: float = 1.0,
  warmup: int = 10,
  num_subsets: int = 1,
  subsampling: bool = True,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  """A product of experts; then a linear head on E[z] where there are labels.

  Every step sums the ELBOs of all modalities, of each alone and of `num_subsets` drawn subsets. Of a row
  that lacks modalities every term is what the smaller model's would be.

  Args:
    model: its encoders are used, decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent: L; default 20, as for MNIST-SVHN.
    beta: of the KL, default 1.
    warmup: epochs in which it grows from 0, default 10 (the authors').
    num_subsets: k, drawn anew in every step where there are three modalities or more; default 1.
    subsampling: default True; False is the ELBO of all that is present alone.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7 (ours).

  Raises:
    ValueError: an unknown likelihood.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Wu, Goodman, NeurIPS 2018, and MultiVae's code.
  """
  net = Net(model, num_latent, specs(likelihood), rescale=rescale)
  return build(net, Mvae(beta, warmup, num_subsets, subsampling), model, tx, task, share)
