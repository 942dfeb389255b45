"""MMCosine as a method."""

import jax
import numpy as np
import pytest

from mmfuse import fusion
from mmfuse.core import Unavailable
from mmfuse.methods import METHODS

from .. import _small


def test_replaces_the_fusion_and_its_prediction_is_bounded():
  method = METHODS["mmcosine"](_small.model(), scale=2.0)
  state = _small.start(method)
  assert set(state.params["heads"]["fused"]) == {"kernel"}
  given = _small.batch()
  found = method.predict(state, given.inputs, given.mask)
  assert float(abs(found.logits).max()) <= 4.0
  # What an encoder's scale is does not matter.
  louder = jax.tree.map(lambda x: 5.0 * x, state.params["a"])
  again = method.predict(
    state._replace(params={**state.params, "a": louder}), given.inputs, given.mask
  )
  np.testing.assert_allclose(again.logits, found.logits, rtol=1e-4, atol=1e-5)


def test_refusals():
  with pytest.raises(ValueError, match="scale must be positive, got 0"):
    METHODS["mmcosine"](_small.model(), scale=0)
  given = _small.model()
  with pytest.raises(Unavailable, match="got a object"):
    METHODS["mmcosine"](object())
  METHODS["mmcosine"](given)
  assert given.fusion == fusion.Concat()
