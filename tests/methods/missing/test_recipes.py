"""The networks of the recipes at their own sizes, as shapes: nothing of them is compiled or drawn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import train
from mmfuse.core import Batch, Clock
from mmfuse.encoders import _conv
from mmfuse.methods import METHODS
from mmfuse.methods.missing import recipes
from mmfuse.methods.missing._branch import BRANCH

BATCH = 2


def batch(shapes):
  rows = np.arange(BATCH, dtype=np.int32)
  inputs = {m: jax.ShapeDtypeStruct((BATCH, *s), np.float32) for m, s in shapes.items()}
  mask = {m: np.ones(BATCH, bool) for m in shapes}
  return Batch(inputs, rows % 2, mask, np.ones(BATCH, np.float32), rows)


SURF = batch({"depth": (112, 112, 3), "ir": (112, 112, 3), "rgb": (112, 112, 3)})
CREMA_D = batch({"audio": (257, 188, 1), "visual": (224, 224, 3)})


def shapes(model, given):
  """(variables, outputs, features of the encoders, forward FLOPs) from shapes alone."""

  def run(variables, inputs):
    features, stats = model.encode(variables, inputs, given.mask, train=False)
    variables = {**variables, "batch_stats": stats}
    return model.heads(variables, features, given.mask, train=False)[0], features

  init = lambda inputs: model.init(jax.random.key(0), inputs, given.mask)
  variables = jax.eval_shape(init, given.inputs)
  outputs, features = jax.eval_shape(run, variables, given.inputs)
  flops = jax.jit(run).lower(variables, given.inputs).cost_analysis()["flops"]
  return variables, outputs, features, flops


@pytest.fixture
def direct(monkeypatch):
  """Convolutions as they are counted by hand: on CPU the wide ones take fewer multiplications."""
  monkeypatch.setattr(_conv, "winograd_pays", lambda *args: False)


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def block(c, width, ratio, shortcut):
  """Parameters of a residual block by hand: two 3 x 3 convolutions, norms, squeeze-and-excitation."""
  squeezed = width // ratio
  gate = width * squeezed + squeezed + squeezed * width + width if ratio else 0
  return 9 * c * width + 9 * width**2 + 4 * width + gate + shortcut * (c * width + 2 * width)


def stage(c, width, stride=2):
  return block(c, width, 16, stride == 2) + block(width, width, 16, False)


def test_three_streams_and_a_shared_trunk(direct):
  model = recipes.casia_surf().model
  variables, outputs, features, flops = shapes(model, SURF)
  stem = 27 * 64 + 128 + stage(64, 64, 1) + stage(64, 128)
  trunk = stage(384, 256) + stage(256, 512) + 512 * 2 + 2
  params = variables["params"]
  assert {m: count(params[m]) for m in model.modalities} == dict.fromkeys(model.modalities, stem)
  assert count(params["heads"]["fused"]) == trunk
  # 112 -> 56 -> 28 (pooled) -> 14 x 14 x 128 a modality; 7 and 4 in the trunk.
  assert {x.shape for x in features.values()} == {(BATCH, 14 * 14 * 128)}
  assert outputs.aux["latent"].shape == (BATCH, 4 * 4 * 512) and outputs.logits.shape == (BATCH, 2)
  # Multiply-adds of the convolutions, twice: stems at 56, 28 and 14 positions a side, trunk at 7 and 4.
  own = 56**2 * 27 * 64 + 28**2 * 36 * 64**2 + 14**2 * (9 * 64 * 128 + 27 * 128**2 + 64 * 128)
  shared = 49 * (9 * 384 * 256 + 27 * 256**2 + 384 * 256)
  shared += 16 * (9 * 256 * 512 + 27 * 512**2 + 256 * 512)
  assert flops == pytest.approx(2 * BATCH * (3 * own + shared), rel=0.05)


def test_two_resnets(direct):
  variables, outputs, features, flops = shapes(recipes.audio_visual().model, CREMA_D)
  resnet = 11_176_512  # torchvision's, without its classifier; of one channel 2 x 49 x 64 fewer
  params = variables["params"]
  assert count(params["visual"]) == resnet and count(params["audio"]) == resnet - 2 * 49 * 64
  assert {x.shape for x in features.values()} == {(BATCH, 512)}
  assert outputs.logits.shape == (BATCH, 6)
  # 1.82e9 multiply-adds of a ResNet-18 at 224 x 224; the spectrogram has .96 of the positions.
  assert flops == pytest.approx(2 * BATCH * 1.82e9 * (1 + 0.96), rel=0.06)


@pytest.mark.slow
def test_mmanet_has_a_branch_of_everything_behind_the_encoders():
  """Stages, head and no encoder; the teacher has none of it."""
  found = recipes.casia_surf()
  method = METHODS["mmanet"].build(found.model, found.tx)
  init = lambda inputs: train.initial(method, jax.random.key(0), SURF._replace(inputs=inputs))
  state = jax.eval_shape(init, SURF.inputs)
  branch, fused = state.params[BRANCH], state.params["heads"]["fused"]
  assert count(branch) == count(fused) and list(branch) == ["heads"]
  assert sorted(branch["heads"]["fused"]) == ["layer3", "layer4", "out"]
  teacher = state.memory["objective"]["teacher"]
  assert count(teacher["params"]) == count(state.params) - count(fused)
  assert count(teacher["stats"]) == count(state.stats) - count(state.stats[BRANCH]) > 0


def test_the_rate_in_an_epoch():
  """The authors' 100 epochs, from the released scheduler."""
  factor = np.asarray(recipes.warm_up_and_steps(jnp.arange(100), 100))
  np.testing.assert_allclose(factor[:7], [0, 0, 0.2, 0.4, 0.6, 0.8, 1], rtol=1e-6)
  for first, last, want in ((6, 21, 1), (22, 38, 0.1), (39, 55, 0.01), (56, 99, 0.001)):
    np.testing.assert_allclose(factor[[first, last]], want, rtol=1e-5)


@pytest.mark.parametrize(
  "recipe, epoch, want",
  [
    ("casia_surf", 1, 0.0),
    ("casia_surf", 6, 1.0),
    ("audio_visual", 69, 1.0),
    ("audio_visual", 70, 0.1),
  ],
)
def test_the_optimisers_read_the_clock(recipe, epoch, want):
  tx = getattr(recipes, recipe)(rate=0.5).tx
  params = {"w": jnp.ones(2)}
  clock = Clock(*(jnp.int32(v) for v in (0, epoch, 0, 10, 100)))
  update = functools.partial(tx.update, clock=clock)
  moved, _ = update({"w": jnp.ones(2)}, tx.init(params), params)
  decay, momentum = {"casia_surf": (5e-4, 1.9), "audio_visual": (1e-4, 1.0)}[recipe]
  np.testing.assert_allclose(moved["w"], -0.5 * want * momentum * (1 + decay), rtol=1e-5)
  assert train.has_learning_rate(tx.init(params), 0.5)
