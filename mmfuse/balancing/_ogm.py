"""OGM and OGM-GE: the encoder that runs ahead gets a smaller gradient. Modulators.

Peng, Wei, Deng, Wang, Hu: "Balanced Multimodal Learning via On-the-fly Gradient Modulation",
CVPR 2022. The rule for more than two modalities is an extension of ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmfuse import draws, tree
from mmfuse.balancing import _groups

_VARIANTS = ("default", "released")
_FORMS = ("mean", "min", "sum")
_BENCHMARK_EPS = 1e-5  # added to the denominator by the BalanceBenchmark code


class OgmState(NamedTuple):
  """What the discrepancy ratios decided last."""

  coefficients: dict[str, jax.Array]  # {modality: scalar in (0, 1]}, multiplier of its gradients


def discrepancy_ratios(
  scores: Mapping[str, jax.Array], *, form: str = "mean"
) -> dict[str, jax.Array]:
  r"""{modality: how far it runs ahead of the others}; 0 for a modality with score 0 (absent).

  Absent modalities do not count as others in "mean"; the two published forms know none.

  Args:
    scores: {modality: scalar}; the order of the mapping matters for `form="sum"` alone.
    form: "mean": s_m / mean of the other present scores (for two modalities the authors' rule; for
      more an extension); "min" and "sum": the two forms of the BalanceBenchmark code, s_m over
      1e-5 + the smallest score, and the sum of the pairwise ratios, of which that code divides only
      the last modality's by the number of the others.
  """
  names = list(scores)
  values = jnp.stack([jnp.asarray(scores[m], jnp.float32) for m in names])
  here = values > 0
  if form == "mean":
    others = jnp.maximum(here.sum() - 1, 1)
    rest = jnp.stack([jnp.sum(jnp.delete(values, i)) for i in range(len(names))]) / others
    ratios = jnp.where(here & (rest > 0), values / jnp.where(rest > 0, rest, 1.0), 0.0)
  elif form == "min":
    ratios = values / (values.min() + _BENCHMARK_EPS)
  else:
    ratios = jnp.stack(
      [jnp.sum(values[i] / (jnp.delete(values, i) + _BENCHMARK_EPS)) for i in range(len(names))]
    )
    ratios = ratios.at[-1].divide(max(len(names) - 1, 1))
  return dict(zip(names, ratios))


def ogm_coefficients(
  scores: Mapping[str, jax.Array], alpha: float, *, form: str = "mean"
) -> dict[str, jax.Array]:
  r"""k_m = 1 - tanh(alpha ratio_m) where ratio_m > 1, else 1.

  Where no ratio exceeds 1 (all scores equal) the first present modality in sorted order is damped,
  as by the authors' code. Absent modalities (score 0) and a modality alone keep 1.

  Args:
    scores: {modality: scalar}, see `balancing.scores`; on a mesh they must be global means.
    alpha: >= 0.
    form: see `discrepancy_ratios`; the tie rule belongs to "mean".
  """
  if form != "mean":
    ratios = discrepancy_ratios(scores, form=form)
    return {m: jnp.where(r > 1, 1.0 - jnp.tanh(alpha * r), 1.0) for m, r in ratios.items()}
  names = sorted(scores)
  ratios = discrepancy_ratios({m: scores[m] for m in names})
  stacked = jnp.stack([ratios[m] for m in names])
  ahead = stacked > 1
  contested = jnp.sum(stacked > 0) > 1
  first = jnp.arange(len(names)) == jnp.argmax(stacked > 0)
  damped = contested & (ahead | (first & ~ahead.any()))
  ks = jnp.where(damped, 1.0 - jnp.tanh(alpha * stacked), 1.0)
  return dict(zip(names, ks))


def scale_by_ogm(
  alpha: float = 0.3,
  *,
  owners: Any = None,
  start_epoch: int = 0,
  end_epoch: int | None = None,
  min_ndim: int = 2,
  variant: str = "default",
  form: str = "mean",
) -> optax.GradientTransformationExtraArgs:
  """g <- k_m g for the weight tensors of encoder m, k_m from `ogm_coefficients`; needs `scores`.

  Args:
    alpha: strength >= 0 (README of the released code: .3 for CREMA-D, .1 for VGGSound).
    owners, start_epoch, end_epoch, min_ndim, variant, form: as in `scale_by_ogm_ge`, which adds
      noise.

  Raises:
    TypeError, ValueError: as `scale_by_ogm_ge`, which also needs a key.
  """
  rule = _Rule(alpha, owners, start_epoch, end_epoch, min_ndim, variant, form).check()

  def update_fn(updates, state, params=None, *, scores, owners=None, clock=None, **extra_args):
    del params, extra_args
    leaves, treedef, owners = rule.owned(updates, state, scores, owners)
    coefficients = rule.coefficients(state, scores, clock)
    out = [g if m is None else g * coefficients[m].astype(g.dtype) for g, m in zip(leaves, owners)]
    return jax.tree.unflatten(treedef, out), OgmState(coefficients)

  return optax.GradientTransformationExtraArgs(rule.init, update_fn)


def scale_by_ogm_ge(
  alpha: float = 0.3,
  *,
  owners: Any = None,
  start_epoch: int = 0,
  end_epoch: int | None = None,
  min_ndim: int = 2,
  variant: str = "default",
  form: str = "mean",
) -> optax.GradientTransformationExtraArgs:
  r"""g <- k_m g + z (std(g) + 1e-8), z ~ N(0, I), for the weight tensors of encoder m.

  Needs `scores` and `key` as extra arguments, in a chain of the user's own or in `supervised`.
  std is the unbiased one of the tensor before modulation. Noise goes to every present encoder, also
  where k_m = 1.

  Args:
    alpha: strength >= 0 (README of the released code: .3 for CREMA-D, .1 for VGGSound).
    owners: who owns a leaf: a tree of modality names or `tree.Owner`s, or params -> such a tree.
      Default: the owners the step passes, else the name of the leaf's top-level subtree. Of owners
      with parts only encoders are modulated.
    start_epoch, end_epoch: first and last epoch of the modulation, inclusive (released: 0, 50);
      None = to the end. A window needs the extra argument `clock`.
    min_ndim: leaves with fewer axes (biases, norm scales) are left alone. 2 covers dense,
      recurrent and convolutional kernels.
    variant: "released" modulates 4-D tensors alone, as the authors' code does.
    form: ratios for more than two modalities, see `discrepancy_ratios`.

  `noise` as an extra argument (a tree shaped as the gradients) replaces the draw from `key`.

  Raises:
    TypeError: `scores` or `key` is not passed to `update`.
    ValueError: alpha negative, an unknown option, a window without `clock`, scores of modalities
      that own no parameters.
  """
  rule = _Rule(alpha, owners, start_epoch, end_epoch, min_ndim, variant, form).check()

  def update_fn(
    updates, state, params=None, *, scores, key, noise=None, owners=None, clock=None, **extra_args
  ):
    del params, extra_args
    leaves, treedef, owners = rule.owned(updates, state, scores, owners)
    coefficients = rule.coefficients(state, scores, clock)
    touched = [i for i, m in enumerate(owners) if m is not None]
    drawn = (
      draws.split(jax.random.normal, key, [leaves[i].shape for i in touched])
      if noise is None
      else ([jax.tree.leaves(noise)[i] for i in touched])
    )
    on = rule.inside(clock)
    for i, z in zip(touched, drawn):
      grad, modality = leaves[i], owners[i]
      strength = jnp.where(on & (scores[modality] > 0), _std(grad) + 1e-8, 0.0)
      leaves[i] = grad * coefficients[modality].astype(grad.dtype) + (z * strength).astype(
        grad.dtype
      )
    return jax.tree.unflatten(treedef, leaves), OgmState(coefficients)

  return optax.GradientTransformationExtraArgs(rule.init, update_fn)


def _std(grad: jax.Array) -> jax.Array:
  grad = grad.astype(jnp.float32)
  return jnp.std(grad, ddof=1) if grad.size > 1 else jnp.zeros((), jnp.float32)


class _Rule(NamedTuple):
  """What OGM and OGM-GE share: whose leaf it is, when, and how much."""

  alpha: float
  owners: Any
  start_epoch: int
  end_epoch: int | None
  min_ndim: int
  variant: str
  form: str

  def init(self, params):
    names = sorted({m for m in self._names(params, None) if m is not None} - set(tree.RESERVED))
    return OgmState({m: jnp.ones((), jnp.float32) for m in names})

  def check(self):
    """Itself, or a sentence about what cannot be."""
    if not self.alpha >= 0:
      raise ValueError(f"alpha must be at least 0, got {self.alpha}")
    _groups.check_choice("variant", self.variant, _VARIANTS)
    _groups.check_choice("form", self.form, _FORMS)
    return self

  def _names(self, updates, passed) -> list[str | None]:
    """The owner of each leaf, None for heads and shared leaves."""
    found = self.owners if self.owners is not None else passed
    if found is None:
      found = tree.top_level_owners
    tags = jax.tree.leaves(found(updates) if callable(found) else found)
    return [t if isinstance(t, str) else t.modality if t.part == "encoder" else None for t in tags]

  def owned(self, updates, state, scores, passed):
    """Leaves, their tree, and the modality that modulates each (None = left alone)."""
    leaves, treedef = jax.tree.flatten(updates)
    unknown = sorted(set(scores) - set(state.coefficients))
    if unknown and self.owners is None and passed is None:
      raise ValueError(
        f"scores name the modality {unknown[0]!r}, but the parameters have the subtrees "
        f"{', '.join(sorted(state.coefficients)) or 'none'}; give owners= if they are nested"
      )
    deep = (
      (lambda g: g.ndim == 4) if self.variant == "released" else (lambda g: g.ndim >= self.min_ndim)
    )
    names = self._names(updates, passed)
    return (
      leaves,
      treedef,
      [
        m if m in scores and m in state.coefficients and deep(g) else None
        for g, m in zip(leaves, names)
      ],
    )

  def inside(self, clock) -> jax.Array:
    """Whether this epoch lies in the window."""
    if self.start_epoch <= 0 and self.end_epoch is None:
      return jnp.array(True)
    if clock is None:
      raise ValueError("start_epoch and end_epoch need the extra argument clock= (its epoch)")
    last = jnp.iinfo(jnp.int32).max if self.end_epoch is None else self.end_epoch
    return (clock.epoch >= self.start_epoch) & (clock.epoch <= last)

  def coefficients(self, state, scores, clock) -> dict[str, jax.Array]:
    """{modality: k}, 1 outside the window and for subtrees without a score."""
    ks, on = ogm_coefficients(scores, self.alpha, form=self.form), self.inside(clock)
    one = jnp.ones((), jnp.float32)
    return {m: jnp.where(on, ks.get(m, one), one).astype(jnp.float32) for m in state.coefficients}
