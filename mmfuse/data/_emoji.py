"""emoji: the same emoji drawn by Google and by Twitter, and the group it belongs to.

emoji_text: Google's picture and the words of its name and keyword. The file also has code points and
98 sub-groups, which both leave out.
"""

import re
from pathlib import Path

import numpy as np

from mmfuse.data import _stored
from mmfuse.data._table import Table

RECIPE = "emoji-1"  # raise it whenever a pixel or a row's part would change
TEXT_RECIPE = "emoji_text-1"
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
TEXT = ARCHIVE._replace(set="emoji_text")
LEAST = 2  # training items that a word must be in, else it is the token 0


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


def words(name: str, keyword: str) -> list[str]:
  """Lower case, without marks, each once: `red_heart`, "heavy black heart" -> heavy, black, heart, red."""
  return list(dict.fromkeys(re.findall(r"[a-z0-9]+", f"{name} {keyword}".lower())))


def tokens(texts: list[list[str]], train: np.ndarray) -> np.ndarray:
  """int32 [N, T]: a number a word, by training items alone; 0 of all other words, and after the end."""
  counted: dict[str, int] = {}
  for text, here in zip(texts, train):
    for word in text if here else ():
      counted[word] = counted.get(word, 0) + 1
  number = {w: i + 1 for i, w in enumerate(sorted(w for w, n in counted.items() if n >= LEAST))}
  out = np.zeros((len(texts), max(map(len, texts))), np.int32)
  for row, text in zip(out, texts):
    row[: len(text)] = [number.get(word, 0) for word in text]
  return out


def text_table(data_dir: str | Path | None = None, fake: bool = False) -> Table:
  """emoji_text: `image` float32 `[1906, 32, 32, 3]` in 0..1 (Google's), `text` int32 tokens, 9 groups.

  Split as `table`. The token 0 stands for words that fewer than two training items have, and after the
  last word. Its encoder is an embedding.

  Args:
    data_dir, fake: as there.

  Raises DataError where the folder or the file is missing, or it is another one.
  """
  raw = fake_arrays() if fake else _stored.read(TEXT, data_dir)
  train = np.asarray(raw["train"], bool)
  texts = [words(str(n), str(k)) for n, k in zip(raw["name"], raw["keyword"])]
  arrays = {
    "image": raw["google"],
    "text": tokens(texts, train),
    "label": raw["label_name"][raw["label"]],
    "split": _stored.split_column(train, raw["label"]),
  }
  return _stored.table_of(TEXT, TEXT_RECIPE, arrays, fake, {"text": "embedding"})


def fake_arrays(rows: int = 90) -> dict[str, np.ndarray]:
  """What the table reads of the file, with random content."""
  rng, number = np.random.default_rng(0), np.arange(rows)
  return {
    **{m: rng.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8) for m in PICTURES},
    "name": np.asarray([f"sign number {'abc'[i % 3]} {i % 7}" for i in number]),
    "keyword": np.asarray([f"group_{i % 9}" for i in number]),
    "label": number % 9,
    "label_name": np.asarray([f"group {i}" for i in range(9)]),
    "train": number < 0.8 * rows,
  }
