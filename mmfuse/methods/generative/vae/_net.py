"""The networks of a multi-modal VAE on the encoders of a model, and how a batch is read by them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfuse import encoders
from mmfuse.core import Sequence
from mmfuse.fusion._late import named_key, named_rngs
from mmfuse.methods.generative.vae._likelihood import AUTO, Likelihood, likelihood_of
from mmfuse.methods.generative.vae._seen import Seen
from mmfuse.tree import DECODERS, FUSED, HEADS

SHARED = "shared"  # what belongs to no modality
OWN, ALONE, CROSS = "posterior", "private", "cross"  # of a modality, in heads/<m>


def _values(x: Any) -> Any:
  return x.values if isinstance(x, Sequence) else x


@dataclasses.dataclass(frozen=True)
class Net:
  """Encoders of `model`; a posterior head each; a decoder each, mirrored from the encoder.

  Parameters: <m> its encoder, heads/<m>/posterior (h -> mu, lv [B, L]), decoders/<m>, and where asked
  for heads/<m>/private, heads/<m>/cross, shared/encoders, shared/joint, shared/prior. The joint encoder
  has encoders of its own, so that aligning uni-modal ones does not move it.
  """

  model: Any  # `core.Model`; its heads are left out
  latent: int  # L
  # the spec of all modalities, or ((m, spec), ...); "auto" = normal(1), categorical for tokens
  likelihood: str | tuple[tuple[str, str], ...] = AUTO
  private: int = 0  # P, what each modality has for itself
  joint: int = 0  # width of the hidden layer of an encoder of all modalities; 0 = there is none
  prior: bool = False  # the scale of p(z) is learnt
  rescale: bool = False  # log p(x_m | z) counts max_n D_n / D_m times in training
  feed: bool = False  # bounds are given the inputs too

  @property
  def modalities(self) -> tuple[str, ...]:
    """The model's, sorted."""
    return tuple(sorted(self.model.modalities))

  def likelihoods(self, inputs: Mapping[str, Any]) -> dict[str, Likelihood]:
    """{m: `Likelihood`}. Raises Unavailable where one does not fit the inputs."""
    given = dict(self.likelihood) if not isinstance(self.likelihood, str) else {}
    default = self.likelihood if isinstance(self.likelihood, str) else AUTO
    return {m: likelihood_of(given.get(m, default), m, inputs[m]) for m in self.modalities}

  def decoder(self, m: str, inputs: Mapping[str, Any]) -> nn.Module:
    """The module that says what `m` looks like: z [N, L + P] -> [N, *shape]."""
    x, encoder = _values(inputs[m]), getattr(self.model, "encoders", {}).get(m)
    shape = tuple(x.shape[1:])
    if jnp.issubdtype(x.dtype, jnp.integer):
      shape = (*shape, encoders.token_classes(encoder, m))
    return encoders.mirrored(encoder, shape)

  def init(self, key: jax.Array, inputs: Mapping[str, Any], mask: Mapping[str, Any]) -> dict:
    """Variables from one example batch. Raises Unavailable for a likelihood that does not fit."""
    self.likelihoods(inputs)
    params, stats = self._encoders(key, inputs, mask)
    features = self._features({"params": params, "batch_stats": stats}, inputs, mask, False, None)[
      0
    ]
    heads: dict[str, Any] = {}
    decoders: dict[str, Any] = {}
    for m in self.modalities:
      dense = lambda width, name, m=m: nn.Dense(2 * width).init(
        named_key(key, f"{HEADS}/{m}/{name}"), features[m]
      )["params"]
      heads[m] = {OWN: dense(self.latent, OWN)}
      if self.private:
        heads[m] |= {ALONE: dense(self.private, ALONE), CROSS: jnp.zeros((1, self.private))}
      z = jnp.zeros((1, self.latent + self.private))
      module = self.decoder(m, inputs)
      decoders[m] = module.init(named_key(key, f"{DECODERS}/{m}"), z)["params"]
    params = {**params, HEADS: heads, DECODERS: decoders}
    shared: dict[str, Any] = {}
    if self.joint:
      own, moving = self._encoders(named_key(key, SHARED), inputs, mask)
      h = self._features({"params": own, "batch_stats": moving}, inputs, mask, False, None)[0]
      layer = self._joint().init(
        named_key(key, FUSED), self._side_by_side(h), present_of(mask), train=False
      )
      shared |= {"encoders": own, "joint": layer["params"]}
      stats = {**stats, SHARED: moving} if moving else stats
    if self.prior:
      shared["prior"] = jnp.zeros((1, self.latent))
    return {"params": {**params, SHARED: shared} if shared else params, "batch_stats": stats}

  def _encoders(self, key, inputs, mask):
    variables = self.model.init(key, inputs, mask)
    drop = lambda tree: {k: v for k, v in tree.items() if k != HEADS}
    return drop(variables["params"]), drop(variables.get("batch_stats", {}))

  def _features(self, variables, inputs, mask, train, rngs):
    h, stats = self.model.encode(variables, inputs, mask, train=train, rngs=rngs)
    return {m: h[m].reshape(h[m].shape[0], -1) for m in self.modalities}, stats

  def _joint(self) -> nn.Module:
    return encoders.MLP(2 * self.latent, (self.joint,), linear=True)

  def _side_by_side(self, h):
    return jnp.concatenate([h[m] for m in self.modalities], -1)

  def look(
    self, variables, inputs, mask, weight, *, train: bool, rescale: bool = False, rngs=None
  ) -> tuple[Seen, Any]:
    """(`Seen`, batch statistics) of a batch.

    Args:
      variables: {"params", "batch_stats"}.
      inputs, mask: {m: [B, ...]}, {m: bool [B]}; absent inputs are zero.
      weight: [B] of the rows.
      train: moves the statistics.
      rescale: likelihoods as training weighs them; default False, each once.
      rngs: of dropout.
    """
    params, stats = variables["params"], variables["batch_stats"]
    h, stats = self._features(variables, inputs, mask, train, rngs)
    two = lambda x: jnp.split(x, 2, -1)
    apply = lambda m, name: two(_dense(params[HEADS][m][name], h[m]))
    stacked = lambda name: tuple(
      jnp.stack(v) for v in zip(*(apply(m, name) for m in self.modalities))
    )
    mu, lv = stacked(OWN)
    present = jnp.stack([mask[m] for m in self.modalities])
    shared, joint = params.get(SHARED, {}), None
    if self.joint:
      own = {"params": shared["encoders"], "batch_stats": stats.get(SHARED, {})}
      everywhere = dict.fromkeys(self.modalities, present.all(0))
      seen, moved = self._features(own, inputs, everywhere, train, named_rngs(rngs, SHARED))
      stats = {**stats, SHARED: moved} if SHARED in stats else stats
      joint = tuple(
        two(
          self._joint().apply(
            {"params": shared["joint"]}, self._side_by_side(seen), present.all(0), train=train
          )
        )
      )
    private = stacked(ALONE) if self.private else None
    cross = jnp.stack([params[HEADS][m][CROSS] for m in self.modalities]) if self.private else None
    explain, still = (
      self.explain(p, inputs, rescale and self.rescale)
      for p in (params, jax.lax.stop_gradient(params))
    )
    fed = [self.values(inputs[m]) for m in self.modalities] if self.feed else []
    found = Seen(mu, lv, present, weight, explain, joint, private, shared, cross, still, tuple(fed))
    return found, stats

  def values(self, x: Any) -> jax.Array:
    """Inputs as vectors [B, D]."""
    x = _values(x)
    return x.reshape(x.shape[0], -1).astype(jnp.float32)

  def explain(self, params, inputs: Mapping[str, Any], rescale: bool):
    """log p(x_m | z) of every modality, each z [..., B, L + P] -> [..., B].

    Args:
      params: of the net.
      inputs: {m: [B, ...]}.
      rescale: times max_n D_n / D_m.
    """
    likelihoods = self.likelihoods(inputs)
    sizes = {m: _values(inputs[m])[0].size for m in self.modalities}
    most = max(sizes.values())

    def one(m):
      factor = most / sizes[m] if rescale else 1.0

      def log_p(z):
        return factor * likelihoods[m].log_prob(self.said(params, m, inputs, z), inputs[m])

      return log_p

    return tuple(one(m) for m in self.modalities)

  def said(self, params, m: str, inputs, z: jax.Array) -> jax.Array:
    """What the decoder of `m` says of z [..., L + P]: [..., *shape]; shapes are read off `inputs`."""
    flat = z.reshape(-1, z.shape[-1])
    module: Any = self.decoder(m, inputs)
    out: jax.Array = module.apply({"params": params[DECODERS][m]}, flat)
    return out.reshape(*z.shape[:-1], *out.shape[1:])

  def shown(self, params, inputs, latents) -> dict[str, jax.Array]:
    """{m: as its input}, of latents [..., L + P] for all modalities or a tuple of one each."""
    each = latents if isinstance(latents, tuple) else (latents,) * len(self.modalities)
    of = self.likelihoods(inputs)
    return {
      m: of[m].shown(self.said(params, m, inputs, z), inputs[m])
      for m, z in zip(self.modalities, each, strict=True)
    }


def present_of(mask: Mapping[str, jax.Array]) -> jax.Array:
  """bool [B], rows that have all modalities."""
  return jnp.stack(list(mask.values())).all(0)


def _dense(params, h: jax.Array) -> jax.Array:
  module: Any = nn.Dense(params["bias"].shape[0])
  out: jax.Array = module.apply({"params": params}, h)
  return out
