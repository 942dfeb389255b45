"""wikipedia: features of the picture and of the text of 2,866 articles in ten categories.

N. Rasiwasia, J. Costa Pereira, E. Coviello, G. Doyle, G. Lanckriet, R. Levy, N. Vasconcelos, "A New
Approach to Cross-Modal Multimedia Retrieval", ACM Multimedia 2010, introduced the set.
"""

from pathlib import Path

import numpy as np

from mmfuse.data import _stored
from mmfuse.data._table import Table

RECIPE = "wikipedia-1"  # raise it whenever a number or a row's part would change
LICENCE = "none stated: for tests only"
ARCHIVE = _stored.Archive(
  "wikipedia",
  "wikipedia.npz",
  "2,866 articles: image float32 [2866, 128], text float32 [2866, 100], label [2866] of ten "
  "categories, train_index [2173], test_index [693]",
  LICENCE,
  "dc90ea38046b28842adb0bac62c2a486e07e47cd150d711c98a016e650377d06",
)


def table(data_dir: str | Path | None = None, fake: bool = False) -> Table:
  """wikipedia: `image` float32 `[2866, 128]`, `text` float32 `[2866, 100]`, 10 categories.

  The official 693 articles test; of its 2,173 training articles 435 validate, stratified by
  category and drawn with a fixed seed (1,738 train).

  Args:
    data_dir: folder of wikipedia.npz; default $MMFUSE_DATA_DIR.
    fake: 100 random rows of the same schema instead, which need no file.

  Raises DataError where the folder or the file is missing, or it is another one.
  """
  raw = fake_arrays() if fake else _stored.read(ARCHIVE, data_dir)
  train = np.ones(len(raw["label"]), bool)
  train[raw["test_index"]] = False
  arrays = {name: raw[name] for name in ("image", "text", "label")}
  arrays["split"] = _stored.split_column(train, raw["label"])
  return _stored.table_of(ARCHIVE, RECIPE, arrays, fake)


def fake_arrays(rows: int = 100) -> dict[str, np.ndarray]:
  """What the table reads of the file, with random content."""
  rng, number = np.random.default_rng(0), np.arange(rows)
  return {
    "image": rng.normal(size=(rows, 128)).astype(np.float32),
    "text": rng.normal(size=(rows, 100)).astype(np.float32),
    "label": number % 10,
    "test_index": number[number >= 0.8 * rows],
  }
