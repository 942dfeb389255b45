"""From a net and a bound to a method: the ELBO that every row is judged by, and what it can say."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import tasks, train
from mmfuse.core import ELBO, Batch, Method, Outputs, State
from mmfuse.methods.generative.vae._mixture import drawn_components, every_component
from mmfuse.methods.generative.vae._net import Net
from mmfuse.names import GENERATION

NAME = "vae"  # of the phase
FIXED = 20  # seed of the draws of a prediction: it is a function of its inputs
SAMPLES = 64  # of the IWAE bound


def latent_mean(outputs: Outputs) -> jax.Array:
  """E[z | what is present] [B, L], which a head reads."""
  mean: jax.Array = outputs.aux["mu"]
  return mean


@dataclasses.dataclass(frozen=True)
class Init:
  """(key, batch, num_rows) -> (variables, memory)."""

  net: Net
  bound: Any

  def __call__(self, key: jax.Array, batch: Batch, num_rows: int):
    del num_rows
    variables = self.net.init(key, batch.inputs, batch.mask)
    more = getattr(self.bound, "init", None)  # parameters of its own, under "shared"
    if more is not None:
      params = variables["params"]
      shared = {**params.get("shared", {}), **more(key, self.net, batch)}
      variables = {**variables, "params": {**params, "shared": shared}}
    return variables, {}


@dataclasses.dataclass(frozen=True)
class Loss:
  """The loss of a bound on a batch."""

  net: Net
  bound: Any

  def __call__(self, variables, batch: Batch, key, clock, memory):
    del memory
    dropout, draws = jax.random.split(key)
    seen, stats = self.net.look(
      variables,
      batch.inputs,
      batch.mask,
      batch.weight,
      train=True,
      rescale=True,
      rngs={"dropout": dropout},
    )
    value, log = self.bound.loss(seen, draws, clock)
    return value, train.Aux(stats, log=log)


@dataclasses.dataclass(frozen=True)
class Reader:
  """What is asked of a trained net: (posterior, seen, params) of a batch."""

  net: Net
  bound: Any

  def read(self, variables, inputs, mask):
    """The posterior given what is present."""
    rows = jnp.ones(next(iter(mask.values())).shape[0], jnp.float32)
    seen, _ = self.net.look(variables, inputs, mask, rows, train=False)
    return self.bound.posterior(seen), seen


@dataclasses.dataclass(frozen=True)
class Predict(Reader):
  """`Outputs` without logits: the mean, the ELBO in nats, reconstructions, each modality's own mean.

  ELBO = E_q[sum_m log p(x_m | z) + log p(z) - log q(z | X)], one draw from each component of the
  row's own posterior, with a fixed key; likelihoods count once.
  """

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    post, seen = self.read(variables, inputs, mask)
    key = jax.random.key(FIXED)
    lw = post.log_weights(seen.explain, seen.present, key, every_component(post.weight))
    elbo = jnp.sum(jnp.where(post.weight > 0, post.weight * lw, 0.0), 0)
    own = {
      m: jnp.where(here[:, None], mu, 0.0)
      for m, mu, here in zip(self.net.modalities, seen.mu, seen.present, strict=True)
    }
    shown = self.net.shown(variables["params"], inputs, post.centre())
    return Outputs(None, features=own, aux={"mu": post.mean, "reconstructions": shown, ELBO: elbo})


def _variables(state: State) -> dict[str, Any]:
  return {"params": state.params, "batch_stats": state.stats}


@dataclasses.dataclass(frozen=True)
class Iwae(Reader):
  """(state, inputs, mask, key, samples) -> log 1/K sum_k w_k [B] in nats, by K draws of the posterior."""

  def __call__(self, state: State, inputs, mask, key: jax.Array, samples: int = SAMPLES):
    post, seen = self.read(_variables(state), inputs, mask)
    which, draws = jax.random.split(key)
    component = drawn_components(which, post.weight, samples)
    lw = post.log_weights(seen.explain, seen.present, draws, component)
    return jax.nn.logsumexp(lw, 0) - jnp.log(samples)


@dataclasses.dataclass(frozen=True)
class Generate(Reader):
  """(state, inputs, mask, key) -> {m: as its input}: all modalities, from those that are present.

  One draw of the posterior for each row; of a row without any modality it is the prior. Inputs of
  absent modalities give shapes alone.
  """

  def __call__(self, state: State, inputs, mask, key: jax.Array) -> dict[str, jax.Array]:
    post, _ = self.read(_variables(state), inputs, mask)
    which, draws = jax.random.split(key)
    component = drawn_components(which, post.weight, 1)
    latents = post.latents(draws, component)
    one = tuple(z[0] for z in latents) if isinstance(latents, tuple) else latents[0]
    return self.net.shown(state.params, inputs, one)


@dataclasses.dataclass(frozen=True)
class Decode(Reader):
  """(state, latents, inputs) -> {m: as its input}, of latents [N, L] or one such for each modality."""

  def __call__(self, state: State, latents, inputs) -> dict[str, jax.Array]:
    return self.net.shown(state.params, inputs, latents)


def with_functions(method: Method, net: Net, bound: Any, **more: Any) -> Method:
  """`method` with `Iwae`, `Generate` and `Decode` of a net among its functions.

  Args:
    method: of the net.
    net, bound: what the functions read.
    more: {name: another `Reader`}.
  """
  kinds = {"iwae": Iwae, "generate": Generate, "decode": Decode, **more}
  return method._replace(functions={name: kind(net, bound) for name, kind in kinds.items()})


def build(
  net: Net, bound: Any, model: Any, tx: optax.GradientTransformation, task: str, share: float
) -> Method:
  """The method of a bound: alone where there are no labels, with a linear head on E[z] where there are.

  It is validated by the ELBO of `Predict`.

  Args:
    net: the networks.
    bound: a frozen dataclass with `loss(seen, key, clock) -> (scalar, log)` and `posterior(seen)`.
    model: whose heads tell the number of outputs.
    tx: of everything, one state a phase.
    task: of the data.
    share: of the epochs for the VAE, where a head follows.
  """
  own = None if task == GENERATION else tasks.metric(GENERATION, 0)
  found = train.minimise(
    Init(net, bound), Loss(net, bound), tx, predict=Predict(net, bound), name=NAME, metric=own
  )
  found = with_functions(found, net, bound)
  if task == GENERATION:
    return found
  return train.with_head(found, latent_mean, train.Width(model), tx, share)
