r"""MMIAI: uni-modal encoders drawn to a joint posterior that was refined by all modalities.

Oshima, Suzuki, Matsuo: "Enhancing Unimodal Latent Representations in Multimodal VAEs through Iterative
Amortized Inference", 2024. There is no code, and the paper's update network, T and data could not be
read: what is here is made of its abstract and of Marino et al., ICML 2018.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, objectives, tasks, train
from mmfuse.core import Clock, Method
from mmfuse.methods.generative._jmvae import apart, conditional
from mmfuse.methods.generative.vae import _refine
from mmfuse.methods.generative.vae._families import FAMILIES
from mmfuse.methods.generative.vae._gaussian import kl_between, product
from mmfuse.methods.generative.vae._method import (
  FIXED,
  Init,
  Loss,
  Predict,
  Reader,
  latent_mean,
  with_functions,
)
from mmfuse.methods.generative.vae._mixture import Mixture, single
from mmfuse.methods.generative.vae._net import Net
from mmfuse.methods.generative.vae._options import specs
from mmfuse.methods.generative.vae._refine import Lambda
from mmfuse.methods.generative.vae._seen import Seen
from mmfuse.names import CLASSIFICATION, GENERATION
from mmfuse.tree import HEADS

ALIGN = "align"  # the second phase of two
DIRECTIONS = ("forward", "reverse")
INITIAL = ("joint", "product")


def alignment(mu: jax.Array, lv: jax.Array, seen: Seen, direction: str = "forward") -> jax.Array:
  r"""\sum_m KL(q_T || q_m) [B] to a constant teacher q_T = N(mu, exp lv); "reverse": KL(q_m || q_T).

  Forward, a q_m matches moments: mean E[mu_T | x_m], variance E[var_T] + Var[mu_T].

  Args:
    mu, lv: [B, L] of the teacher.
    seen: the batch; seen.mu, seen.lv are the students.
    direction: default "forward".
  """
  mu, lv = jax.lax.stop_gradient((mu, lv))
  if direction == "forward":
    return apart(seen, mu, lv).sum(0)
  wide = lambda x: jnp.broadcast_to(x[None], seen.mu.shape)
  return kl_between(seen.mu, seen.lv, wide(mu), wide(lv)).sum(0)


@dataclasses.dataclass(frozen=True)
class Mmiai:
  r"""- 1 / (T + 1) \sum_t ELBO(lambda_t) + alpha \sum_m KL(q(lambda_T) || q_m), over complete rows."""

  steps: int  # T
  alpha: float
  hidden: int
  refined: bool  # False, the control: T + 1 ELBOs at lambda_0
  feed: bool
  bias: float
  initial: str
  direction: str
  parts: tuple[str, ...] = ("elbo", "align")  # of the loss

  def init(self, key: jax.Array, net: Net, batch: Any) -> dict:
    """{"refiner": the update's parameters}."""
    if not (self.refined and self.steps):
      return {}
    data = sum(x.size for x in _flat(net, batch)) if self.feed else 0
    return {"refiner": _refine.init_gated(key, net.latent, data, self.hidden, self.bias)}

  def _first(self, seen: Seen) -> Lambda:
    if self.initial == "joint":
      return Lambda(*seen.joint)
    return Lambda(*product(seen.mu, seen.lv, seen.present))

  def path(self, seen: Seen, noises: jax.Array) -> Lambda:
    """lambda_0..lambda_T [T + 1, B, L]; of the control lambda_0 alone, [1, B, L]."""
    first = self._first(seen)
    if not (self.refined and self.steps):
      return Lambda(first.mu[None], first.lv[None])
    update = _refine.gated(seen.shared["refiner"], seen.inputs)
    return _refine.refine(seen.still, seen.present, first, noises, update)

  def loss(self, seen: Seen, key: jax.Array, clock: Clock):
    """(scalar, log); the log has the ELBO before and after refinement."""
    del clock
    rows, width = seen.mu.shape[1:]
    first, second = jax.random.split(key)
    noise = lambda k, n: draws.rows_first(jax.random.normal, k, (n,), rows, width)
    path = self.path(seen, noise(first, self.steps))
    weight = jnp.where(seen.complete, seen.weight, 0.0)
    mean = lambda x: objectives.weighted_mean(x, weight)
    value, log = jnp.zeros((), jnp.float32), {"complete_rows": (weight > 0).sum()}
    if "elbo" in self.parts:
      # The control's one lambda goes with every draw.
      each = _refine.elbos(seen.explain, seen.present, path, noise(second, self.steps + 1))
      value -= mean(each.mean(0))
      log |= {"elbo_before": mean(each[0]), "elbo_after": mean(each[-1])}
    if "align" in self.parts:
      drawn = mean(alignment(path.mu[-1], path.lv[-1], seen, self.direction))
      value += self.alpha * drawn
      log |= {"alignment": drawn}
    return value, log

  def fixed(self, rows: int, width: int) -> jax.Array:
    """[T, B, L], the draws of a prediction's gradients."""
    return draws.rows_first(
      jax.random.normal, jax.random.key(FIXED + 1), (self.steps,), rows, width
    )

  def posterior(self, seen: Seen) -> Mixture:
    """lambda_T of complete rows, by fixed draws; else the product of the uni-modal posteriors."""
    path = self.path(seen, self.fixed(*seen.mu.shape[1:]))
    return single(FAMILIES["normal"], *conditional(seen, path.mu[-1], path.lv[-1]))


def _flat(net: Net, batch: Any) -> list[jax.Array]:
  """One row of each modality, as the update is fed it."""
  return [net.values(batch.inputs[m])[0] for m in net.modalities]


@dataclasses.dataclass(frozen=True)
class Refinement(Reader):
  """(state, inputs, mask, key, samples) -> (ELBO at lambda_0, at lambda_T), [B] each, by the same draws.

  Of complete rows; of others both say nothing.
  """

  def __call__(self, state, inputs, mask, key: jax.Array, samples: int = 16):
    variables = {"params": state.params, "batch_stats": state.stats}
    _, seen = self.read(variables, inputs, mask)
    rows, width = seen.mu.shape[1:]
    path = self.bound.path(seen, self.bound.fixed(rows, width))
    noise = draws.rows_first(jax.random.normal, key, (samples,), rows, width)
    at = lambda i: _refine.elbo(seen.explain, seen.present, Lambda(path.mu[i], path.lv[i]), noise)
    return at(0), at(-1)


@dataclasses.dataclass(frozen=True)
class _Unimodal:
  """The leaves of the uni-modal encoders and of their posteriors."""

  modalities: tuple[str, ...]

  def __call__(self, path: str) -> bool:
    return any(path.startswith((f"{m}/", f"{HEADS}/{m}/")) for m in self.modalities)


def mmiai(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  task: str = CLASSIFICATION,
  likelihood: str | Mapping[str, str] = "auto",
  num_latent: int = 20,
  steps: int = 4,
  alpha: float = 1.0,
  hidden: int = 128,
  width: int = 64,
  refined: bool = True,
  feed_data: bool = True,
  gate_bias: float = 1.0,
  initial: str = "joint",
  direction: str = "forward",
  stages: int = 1,
  rescale: bool = False,
  share: float = 0.7,
) -> Method:
  r"""JMVAE whose teacher is refined T times; then a linear head on E[z] where there are labels.

  lambda_0 is the joint encoder's; each step reads lambda, the gradient of the ELBO there and the data.
  Decoders, joint encoder and update follow the mean ELBO over all T + 1 lambdas; the uni-modal encoders
  follow lambda_T, a constant to them. It learns from rows that have all modalities: others weigh 0 (the
  log counts the complete ones), and their posterior is the product of the uni-modal ones.

  Args:
    model: its encoders are used (twice), decoders mirror them, its heads tell the width of the logits.
    task, likelihood: of the data, see `mopoe`.
    num_latent: L; default 20, as for MNIST-SVHN.
    steps: T, default 4; 0 is JMVAE-KL with a teacher that stays.
    alpha: of the alignment, default 1.
    hidden: width of the update's layer, default 128.
    width: of the joint encoder's hidden layer, default 64.
    refined: default True; False is the control: no update, but T + 1 ELBOs at lambda_0 all the same.
    feed_data: the update reads the inputs too, default True.
    gate_bias: default 1: updates begin small.
    initial: of lambda: "joint" (default) or "product", that of the uni-modal posteriors.
    direction: of the alignment's KL: "forward" (default), of the teacher to the student; "reverse".
    stages: 1 (default): all at once; 2: half the epochs for the ELBO, half for the alignment.
    rescale: default False; True weighs each likelihood by max_n D_n / D_m.
    share: of the epochs for the VAE where a head follows, default .7. All defaults are ours.

  Raises:
    ValueError: an unknown likelihood, direction or initial lambda, steps below 0, stages but 1 or 2,
      two stages without the joint encoder, whose teacher would move.
    Unavailable: at `init` a likelihood that does not fit.

  Reference: Oshima et al., arXiv 2410.11403 (read in part).
  """
  _check(steps, initial, direction, stages)
  net = Net(
    model,
    num_latent,
    specs(likelihood),
    joint=width if initial == "joint" else 0,
    rescale=rescale,
    feed=feed_data,
  )
  rule = Mmiai(steps, alpha, hidden, refined, feed_data, gate_bias, initial, direction)
  found = _phases(
    net, rule, tx, None if task == GENERATION else tasks.metric(GENERATION, 0), stages
  )
  found = with_functions(found, net, rule, refinement=Refinement)
  if task == GENERATION:
    return found
  return train.with_head(found, latent_mean, train.Width(model), tx, share)


def _phases(net: Net, rule: Mmiai, tx, metric, stages: int) -> Method:
  init, predict = Init(net, rule), Predict(net, rule)
  if stages == 1:
    return train.minimise(init, Loss(net, rule), tx, predict=predict, name="vae", metric=metric)
  only = lambda part: Loss(net, dataclasses.replace(rule, parts=(part,)))
  first = train.minimise(init, only("elbo"), tx, predict=predict, name="vae", metric=metric)
  student = train.Player(_Unimodal(net.modalities), only("align"), tx)
  second = train.alternate({ALIGN: student}, init, predict=predict, name=ALIGN, metric=metric)
  return train.then(first, second, 0.5)


def _check(steps: int, initial: str, direction: str, stages: int) -> None:
  if steps < 0:
    raise ValueError(f"steps must be at least 0, got {steps}")
  for what, given, known in (("initial", initial, INITIAL), ("direction", direction, DIRECTIONS)):
    if given not in known:
      raise ValueError(f"{what} must be {known[0]!r} or {known[1]!r}, got {given!r}")
  if stages not in (1, 2):
    raise ValueError(f"stages must be 1 or 2, got {stages}")
  if stages == 2 and initial != "joint":
    raise ValueError("two stages need initial='joint': the teacher would move with its students")
