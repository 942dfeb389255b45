"""What ensembles say together, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse.methods.ensembles import _members
from mmfuse.methods.ensembles._checks import check_sizes, check_weights


def test_classes_are_averaged_as_probabilities():
  p = np.asarray([[[0.8, 0.2], [0.4, 0.6]]])
  np.testing.assert_allclose(
    np.exp(_members.pool(jnp.log(p) + 3.0, "classification")), [[0.6, 0.4]], rtol=1e-6
  )


def test_labels_are_averaged_as_probabilities_of_yes_and_numbers_as_they_are():
  z = jnp.asarray([[[0.0, 2.0], [0.0, -2.0]]])
  np.testing.assert_allclose(_members.pool(z, "multilabel"), [[0.0, 0.0]], atol=1e-6)
  far = jnp.asarray([[[200.0], [200.0]]])  # a probability of 1 in float32
  np.testing.assert_allclose(_members.pool(far, "multilabel"), [[200.0]], rtol=1e-6)
  np.testing.assert_allclose(_members.pool(z, "regression"), [[0.0, 0.0]])


def test_votes_are_shares_with_one_vote_split_evenly_and_ties_go_to_the_smallest_class():
  said = np.asarray([[2, 2, 1, 2], [1, 0, 0, 1]])  # [rows, members]
  found = np.asarray(_members.vote(jnp.eye(3)[said], "classification"))
  third = 1 / 3
  want = np.asarray([[third, 1 + third, 3 + third], [2 + third, 2 + third, third]]) / 5
  np.testing.assert_allclose(np.exp(found), want, rtol=1e-6)
  assert found.argmax(-1).tolist() == [2, 0]
  labels = _members.vote(jnp.asarray([[[1.0, -1.0], [3.0, 1.0]]]), "multilabel")
  np.testing.assert_allclose(labels, np.log([[2.5 / 0.5, 1.0]]), rtol=1e-6)
  assert (_members.vote(labels[None], "regression") == labels).all()


def test_the_loss_of_a_member_reads_no_row_of_weight_0():
  z = jnp.log(jnp.asarray([[[0.5, 0.5], [0.9, 0.1]], [[jnp.nan] * 2] * 2]))
  found = _members.member_losses(z, jnp.asarray([0, 0]), jnp.asarray([2.0, 0.0]))
  np.testing.assert_allclose(found, -np.log([0.5, 0.9]), rtol=1e-5)


def test_options_are_refused_by_name():
  with pytest.raises(ValueError, match="width must be at least 1, got 0"):
    check_sizes(members=1, width=0)
  with pytest.raises(ValueError, match="lam must not be negative, got nan"):
    check_weights(lam=float("nan"))
