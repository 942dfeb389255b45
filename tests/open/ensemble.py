"""A deep ensemble: the same method several times, members averaged, scored by what is out of distribution."""

import jax
import jax.numpy as jnp

from mmfuse import objectives, train
from mmfuse.core import Outputs
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion


def mean_of_members(outputs, mask):
  members = jnp.stack([o.logits for o in outputs.values()], 1)  # [B, members, C]
  mean = jax.nn.logsumexp(jax.nn.log_softmax(members), 1) - jnp.log(members.shape[1])
  return Outputs(mean, aux={"members": members})


def method(members=3, classes=3, learning_rate=0.1):
  model = LateFusion({m: MLP(8, (8,)) for m in "ab"}, classes)
  one = train.supervised(model, objectives.fused, train.sgd(learning_rate))
  return train.parts({f"member{i}": one for i in range(members)}, predict=mean_of_members)
