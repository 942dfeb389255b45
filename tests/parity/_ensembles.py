"""DIBS and conditional total correlation on parity cases."""

import jax
import jax.numpy as jnp

from mmfuse import objectives
from mmfuse.methods.ensembles import _dibs_losses as dibs
from mmfuse.methods.ensembles import _total_correlation as tc
from mmfuse.methods.ensembles._members import member_losses, pool, vote
from mmfuse.names import CLASSIFICATION

from ._cases import Case


def _arrays(case: Case, *names: str) -> list[jax.Array]:
  return [jnp.asarray(case.inputs[n]) for n in names]


LAYERS = ("W1", "b1", "W2", "b2")


def _network(module, layers):
  """x -> what the module says with these layers."""
  w1, b1, w2, b2 = layers
  params = {"dense0": {"kernel": w1, "bias": b1}, "out": {"kernel": w2, "bias": b2}}
  return lambda x: module.apply({"params": params}, x)


def adversary(case: Case) -> dict:
  """All four kinds of pairs, both losses, and the gradients that the players follow."""
  mu, lv, eps, r = _arrays(case, "mu", "lv", "eps", "r")
  layers, weight = _arrays(case, *LAYERS), jnp.ones(mu.shape[1])

  def terms(of, mu, lv, layers):
    net = _network(dibs.PairDiscriminator((layers[0].shape[1],)), layers)
    judge = lambda a, b: net(jnp.concatenate([a, b], -1))
    return of(judge, dibs.draw_latents(mu, lv, eps), r, weight)

  generator = lambda mu, lv: sum(terms(dibs.generator_terms, mu, lv, layers).values())
  discriminator = lambda layers: sum(terms(dibs.discriminator_terms, mu, lv, layers).values())
  g, (g_mu, g_lv) = jax.value_and_grad(generator, (0, 1))(mu, lv)
  d, gradients = jax.value_and_grad(discriminator)(layers)
  found = terms(dibs.generator_terms, mu, lv, layers)
  return {
    "term_prior": terms(dibs.discriminator_terms, mu, lv, layers)["prior"],
    "term_cross": found["cross"],
    "term_prior_q": found["prior_latent"],
    "term_same": found["same"],
    "L_D": d,
    "L_G": g,
    "g_mu": g_mu,
    "g_lv": g_lv,
    **{f"gD_{name}": g for name, g in zip(LAYERS, gradients)},
  }


def bottleneck(case: Case) -> dict:
  """Likelihood, KL, their objective, and both predictions."""
  logits, y, mu, lv = _arrays(case, "logits", "y", "mu", "lv")
  losses = jax.vmap(lambda z: objectives.row_losses(z, y))(logits)
  kl, every = objectives.kl_losses(mu, lv), jnp.ones(len(y))
  members = jnp.moveaxis(logits, 0, 1)
  return {
    "logq": -losses,
    "kl": kl,
    "objective": dibs.bottleneck(losses, kl, (every, every), case.hp["alpha"], case.hp["beta"]),
    "modal": vote(members, CLASSIFICATION).argmax(-1),
    "mean_prob_pred": pool(members, CLASSIFICATION).argmax(-1),
  }


def total_correlation(case: Case) -> dict:
  """All estimators under one critic, and the gradients that networks follow."""
  z, y, perms = _arrays(case, "z", "y", "perms")
  net = _network(tc.CriticNetwork((case.inputs["W1"].shape[1],)), _arrays(case, *LAYERS))
  critic = lambda z, y: net(tc.beside_label(z, y, case.hp["num_classes"]))
  weight = jnp.ones(len(y))
  joint, product = tc.judged(critic, z, y, perms)
  of = lambda kind: lambda z: tc.ESTIMATORS[kind](*tc.judged(critic, z, y, perms), weight)
  return {
    "t_joint": joint,
    "t_perm": product,
    "dv": of("dv")(z),
    "nwj": of("nwj")(z),
    "dre_tc": of("dre")(z),
    "dre_bce": tc.critic_loss("dre", joint, product, weight),
    "g_dv_z": jax.grad(of("dv"))(z),
    "g_nwj_z": jax.grad(of("nwj"))(z),
  }


def objective(case: Case) -> dict:
  """The loss of the networks at a given estimate."""
  logits, y, estimate = _arrays(case, "logits", "y", "tc")
  errors = member_losses(jnp.moveaxis(logits, 0, 1), y, jnp.ones(len(y)))
  return {"ce": errors, "loss": errors.sum() + case.hp["lam"] * estimate}


def gaussian(case: Case) -> dict:
  """In closed form."""
  return {"tc": tc.gaussian_total_correlation(*_arrays(case, "sigma"), case.hp["block"])}
