"""What was chosen, in words, and what is no encoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import encoders, fusion
from mmfuse.core import Sequence


def _said(module, shape, guessed=False, dtype=np.float32):
  x = jax.ShapeDtypeStruct(shape, dtype)
  _, variables = encoders.check_encoder(module, x, "m")
  return encoders.describe(module, x, variables.get("params", {}), guessed)


@pytest.mark.parametrize(
  "shape,text",
  [
    ((9, 8), "[8] -> mlp, 5.0k parameters"),
    ((9, 48, 3), "[48, 3] -> conv1d, 8 segments, 44k parameters (read as [time, channels])"),
    ((9, 8, 8, 3), "[8, 8, 3] -> conv2d, 4 x 4 segments, 85k parameters"),
    (
      (9, 8, 8, 64),
      "[8, 8, 64] -> conv2d, 4 x 4 segments, 103k parameters "
      "(read as an image of 64 channels, [height, width, channels])",
    ),
    (
      (9, 3, 8, 8),
      "[3, 8, 8] -> conv2d, 4 x 4 segments, 87k parameters (read as an image of 8 channels, "
      "[height, width, channels]; channels first? transpose it)",
    ),
    (
      (9, 2, 4, 4, 1),
      "[2, 4, 4, 1] -> conv2d of every frame, 4 x 4 segments, 4 segments of time, "
      "44k parameters (read as frames [time, height, width, channels])",
    ),
  ],
)
def test_defaults_in_words(shape, text):
  found = _said(encoders.default_encoder(shape, np.float32), shape, True)
  count = lambda said: said.split(", ")[-1].split(" parameters")
  strip = lambda said: [
    p for p in said.replace("k parameters", " parameters").split() if not p[0].isdigit()
  ]
  assert strip(found) == strip(text) and count(found)[1:] == count(text)[1:]


def test_names_and_numbers_in_words():
  shape = (9, 6, 2)
  by = lambda name: _said(encoders.by_name(name, shape, np.float32), shape)
  assert by("linear") == "[6, 2] -> linear, 832 parameters"  # 12 * 64 + 64
  assert by("identity") == "[6, 2] -> identity, no parameters"
  assert by("conv1d_steps").startswith("[6, 2] -> conv1d, every step, ")
  assert by("gru").startswith("[6, 2] -> gru, ") and by("gru").endswith("k parameters")
  small = encoders.MLP(3, ())
  assert _said(small, (9, 2)) == "[2] -> mlp, 15 parameters"
  tokens = encoders.describe(encoders.Embedding(30), np.zeros((2, 5), np.int32), {})
  assert tokens == "[5] -> embedding, 30 tokens, no parameters"
  x = Sequence(np.zeros((2, 6, 2)), np.ones(2, np.int32))
  params = {"w": np.zeros((1200, 1000)), "b": np.zeros(34000)}
  assert (
    encoders.describe(encoders.GRU(), x, params) == "[6, 2] with lengths -> gru, 1.2M parameters"
  )


class Own(nn.Module):
  """Returns what it is told, on rows of 4."""

  what: str

  @nn.compact
  def __call__(self, x, mask, *, train):
    h = nn.Dense(3)(x)
    if self.what == "cache":
      self.variable("cache", "seen", jnp.zeros, ())
    if self.what == "train" and train:
      raise KeyError("no such rate")
    return {
      "dict": {"h": h},
      "tuple": (h, h),
      "None": None,
      "scalar": h.sum(),
      "batch": h.sum(0),
      "int": h.argmax(-1),
      "rows": h[:3],
    }.get(self.what, h)


@pytest.mark.parametrize(
  "what,sentence",
  [
    ("dict", r"the encoder of 'gait' \(Own\) returned a dict, expected one array \[B, features\]"),
    ("tuple", r"returned a tuple, expected one array"),
    ("None", "returned None, expected one array"),
    ("scalar", r"returned a scalar for \d rows, expected one array"),
    ("batch", r"returned an array \[3\] for \d rows"),
    ("rows", r"returned an array \[3, 3\] for \d rows"),
    ("int", "returned int32, expected floating-point features"),
    (
      "cache",
      "has a variable collection 'cache'; carried from step to step are params and batch_stats",
    ),
  ],
)
def test_what_is_no_feature_is_named(what, sentence):
  x, present = {"gait": jnp.ones((5, 4))}, {"gait": jnp.ones(5, bool)}
  with pytest.raises(ValueError, match=sentence):
    encoders.check_encoder(Own(what), x["gait"], "gait")
  with pytest.raises(ValueError, match=sentence):
    jax.eval_shape(fusion.LateFusion({"gait": Own(what)}, 2).init, jax.random.key(0), x, present)


def test_a_module_that_fails_is_named_with_the_shape():
  sentence = r"the encoder of 'gait' \(Own\) fails on rows of shape \[4\]: KeyError: 'no such rate'"
  encoders.check_encoder(Own("train"), np.ones((5, 4), np.float32), "gait")
  with pytest.raises(ValueError, match=sentence):
    encoders.check_encoder(Own("train"), np.ones((5, 4), np.float32), "gait", train=True)


class Counting(nn.Module):
  """Statistics, and no mask."""

  @nn.compact
  def __call__(self, x, train):
    return nn.BatchNorm(use_running_average=not train)(x.reshape(x.shape[0], -1))


def test_remarks_say_what_is_not_read():
  rows = Sequence(np.zeros((3, 4, 2), np.float32), np.array([4, 2, 1]))
  ends = [
    "the encoder of 'a' (MLP) takes arrays: rows that end early come to it with zeros after "
    "their end"
  ]
  assert encoders.remarks(encoders.MLP(), rows, {}, "a") == ends
  assert encoders.remarks(encoders.MLP(), rows.values, {}, "a") == []
  assert encoders.remarks(encoders.GRU(), rows, {}, "a") == []
  blind = encoders.adapt(Counting(), "b")
  _, variables = encoders.check_encoder(blind, rows.values, "b")
  assert encoders.remarks(blind, rows.values, variables, "b") == [
    "the encoder of 'b' (Counting) names no mask: its statistics see absent rows as zeros"
  ]
