"""UMT: distances, phases, frozen teachers."""

import jax
import numpy as np
import pytest

from mmfuse.methods import METHODS

from .. import _small


def test_student_starts_again_beside_a_frozen_teacher():
  method = METHODS["umt"](_small.model())
  teacher, student = method.phases
  assert [(p.name, p.share) for p in method.phases] == [("teacher", 0.5), ("train", 0.5)]
  first = _small.start(method)
  given = _small.batch()
  taught, log = jax.jit(teacher.step)(first, given, jax.random.key(1), _small.clock())
  assert {"loss/a", "loss/b"} <= set(log) and "loss/fused" not in log
  begun = student.begin(taught, _small.hooks(), jax.random.key(2), _small.hour())
  jax.tree.map(np.testing.assert_array_equal, begun.params, first.params)
  jax.tree.map(np.testing.assert_array_equal, begun.memory["objective"]["params"], taught.params)
  after, log = jax.jit(student.step)(begun, given, jax.random.key(3), _small.clock())
  assert float(log["loss/distillation"]) > 0
  jax.tree.map(np.testing.assert_array_equal, after.memory["objective"], begun.memory["objective"])


def test_a_student_equal_to_its_teacher_has_no_distance():
  method = METHODS["umt"](_small.model())
  state = _small.start(method)  # the teacher in memory is the student itself
  _, log = jax.jit(method.phases[1].step)(state, _small.batch(), jax.random.key(3), _small.clock())
  np.testing.assert_allclose(float(log["loss/distillation"]), 0.0, atol=1e-10)


def test_negative_scaling_is_refused():
  with pytest.raises(ValueError, match="scaling must not be negative"):
    METHODS["umt"](_small.model(), scaling=-1)
