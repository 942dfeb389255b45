"""`mmfuse predict RUN --data new.npz --out maps.npz`: the maps of a segmentation."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfuse import metrics, tasks, train
from mmfuse.names import SEGMENTATION
from mmfuse.protocol import _maps
from mmfuse.protocol._config import UsageError
from mmfuse.protocol._predict import Reading, opened, predict, read_run, say_chosen


def predict_maps(
  run: str,
  path: str,
  *,
  method: str | None = None,
  seed: int | None = None,
  methods: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
  """{"prediction": [N, H, W], classes by their own numbers, "probability": float32 [N, H, W, C], "classes"}.

  Of two classes with the thresholds of the run, one for each set of modalities that a row has.

  Args:
    run, path, method, seed, methods: as in `predict`.

  Raises:
    UsageError, data.DataError: as `predict`; a run of another task.
  """
  found = opened(run, method=method, seed=seed, methods=methods, read=Reading(path))
  schema, split = found.schema, found.new.split
  if schema["task"] != SEGMENTATION:
    raise UsageError(f"the run in {run!r} is a {schema['task']}, which predicts no maps")
  say_chosen(found)
  logits = np.asarray(train.predict_split(found.method, found.state, split).logits)
  limits = _maps.limits_of(found.record.get("thresholds", {}), tuple(split.mask))
  classes = np.asarray([int(n) for n in schema["class_names"]])
  return {
    "prediction": classes[metrics.class_maps(logits, split.mask, limits)],
    "probability": tasks.get(SEGMENTATION).probabilities(logits).astype(np.float32),
    "classes": classes,
  }


def predicted(
  run: str, path: str, *, method: str | None = None, seed: int | None = None, to_file: bool
) -> bytes:
  """What `mmfuse predict` writes: CSV, or of a segmentation an .npz of `predict_maps`.

  Args:
    run, path, method, seed: as in `predict`.
    to_file: there is a file to write; maps need one.

  Raises:
    UsageError, data.DataError: as `predict`; maps without a file.
  """
  if read_run(pathlib.Path(run))[1]["task"] != SEGMENTATION:
    return predict(run, path, method=method, seed=seed).encode()
  if not to_file:
    raise UsageError("a segmentation predicts maps: --out maps.npz says where they go")
  content = io.BytesIO()
  maps: Any = predict_maps(run, path, method=method, seed=seed)
  np.savez_compressed(content, **maps)
  return content.getvalue()
