"""DMRNet: what is left of a row's modalities says a Gaussian, sampled in training, its mean at test.

Wei, Luo, Wang and Luo, Robust Multimodal Learning via Representation Decoupling, ECCV 2024.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfuse import fusion, masks, objectives, train
from mmfuse.balancing._groups import check_choice
from mmfuse.core import Batch, Method, Objective, Outputs, Unavailable, label_weight
from mmfuse.methods.missing import _dmrnet_mining as mining
from mmfuse.methods.missing._branch import BRANCH
from mmfuse.methods.missing._combinations import MOST, among, chosen, combination_index, hard_loss
from mmfuse.methods.missing._dropout import Drop
from mmfuse.methods.missing._gaussian_decoder import GaussianDecoder
from mmfuse.tree import FUSED

HCR = ("intended", "released")


@dataclasses.dataclass(frozen=True)
class Decoupled:
  """The losses of `dmrnet`. Memory: statistics of each combination in the warm-up, and which are hard."""

  alpha: float
  beta: float
  mine: str
  num_hard: int
  given: tuple[bool, ...] | None  # [C]: the hard ones, if they are not mined
  start_epoch: int
  hcr: str
  kl_detach: bool

  def init(self, batch: Batch, outputs: Outputs) -> dict[str, Any]:
    """No statistics yet; hard are those that were given."""
    del outputs
    num = 2 ** len(batch.mask) - 1
    hard = np.zeros(num, bool) if self.given is None else np.asarray(self.given)
    return {**{name: mining.no_sums(num) for name in mining.MINES}, "hard": jnp.asarray(hard)}

  def apply(self, outputs: Outputs, batch: Batch, memory, *, clock, **extra):
    """({"fused", "kl", "hcr"}, memory); `batch.mask` is what the step has left of each row."""
    del extra
    losses, weight = objectives.row_losses(outputs.logits, batch.label), label_weight(batch)
    second = outputs.aux.get(BRANCH)
    index, logvar = combination_index(batch.mask), outputs.aux["logvar"]
    warm = clock.epoch < jnp.minimum(self.start_epoch, clock.epochs // 2)
    seen = mining.added(memory, batch, logvar, losses)
    if self.given is None:
      seen["hard"] = mining.hardest(seen[self.mine], self.num_hard)
    kept = {**memory, **seen}
    memory = jax.tree.map(lambda new, old: jnp.where(warm, new, old), kept, dict(memory))
    # A row that has nothing has no Gaussian of its own.
    some = jnp.where(index < memory["hard"].shape[0], batch.weight, 0.0)
    apart = objectives.kl_losses(outputs.aux["mu"], logvar)
    kl = objectives.weighted_mean(apart.reshape(apart.shape[0], -1).mean(-1), some)
    hard = among(memory["hard"], index)
    if second is None:
      hcr = hard_loss(losses, hard, weight, self.hcr)
    else:  # of maps, over the places of the hard rows, said by the second decoder
      hcr = objectives.multi_scale_loss([second], [batch.label], jnp.where(hard, weight, 0.0))
    return {
      FUSED: objectives.fused(outputs, batch)[FUSED],
      "kl": self.alpha * (jax.lax.stop_gradient(kl) if self.kl_detach else kl),
      "hcr": jnp.where(warm, 0.0, self.beta * hcr),
    }, memory


@dataclasses.dataclass(frozen=True)
class _Logged:
  """A step whose log also says what was mined: both statistics [C], and which combinations are hard."""

  step: Callable[..., Any]

  def __call__(self, state, batch, key, clock):
    state, log = self.step(state, batch, key, clock)
    memory = state.memory["objective"]
    found = {f"mined/{name}": memory[name].mean() for name in mining.MINES}
    return state, {**log, **found, "mined/hard": memory["hard"].astype(jnp.float32)}


def dmrnet(
  model: Any,
  tx: optax.GradientTransformation,
  *,
  alpha: float = 1e-3,
  beta: float = 0.5,
  mine: str = "variance",
  num_hard: int | None = None,
  hard: Sequence[Sequence[str]] = (),
  start_epoch: int = 6,
  hcr: str = "intended",
  kl_detach: bool = False,
  width: int | None = None,
) -> Method:
  r"""L = CE(W z + b) + alpha KL(N(mu, sigma^2) || N(0, 1)) + beta (1/B) \sum_i 1[s_i hard] CE_i.

  s_i: a non-empty subset of the modalities of row i, all equally likely; features outside it are 0,
  after all encoders ran. z ~ N(mu, sigma^2) in training and mu at test, of the features side by side
  (`fusion.GaussianHead`, in the place of the model's fusion; mu and logvar are in `Outputs.aux`).
  During a warm-up the last term is 0, and two statistics of each combination are kept: the mean of
  mean_j sigma_j^2 and that of CE. The `num_hard` incomplete combinations with the largest one are hard
  from then on; that a larger variance means harder is the paper's, and measured otherwise
  (experiments/dmrnet.py). The log has both, "mined/variance", "mined/loss" [C] and "mined/hard", in
  the order of `masks.combinations`. Any number of modalities up to 10, one alone has no hard subset;
  labels of any task. Of maps the Gaussian is that of every place at the coarsest scale, its KL a mean over
  places; all incomplete subsets are hard unless `hard` or `num_hard` says otherwise, and the last term is
  the mean over the places of hard rows of the loss of a second decoder (authors).

  Args:
    model: a `fusion.LateFusion`, or a `fusion.DenseFusion`.
    tx: the optimiser of all its parameters.
    alpha: default .001 (authors).
    beta: default .5 (authors, where their code has this form: segmentation).
    mine: "variance" (default, authors) or "loss".
    num_hard: default None, 2^(M - 1) - 1: 1 of two modalities (authors) and 3 of three, as many as they
      list there.
    hard: the hard combinations themselves, such as (("rgb",), ("ir", "rgb")), instead of mining.
    start_epoch: epochs of warm-up, default 6 (authors, of 100), at most half of the run's.
    hcr: "intended" (default) or "released": beta n CE, with n the hard rows of the batch; see
      `_combinations.hard_loss`. The authors' beta is .1 to .7 then.
    kl_detach: log and add the KL, without a gradient, as the released segmentation code does;
      default False.
    width: of mu, default None, that of the features side by side (authors).

  Raises:
    ValueError: a negative number, an unknown choice or combination, more hard combinations than there are
      incomplete ones, mining without a warm-up.
    Unavailable: a model that is neither, more than 10 modalities, or maps and hcr="released".
  """
  names = tuple(sorted(model.modalities))
  if len(names) > MOST:
    raise Unavailable(
      f"dmrnet counts all subsets of at most {MOST} modalities, these are {len(names)}"
    )
  for name, value in (("alpha", alpha), ("beta", beta), ("start_epoch", start_epoch)):
    if value < 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  check_choice("mine", mine, mining.MINES)
  check_choice("hcr", hcr, HCR)
  dense = isinstance(model, fusion.DenseFusion)
  if dense and hcr == "released":
    raise Unavailable("of maps the released code has the intended form, so hcr='released' is none")
  if dense and not hard and num_hard is None:
    hard = [s for s in masks.combinations(names) if len(s) < len(names)]
  given = tuple(map(bool, chosen(hard, names))) if hard else None
  if given is None and start_epoch < 1:
    raise ValueError("hard combinations are mined in the warm-up: start_epoch must be at least 1")
  incomplete = 2 ** len(names) - 2
  count = incomplete // 2 if num_hard is None else num_hard
  if not 0 <= count <= incomplete:
    raise ValueError(f"num_hard must lie in 0..{incomplete}, got {num_hard}")
  losses = Decoupled(alpha, beta, mine, count, given, start_epoch, hcr, kl_detach)
  if dense:
    gaussian = dataclasses.replace(model, decoder=GaussianDecoder(model.decoder, width))
  else:
    gaussian = fusion.with_fusion(model, fusion.GaussianHead(width), "dmrnet")
  method = train.supervised(gaussian, Objective(losses.init, losses.apply), tx, perturb=Drop(names))
  phase = train.only_phase(method)
  return method._replace(phases=(phase._replace(step=_Logged(phase.step)),))
