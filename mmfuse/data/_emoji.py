"""emoji: the same emoji drawn by Google and by Twitter, and the group it belongs to.

The file also has names, keywords, code points and 98 sub-groups, which this table leaves out.
"""

from pathlib import Path

import numpy as np

from mmfuse.data import _stored
from mmfuse.data._table import Table

RECIPE = "emoji-1"  # raise it whenever a pixel or a row's part would change
LICENCE = "MIT (names, groups), Apache-2.0 (Google's pictures), CC BY 4.0 (Twitter's)"
ARCHIVE = _stored.Archive(
  "emoji",
  "emoji.npz",
  "1,906 emoji: google and twitter uint8 [1906, 32, 32, 3], label [1906] of the nine groups in "
  "label_name, train bool [1906], and names as strings",
  LICENCE,
  "0bf76767b02e90bf57623fd70e6247869d2b777af64b1a5961670fabb1ddfa07",
)
PICTURES = ("google", "twitter")


def table(data_dir: str | Path | None = None, fake: bool = False) -> Table:
  """emoji: `google` and `twitter` float32 `[1906, 32, 32, 3]` in 0..1, 9 groups.

  The official 377 items test; of its 1,529 training items 306 validate, stratified by group and
  drawn with a fixed seed (1,223 train).

  Args:
    data_dir: folder of emoji.npz; default $MMFUSE_DATA_DIR.
    fake: 90 random pictures of the same schema instead, which need no file.

  Raises DataError where the folder or the file is missing, or it is another one.
  """
  raw = fake_arrays() if fake else _stored.read(ARCHIVE, data_dir)
  arrays = {m: raw[m] for m in PICTURES}
  arrays["label"] = raw["label_name"][raw["label"]]
  arrays["split"] = _stored.split_column(raw["train"], raw["label"])
  return _stored.table_of(ARCHIVE, RECIPE, arrays, fake)


def fake_arrays(rows: int = 90) -> dict[str, np.ndarray]:
  """What the table reads of the file, with random content."""
  rng, number = np.random.default_rng(0), np.arange(rows)
  return {
    **{m: rng.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8) for m in PICTURES},
    "label": number % 9,
    "label_name": np.asarray([f"group {i}" for i in range(9)]),
    "train": number < 0.8 * rows,
  }
