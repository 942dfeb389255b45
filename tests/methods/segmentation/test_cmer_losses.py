"""The terms of WSS-CMER: what its page promises of each, and rows that lack a modality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.segmentation import _cmer_losses as losses

RNG = np.random.default_rng(0)
NAMES = "abc"
ROWS = 6
LABEL = jnp.asarray([1, 0, 1, 1, 0, 1])


def drawn(names=NAMES, classes=2):
  of = lambda *shape: {m: jnp.asarray(RNG.uniform(size=(ROWS, *shape)), jnp.float32) for m in names}
  return tuple(losses.View(of(classes), of(4, 3, classes)) for _ in range(2))


def rows(label=LABEL, mask=None, names=NAMES, known=None):
  ones = jnp.ones(len(label))
  mask = dict.fromkeys(names, ones > 0) if mask is None else mask
  return losses.Rows(label, mask, ones, ones if known is None else known)


VIEWS = drawn()
TERMS = {
  "ce": losses.cross_entropy,
  "kl": lambda *given: losses.mutual_learning(*given, 4.0),
  "er": losses.equivariance,
  "cmer": losses.cross_modality,
}


def test_networks_that_say_the_same_have_nothing_to_tell_each_other():
  first = VIEWS[0]
  same = lambda x: dict.fromkeys(NAMES, x["a"])
  alike = losses.View(same(first.logits), same(first.maps))
  for m in NAMES:
    for name in ("kl", "er", "cmer"):
      assert float(TERMS[name](m, (alike, alike), rows())) == pytest.approx(0, abs=1e-7)
  assert float(losses.equivariance("a", VIEWS, rows())) > 0.01


def test_rows_where_nothing_is_compare_no_maps():
  none = rows(jnp.zeros(ROWS, int))
  for m in NAMES:
    assert float(losses.equivariance(m, VIEWS, none)) == 0
    assert float(losses.cross_modality(m, VIEWS, none)) == 0


def test_another_modality_teaches_only_where_it_recognised_what_there_is():
  wrong = jnp.stack([1.0 - LABEL, 1.0 * LABEL], -1) * -5
  views = tuple(v._replace(logits={**v.logits, "b": wrong, "c": wrong}) for v in VIEWS)
  assert float(losses.cross_modality("a", views, rows())) == 0
  assert float(losses.cross_modality("b", views, rows())) >= 0
  one = tuple(v._replace(logits={**v.logits, "b": -wrong, "c": wrong}) for v in VIEWS)
  assert float(losses.cross_modality("a", one, rows())) > 0


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_a_network_moves_no_other_network(name):
  def term(views):
    return TERMS[name]("a", views, rows())

  grads = jax.grad(term)(VIEWS)
  size = {m: sum(float(jnp.abs(x[m]).sum()) for v in grads for x in v) for m in NAMES}
  assert size["a"] > 0 and size["b"] == size["c"] == 0


@pytest.mark.parametrize("name", TERMS)
def test_a_term_counts_the_rows_that_have_what_it_reads(name):
  """Absent rows may hold anything; with M = 2 a mean over both is that of the rows left."""
  both = "ab"
  views = drawn(both)
  mask = {"a": jnp.arange(ROWS) != 1, "b": jnp.arange(ROWS) != 3}
  spoilt = lambda x: {m: jnp.where(_along(mask[m], v), v, np.nan) for m, v in x.items()}
  broken = tuple(losses.View(spoilt(v.logits), spoilt(v.maps)) for v in views)
  filled = tuple(losses.View(*(jax.tree.map(jnp.nan_to_num, x) for x in v)) for v in broken)
  given = rows(mask=mask, names=both)
  found = TERMS[name]("a", filled, given)
  assert float(found) == float(TERMS[name]("a", broken, given)) and np.isfinite(found)
  kept = mask["a"] if name in ("ce", "er") else mask["a"] & mask["b"]
  few = jax.tree.map(lambda x: x[np.asarray(kept)], views)
  alone = rows(LABEL[np.asarray(kept)], names=both)
  assert float(found) == pytest.approx(float(TERMS[name]("a", few, alone)), rel=1e-5)
  nobody = rows(mask={"a": mask["a"], "b": jnp.zeros(ROWS, bool)}, names=both)
  if name in ("kl", "cmer"):
    assert float(TERMS[name]("a", filled, nobody)) == 0


def _along(present, x):
  return present.reshape(-1, *(1,) * (x.ndim - 1))


def test_an_unknown_label_counts_in_what_reads_none_alone():
  known = jnp.where(jnp.arange(ROWS) == 2, 0.0, 1.0)
  given = rows(known=known)
  other = rows(LABEL.at[2].set(0), known=known)
  for name, term in TERMS.items():
    assert float(term("a", VIEWS, given)) == float(term("a", VIEWS, other))
    assert (float(term("a", VIEWS, given)) == float(term("a", VIEWS, rows()))) == (name == "kl")


def test_of_more_classes_a_row_is_compared_by_the_map_of_its_own():
  first, second = drawn("ab", 4)
  label = jnp.asarray([3, 0, 1, 2, 0, 3])
  given = rows(label, names="ab")
  a, b = np.asarray(first.maps["a"]), np.asarray(second.maps["a"])
  by_hand = [((a[i, ..., y] - b[i, ..., y]) ** 2).mean() if y else 0 for i, y in enumerate(label)]
  found = float(losses.equivariance("a", (first, second), given))
  assert found == pytest.approx(np.mean(by_hand), rel=1e-5)
