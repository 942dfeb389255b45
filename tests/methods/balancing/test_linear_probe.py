"""The linear probe: new heads on encoders that stay."""

import jax
import numpy as np
import pytest

from mmfuse import train
from mmfuse.methods import METHODS

from .. import _small


def test_heads_are_new_and_encoders_stay_even_with_weight_decay():
  tx = train.sgd(0.1, weight_decay=0.1)
  method = METHODS["linear_probe"](_small.model(norm="batch"), tx=tx)
  joint, probe = method.phases
  assert [(p.name, p.share) for p in method.phases] == [
    ("train", 0.7),
    ("probe", pytest.approx(0.3)),
  ]
  first = _small.start(method)
  trained, _ = jax.jit(joint.step)(first, _small.batch(), jax.random.key(1), _small.clock())
  begun = probe.begin(trained, _small.hooks(), jax.random.key(2), _small.hour())
  same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, a, b)
  same(begun.params["heads"], first.params["heads"])
  same(begun.params["a"], trained.params["a"])
  after, log = jax.jit(probe.step)(begun, _small.batch(), jax.random.key(3), _small.clock())
  same({m: after.params[m] for m in "ab"}, {m: begun.params[m] for m in "ab"})
  same(after.stats, begun.stats)
  assert {"loss/fused", "loss/a", "loss/b"} <= set(log)
  for name in ("fused", "a", "b"):
    old, new = begun.params["heads"][name]["kernel"], after.params["heads"][name]["kernel"]
    assert float(abs(old - new).max()) > 0


def test_refusals():
  with pytest.raises(ValueError, match=r"share must lie in \(0, 1\), got 1"):
    METHODS["linear_probe"](_small.model(), share=1)
