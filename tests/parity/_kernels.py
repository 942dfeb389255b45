"""Which function answers which parity case, and how closely.

A function takes a case and returns {output name: value}; every shape and hyper-parameter comes from
the case. Errors are measured against the largest entry of the output.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _balancing, _family, _metrics, _modulation, _moo, _weightings
from ._cases import Case


class Kernel(NamedTuple):
  """Claims the cases of `slug` whose names start with a match of `prefix`."""

  slug: str
  prefix: str
  function: Callable[[Case], dict[str, Any]]
  rtol: float = 1e-5  # of the largest entry
  atol: float = 0.0
  loose: dict[str, float] = {}  # {output: rtol} where one output is looser, and why below

  def claims(self, slug: str, name: str) -> bool:
    return slug == self.slug and re.match(self.prefix, name) is not None


KERNELS = [
  # Noise times (std + 1e-8) is 1e-8 in one case: no absolute tolerance.
  Kernel("ogm_ge", r"concat|sum|equal", _balancing.ogm_ge),
  Kernel("ogm_ge", r"bb_", _balancing.ogm_balance_benchmark),
  Kernel("mmpareto", r"conflict|zero", _balancing.mmpareto),
  # Opposite vectors: the minimum is 0, what is left is rounding of |g|^2.
  Kernel("mmpareto", r"minnorm", _balancing.min_norm, atol=2e-6),
  Kernel("mimo", r"trajectory", _balancing.mimo_trajectory),
  Kernel("mimo", r"(?!trajectory)", _balancing.mimo_kernel),
  # Float32 here, float64 there; the covariance is inverted.
  Kernel("bogc", r"laplace", _balancing.bogc_laplace, rtol=5e-5),
  Kernel("bogc", r"precision", _balancing.bogc_precision),
  Kernel("bogc", r"evidence|edge", _balancing.bogc_evidence),
  Kernel("moo_baselines", r"mgda_[^_]+_m2", _balancing.mgda, atol=1e-6),
  # K >= 3: that solver stops at a change of 1e-5, an iteration earlier or later by rounding.
  Kernel("moo_baselines", r"mgda_[^_]+_m(?!2)", _balancing.mgda, rtol=3e-5, atol=1e-6),
  Kernel("moo_baselines", r"pcgrad", _balancing.pcgrad, atol=1e-6),
  # A general-purpose solver with default tolerances there: the page allows 1e-3 on the direction.
  Kernel("moo_baselines", r"cagrad", _balancing.cagrad, rtol=1e-3, atol=1e-6, loose={"w": 5e-2}),
  Kernel("moo_baselines", r"stch", _balancing.stch),
  # As published: normalised by the sum of the raw weights, whatever its sign.
  Kernel("moo_baselines", r"imtl_g", _moo.imtl_g_case),
  # A convex solver stopped after 20 rounds there: the page allows 1e-3. Our residual is smaller than theirs.
  Kernel("moo_baselines", r"nash", _moo.nash, 1e-3, 1e-5, {"fixed_point_residual": 1.0}),
  Kernel("moo_baselines", r"aligned", _moo.aligned),
  Kernel("moo_baselines", r"fairgrad", _moo.fairgrad),
  Kernel("moo_baselines", r"moco", _weightings.moco_sequence),
  Kernel("moo_baselines", r"famo", _weightings.famo_sequence),
  Kernel("gblending", r"paper", _weightings.gblending_paper),
  Kernel("gblending", r"bb_", _weightings.gblending_released),
  Kernel("balance_family", r"cml_", _family.cml),
  Kernel("balance_family", r"mbsd_", _family.mbsd),
  Kernel("balance_family", r"lfm_", _family.lfm),
  Kernel("balance_family", r"mmcosine_", _family.mmcosine),
  Kernel("balance_family", r"reconboost_", _family.reconboost),
  Kernel("balance_family", r"opm_q_", _family.opm_rates),
  Kernel("balance_family", r"amco_schedule", _family.amco_schedule),
  Kernel("agm", r"m\d", _modulation.agm),
  Kernel("agm", r"bb_", _modulation.agm_balance_benchmark),
  Kernel("pmr", r"step_", _modulation.pmr_step),
  Kernel("pmr", r"proto_", _modulation.pmr_prototypes),
  Kernel("balance_family", r"relearning_purity", _modulation.relearning_purity),
  Kernel("balance_family", r"greedy_speed", _modulation.greedy_speed),
  Kernel("balance_family", r"shapley", _metrics.shapley),
]


def claiming(slug: str, name: str) -> list[Kernel]:
  """The kernels that answer a case; exactly one, or none."""
  return [k for k in KERNELS if k.claims(slug, name)]
