"""Any encoder becomes one of tokens; what keeps its steps stays, and lengths reach the fusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion
from mmfuse.core import Sequence


@pytest.mark.parametrize(
  "module, x, steps, width",
  [
    (encoders.MLP(), jnp.ones((3, 20)), 7, 32),  # segments of three columns
    (encoders.Conv2D(), jnp.ones((3, 8, 8, 1)), 16, 32),
    (encoders.Frames(encoders.Conv2D()), jnp.ones((3, 4, 8, 8, 1)), 4, 32),
    (encoders.Embedding(7), jnp.ones((3, 5), jnp.int32), 5, 32),
    (encoders.GRU(), jnp.ones((3, 20, 2)), 20, 32),
    (encoders.Conv1D(), jnp.ones((3, 10, 2)), 10, 64),  # its own steps
    (encoders.Transformer(8, pool="none"), jnp.ones((3, 10, 2)), 10, 8),
  ],
)
def test_any_encoder_becomes_one_of_tokens(module, x, steps, width):
  found = encoders.token_encoder(module)
  assert found.step_features == width
  h, _ = encoders.check_encoder(found, x, "a", train=True)
  assert h.shape[1:] == (steps, width)
  assert encoders.token_encoder(found) is found


def test_lengths_reach_a_fusion_that_attends_to_steps():
  module = encoders.token_encoder(encoders.GRU(), features=4, heads=2)
  model = fusion.LateFusion({"a": module}, 2)
  values = np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32)
  inputs = {"a": Sequence(jnp.asarray(values), jnp.asarray([20, 4]))}
  mask = {"a": jnp.ones(2, bool)}
  variables = model.init(jax.random.key(0), inputs, mask)
  h = model.encode(variables, inputs, mask, train=False)[0]["a"].reshape(2, 20, 4)
  assert (np.abs(h).sum(-1) > 0).sum(1).tolist() == [20, 4]
