"""THE INDEX of built-in data sets, and `load`, which also takes a path to an `.npz`."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mmfuse.data import (
  _digit_pairs,
  _digits,
  _emoji,
  _phantom,
  _synthetic,
  _watch_imu,
  _wikipedia,
)
from mmfuse.data._choice import used_table
from mmfuse.data._error import DataError, closest
from mmfuse.data._inputs import is_embedding
from mmfuse.data._labels import check_task
from mmfuse.data._npz import HINT, read_npz
from mmfuse.data._sequences import values_of
from mmfuse.data._table import Table
from mmfuse.names import CLASSIFICATION, GENERATION, MULTILABEL, RETRIEVAL


class Dataset(NamedTuple):
  """A row of the index."""

  build: Callable[..., Table]  # (data_dir, **options) -> table
  what: str  # one line
  size: str  # rows and shapes
  licence: str  # of the data, not of this code
  how: str  # how it is had
  options: tuple[str, ...] = ()  # of `load` that `build` takes


def _av_mnist(data_dir: str | None, train_size: int | None = None, fake: bool = False) -> Table:
  from mmfuse.data import _av_mnist as av_mnist  # audio code, needed by nobody else

  # 28 x 28 audio keeps the full set resident in 0.5 GB; the TFDS builder holds the 112 x 112 one.
  return av_mnist.table(data_dir, fake=fake, train_size=train_size, audio_size=28)


def _mini_polymnist(side: int) -> Callable[..., Table]:
  def build(data_dir: str | None, train_size: int | None = None, fake: bool = False) -> Table:
    from mmfuse.data import _mini_polymnist as mini  # reads the files of av_mnist

    return mini.table(side, data_dir, train_size, fake)

  return build


DATASETS: dict[str, Dataset] = {
  "watch_imu": Dataset(
    lambda data_dir: _watch_imu.table(),
    "smart watch in seven shoulder exercises, ten subjects, split by subject",
    "2,369 windows; accel [100, 3], gyro [100, 3]; 7 classes; 961/643/765",
    "BSD-3-Clause (seglearn)",
    "pip install 'mmfuse[datasets]'",
  ),
  "digits": Dataset(
    lambda data_dir: _digits.table(),
    "three noisy views of 8x8 digits, one clearly better than the others",
    "1,797 rows; A [32], B [32], C [16]; 10 classes; 560/140/1,097",
    "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    "pip install 'mmfuse[datasets]'",
  ),
  "digit_pairs": Dataset(
    lambda data_dir: _digit_pairs.table(),
    "a digit, and another one of its class turned, inverted and noisy; not standardised",
    "3,594 pairs; x0 [64], x1 [64] (8 x 8); 10 classes; 2,000/580/1,014",
    "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
    "pip install 'mmfuse[datasets]'",
  ),
  "synthetic_1": Dataset(
    lambda data_dir: _synthetic.table(1),
    "A is easy but shows a wrong class in 30 % of rows, B is hard: a counter-example for MIMO",
    "5,600 rows; A [20], B [60]; 8 classes; 2,400/800/2,400",
    "Apache-2.0 (generated)",
    "built in",
  ),
  "synthetic_2": Dataset(
    lambda data_dir: _synthetic.table(2),
    "A is memorised fast, B is learnt slowly: the situation MIMO is made for",
    "5,600 rows; A [300], B [60]; 8 classes; 2,400/800/2,400",
    "Apache-2.0 (generated)",
    "built in",
  ),
  "av_mnist": Dataset(
    _av_mnist,
    "blurred MNIST digits with noisy spoken digits",
    "70,000 rows; image and audio [28, 28, 1] (audio 112 x 112 from the TFDS builder); "
    "10 classes; 55,000/5,000/10,000",
    "CC BY-SA 3.0 (MNIST), CC BY-SA 4.0 (Free Spoken Digit Dataset)",
    "your copies of both, in --data-dir or MMFUSE_DATA_DIR",
    ("train_size", "fake"),
  ),
  "mini_polymnist": Dataset(
    _mini_polymnist(14),
    "five MNIST digits of one class, each on a texture of its own, in small; as they are, in 0..1",
    "3,400 rows; m0..m4 [14, 14, 3]; 10 classes; 2,000/400/1,000 (any train_size)",
    "CC BY-SA 3.0 (MNIST)",
    "your copy of MNIST, in --data-dir or MMFUSE_DATA_DIR",
    ("train_size", "fake"),
  ),
  "mini_polymnist_28": Dataset(
    _mini_polymnist(28),
    "mini_polymnist in the size of MNIST",
    "3,400 rows; m0..m4 [28, 28, 3]; 10 classes; 2,000/400/1,000 (any train_size)",
    "CC BY-SA 3.0 (MNIST)",
    "your copy of MNIST, in --data-dir or MMFUSE_DATA_DIR",
    ("train_size", "fake"),
  ),
  "emoji": Dataset(
    _emoji.table,
    "emoji as Google and as Twitter draw them, and the group of each",
    "1,906 rows; google [32, 32, 3], twitter [32, 32, 3]; 9 classes; 1,223/306/377",
    _emoji.LICENCE,
    "your copy of emoji.npz, in --data-dir or MMFUSE_DATA_DIR",
    ("fake",),
  ),
  "emoji_text": Dataset(
    _emoji.text_table,
    "emoji as Google draws them, the words of their names, and the group of each",
    "1,906 rows; image [32, 32, 3], text [12] (tokens); 9 classes; 1,223/306/377",
    _emoji.LICENCE,
    "your copy of emoji.npz, in --data-dir or MMFUSE_DATA_DIR",
    ("fake",),
  ),
  "wikipedia": Dataset(
    _wikipedia.table,
    "features of the picture and the text of Wikipedia articles in ten categories",
    "2,866 rows; image [128], text [100]; 10 classes; 1,738/435/693",
    _wikipedia.LICENCE,
    "your copy of wikipedia.npz, in --data-dir or MMFUSE_DATA_DIR",
    ("fake",),
  ),
  "phantom": Dataset(
    lambda data_dir, size=32: _phantom.table(size),
    "head-like slices whose lesions only both modalities together tell from spots and loops",
    "700 slices; a and b [32, 32, 1]; 2 classes of places; 400/100/200 (size 64: 1,000/200/500)",
    "Apache-2.0 (generated)",
    "built in",
    ("size",),
  ),
  "lesions": Dataset(
    lambda data_dir: _phantom.lesions_table(),
    "slices tagged by whether there is a lesion, with masks that scores alone read (truth_mask)",
    "700 slices; a and b [32, 32, 1]; 2 classes; 400/100/200",
    "Apache-2.0 (generated)",
    "built in",
  ),
}


def catalogue() -> list[dict[str, str]]:
  """A row per built-in set: name, what, size, licence, how. Builds nothing."""
  return [
    {"name": name, "what": d.what, "size": d.size, "licence": d.licence, "how": d.how}
    for name, d in sorted(DATASETS.items())
  ]


def _choose(table: Table, task: str | None, encoders: Mapping[str, Any]) -> Table:
  """A built-in table with the user's encoders; its task and its numbers are what they are.

  Any of them can be generated: its labels then serve scores alone.
  """
  if task == RETRIEVAL and table.task in (CLASSIFICATION, MULTILABEL):
    table = dataclasses.replace(table, task=RETRIEVAL)  # by the same label
  if task not in (None, table.task, GENERATION):
    raise DataError(f"{table.name} is a {table.task} set, it cannot be a {task}")
  for m, spec in sorted(encoders.items()):
    if m not in table.inputs:
      raise DataError(f"the encoder for {m!r} belongs to no modality{closest(m, table.inputs)}")
    if is_embedding(spec) and values_of(table.inputs[m]).dtype.kind == "f":
      raise DataError(f"modality {m!r} of {table.name} holds numbers, an embedding reads integers")
  kind = GENERATION if task == GENERATION else table.task
  return dataclasses.replace(table, task=kind, encoders={**table.encoders, **encoders})


def load(
  source: str | Table,
  *,
  task: str | None = None,
  encoders: Mapping[str, Any] | None = None,
  modalities: Sequence[str] | None = None,
  ignore: Sequence[str] | None = None,
  drop_empty: bool = False,
  data_dir: str | None = None,
  train_size: int | None = None,
  fake: bool = False,
  size: int | None = None,
) -> Table:
  """A built-in data set by name, the arrays of an `.npz` by path, or what is used of a table.

  Args:
    source: a name of `DATASETS`, a path that ends in `.npz`, or a table that is there already.
    task: one of `names.TASKS`; None reads it off the label.
    encoders: {modality: spec or module}, the user's choices.
    modalities: the modalities to use; None: all. The fingerprint is that of what is used.
    ignore: modalities, or other arrays of an `.npz`, to leave out instead.
    drop_empty: leave out rows without any modality.
    data_dir: where files that the user has to bring lie.
    train_size: training rows of a set that is built (av_mnist); its other splits shrink alike.
    fake: a generated twin of a set whose files the user has to bring (av_mnist, emoji, emoji_text,
      wikipedia).
    size: pixels of a side of a set that comes in several (phantom: 32 or 64).

  Raises:
    DataError: an unknown name, or whatever is wrong with the content, in one sentence.
  """
  check_task(task)
  if isinstance(source, Table):
    if train_size is not None:
      raise DataError("a table takes no train_size: it comes in one size")
    return _choose(used_table(source, modalities, ignore, drop_empty), task, encoders or {})
  source = str(source)
  if source.endswith(".npz"):
    if train_size is not None:
      raise DataError("an .npz file takes no train_size: it comes in one size")
    return read_npz(
      source,
      task=task,
      encoders=encoders,
      modalities=modalities,
      ignore=ignore,
      drop_empty=drop_empty,
    )
  if source in DATASETS:
    options = {"train_size": train_size, "fake": fake, "size": size}
    given = {k: v for k, v in options.items() if v}
    wrong = [k for k in given if k not in DATASETS[source].options]
    if wrong:
      raise DataError(f"{source} takes no {' or '.join(wrong)}: it comes in one size")
    table = used_table(DATASETS[source].build(data_dir, **given), modalities, ignore, drop_empty)
    return _choose(table, task, encoders or {})
  if os.path.exists(source):  # False for a name that no file can have
    raise DataError(f"{source!r} is no .npz archive; {HINT}")
  raise DataError(
    f"unknown data set {source!r}{closest(source, DATASETS)}, or a path that ends in .npz"
  )
