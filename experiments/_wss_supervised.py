"""The upper line of `wss_cmer`: the same networks, trained on the masks."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from mmfuse import objectives, train
from mmfuse.core import LAST, Batch, Method, Outputs, label_weight
from mmfuse.methods.segmentation import _transforms
from mmfuse.methods.segmentation._cam_net import Nets


@dataclasses.dataclass(frozen=True)
class Loss:
  """The cross-entropy of every place, of images as they are and moved, as the tags' networks see them."""

  nets: Nets

  def __call__(self, variables, batch: Batch, key: jax.Array, clock, memory):
    del clock, memory
    drawn = _transforms.draw(key, batch.weight.shape[0])
    label = jnp.asarray(batch.label)
    moved = _transforms.transformed(drawn, label[..., None])[..., 0]
    total, stats = jnp.zeros((), jnp.float32), {}
    for m in self.nets.modalities:
      x, present = batch.inputs[m], batch.mask[m]
      views = jnp.stack([x, _transforms.transformed(drawn, x)])
      maps, stats[m] = self.nets.learn(variables, m, views, present)
      weight = jnp.where(present, label_weight(batch), 0.0)
      each = [objectives.dense_loss(z, y, weight) for z, y in zip(maps, (label, moved))]
      total = total + 0.5 * (each[0] + each[1])
    return total, train.Aux(stats)


@dataclasses.dataclass(frozen=True)
class Predict:
  """aux["cams"] are probabilities of every place; of each row every network says class 1."""

  nets: Nets

  def __call__(self, variables, memory, inputs, mask) -> Outputs:
    del memory
    cams, said = {}, {}
    for m in self.nets.modalities:
      maps, _ = self.nets.look(variables, m, inputs[m], mask[m])
      cams[m] = jax.nn.softmax(maps)
      said[m] = jnp.broadcast_to(jnp.asarray([0.0, 1.0]), (maps.shape[0], 2))
    return Outputs(None, said, aux={"cams": cams})


def supervised(
  modalities: tuple[str, ...], width: int, levels: int, tx: optax.GradientTransformation
) -> Method:
  """A network for each modality, labels int [B, H, W] of two classes; the last state is kept."""
  nets = Nets(modalities, width, levels, _two, same_size=True)
  return train.minimise(nets.begin, Loss(nets), tx, predict=Predict(nets), select=LAST)


def _two(inputs, mask) -> int:
  del inputs, mask
  return 2
