"""The model that the rows of a comparison share: an encoder per modality, and how they are joined."""

from typing import Any

import flax.linen as nn
import numpy as np

from mmfuse import encoders, fusion, methods
from mmfuse.core import Sequence
from mmfuse.names import GENERATION, RETRIEVAL, SEGMENTATION
from mmfuse.protocol._config import Compare, UsageError, parse_pairs
from mmfuse.protocol._own import load_attribute

UNET = "unet"  # the encoder of a segmentation


def encoder_choices(cfg: Compare) -> dict[str, Any]:
  """`--encoder NAME=spec` -> {modality: spec or a module of the user's class}."""
  out: dict[str, Any] = {}
  for name, spec in parse_pairs(cfg.encoder, "--encoder").items():
    out[name] = _encoder(name, spec, load_attribute(spec)) if ":" in spec else spec
  return out


def _encoder(name: str, spec: str, made: Any) -> Any:
  """An encoder of the user: a Linen class is called without arguments, the rest is adapted."""
  linen = isinstance(made, type) and issubclass(made, nn.Module)
  try:
    return encoders.adapt(made() if linen else made, name)
  except (TypeError, ValueError) as error:
    said = f"the class needs arguments ({error})" if isinstance(error, TypeError) else error
    raise UsageError(f"--encoder {spec}: {said}") from error


def make_model(splits: Any, fusion_name: str = "concat") -> Any:
  """Late fusion with an encoder per modality: the user's choice, else by rank and dtype.

  Encoders chosen by name or rank keep their steps for a fusion that attends to them. Of a segmentation
  the way down of a U-Net per modality, and one way up.
  """
  if splits.task == SEGMENTATION:
    own = {m: splits.encoders.get(m) for m in splits.modalities}
    unets = {m: encoders.UNet() if e in (None, UNET) else e for m, e in own.items()}
    return fusion.DenseFusion(unets, splits.num_outputs)
  head = fusion.head_named(fusion_name)
  keep = encoders.keep_steps if getattr(head, "reads_steps", False) else lambda module: module
  chosen = {}
  for m in splits.modalities:
    x, spec = splits.train.inputs[m], splits.encoders.get(m)
    x = x.values if isinstance(x, Sequence) else x
    if spec is None:
      chosen[m] = keep(encoders.default_encoder(x.shape, x.dtype))
    elif isinstance(spec, str):
      vocabulary = int(np.max(x)) + 1 if x.dtype.kind == "i" else None
      chosen[m] = keep(
        encoders.by_name(
          spec, x.shape, x.dtype, **({"vocabulary": vocabulary} if vocabulary else {})
        )
      )
    else:
      chosen[m] = spec
  # Without labels heads are for nothing; whatever is trained reads the encoders alone.
  return fusion.LateFusion(chosen, splits.num_outputs or 1, head)


def said_of_encoders(splits: Any, model: Any) -> tuple[dict[str, str], list[str]]:
  """({modality: what encodes it, in words}, remarks on what an encoder does not read)."""
  said: dict[str, str] = {}
  remarks: list[str] = []
  for m in model.modalities:
    x, module = splits.train.inputs[m], model.encoders[m]
    _, variables = encoders.check_encoder(module, x, m, maps=splits.task == SEGMENTATION)
    guessed = splits.encoders.get(m) is None
    said[m] = encoders.describe(module, x, variables.get("params", {}), guessed)
    remarks += encoders.remarks(module, x, variables, m)
  return said, remarks


def _check_dense(splits: Any, fusion_name: str) -> None:
  """Raises UsageError for a fusion of vectors, and for an encoder by name that keeps no map."""
  if fusion_name != "concat":
    raise UsageError(f"--fusion {fusion_name} joins vectors; maps are put side by side (concat)")
  for m, spec in splits.encoders.items():
    if isinstance(spec, str) and spec != UNET:
      raise UsageError(
        f"--encoder {m}={spec} gives no maps; of a segmentation it is {UNET}, or your own module "
        "(x, mask, *, train) -> maps of each scale"
      )


def checked_model(splits: Any, fusion_name: str, task: str) -> Any:
  """`make_model`, where an encoder or fusion that does not fit the data is bad input."""
  dense = task == SEGMENTATION
  if dense:
    _check_dense(splits, fusion_name)
  try:
    model = make_model(splits, fusion_name)
    for m, spec in splits.encoders.items():
      if m in model.encoders and spec is not None and not isinstance(spec, str):
        x = splits.train.inputs[m]
        encoders.check_encoder(model.encoders[m], x, m, train=True, maps=dense)
  except (TypeError, ValueError) as error:
    raise UsageError(str(error)) from error
  # Of these, whatever is trained reads the encoders alone.
  headless = task in (GENERATION, RETRIEVAL, SEGMENTATION)
  if not headless and task not in (tasks := methods.METHODS[fusion_name].tasks):
    raise UsageError(f"--fusion {fusion_name} needs {' or '.join(tasks)} labels, these are {task}")
  return model
