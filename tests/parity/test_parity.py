"""Parity with fixtures made by the authors' code, re-implementations, or float64 NumPy.

Walks every case of every `<slug>.json/.npz` in MMFUSE_PARITY (default: `fixtures/`). A pending case
is not collected; a case that is neither claimed by a kernel nor pending fails.
"""

import numpy as np
import pytest

from . import _cases, _kernels, _pending

FOLDER = _cases.folder()
NAMES = _cases.names(FOLDER)
SHIPPED = _cases.names(_cases.SHIPPED)


def is_pending(entry: str, slug: str, name: str) -> bool:
  """Whether `slug` or `slug/prefix` covers a case."""
  wanted, _, prefix = entry.partition("/")
  return slug == wanted and name.startswith(prefix)


def pending(slug: str, name: str) -> bool:
  """Whether any entry covers a case."""
  return any(is_pending(e, slug, name) for e in _pending.PENDING)


def cases(names: dict[str, list[str]]) -> list[tuple[str, str]]:
  """All (slug, case)."""
  return [(slug, name) for slug, found in names.items() for name in found]


COLLECTED = [c for c in cases(NAMES) if _kernels.claiming(*c) or not pending(*c)]


@pytest.mark.parametrize(("slug", "name"), COLLECTED, ids=["/".join(c) for c in COLLECTED])
def test_case(slug, name):
  """Every output of the case, within the kernel's tolerance of its largest entry."""
  kernels = _kernels.claiming(slug, name)
  assert kernels, f"no kernel claims {slug}/{name}, and it is not listed as pending"
  assert len(kernels) == 1, f"{len(kernels)} kernels claim {slug}/{name}"
  kernel, case = kernels[0], _cases.load(FOLDER, slug, name)
  assert case.outputs, f"{case.id} has no outputs to compare with"
  got = kernel.run(case)
  for key, want in case.outputs.items():
    assert key in got, f"{case.id}: the kernel does not compute {key}"
    value = np.asarray(got[key], np.float64)
    assert value.shape == want.shape, f"{case.id}: {key} is {value.shape}, expected {want.shape}"
    # Where released code divides by nothing, so must the variant that reproduces it.
    assert (np.isnan(value) == np.isnan(want)).all(), f"{case.id}: {key} is NaN elsewhere"
    value, want = np.nan_to_num(value), np.nan_to_num(want)
    allowed = kernel.loose.get(key, kernel.rtol) * np.max(np.abs(want), initial=0.0) + kernel.atol
    allowed = max(allowed, kernel.least(key, case.inputs))
    error = np.max(np.abs(value - want), initial=0.0)
    assert error <= allowed, f"{case.id}: {key} is off by {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("entry", _pending.PENDING)
def test_pending_entries_are_true(entry):
  """Each covers a case (here or in the shipped fixtures) and nothing a kernel claims."""
  covered = [c for c in {*cases(NAMES), *cases(SHIPPED)} if is_pending(entry, *c)]
  assert covered, f"the pending entry {entry!r} matches no case: remove it"
  claimed = sorted("/".join(c) for c in covered if _kernels.claiming(*c))
  assert not claimed, (
    f"the pending entry {entry!r} covers cases a kernel claims: {', '.join(claimed)}"
  )


def test_every_kernel_answers_a_shipped_case():
  for kernel in _kernels.KERNELS:
    assert any(kernel.claims(*c) for c in cases(SHIPPED)), (
      f"{kernel.slug}/{kernel.prefix} claims nothing"
    )


def test_unknown_case_is_noticed():
  """The rule that keeps new fixtures from being skipped."""
  assert not _kernels.claiming("moo_baselines", "new_rule_m2") and not pending(
    "moo_baselines", "new_rule_m2"
  )
  assert not pending("mimo", "kernel_0")


def test_the_tolerance_is_at_least_the_rounding_of_what_is_computed():
  """1 - tanh(x) near 0 is a difference of numbers near 1: its last digits are those of 1."""
  kernel = _kernels.claiming("ogm_ge", "concat_0_a0.3")[0]
  inputs = {"grad_a_w": np.asarray([0.5, -4.0]), "label": np.asarray([100.0])}
  eps = float(np.finfo(np.float32).eps)
  assert kernel.least("coeff_a", inputs) == eps
  assert kernel.least("ogm_a_w", inputs) == 4 * eps
  assert kernel.least("score_a", inputs) == 0.0
