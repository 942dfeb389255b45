"""The page: self-contained, escaped, complete."""

import base64
from html.parser import HTMLParser

import pytest

from mmfuse import report

from ._records import NOISY, record, rows

PIXEL = base64.b64decode(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
  """Checks nesting; gathers tags, attributes and text."""

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.sources, self.rows, self.cell = [], [], [], [], None
    self.feed(text)
    self.close()
    assert self.stack == []

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append(tag)
    self.sources += [attrs[k] for k in ("src", "href") if k in attrs]
    if tag not in VOID:
      self.stack.append(tag)
    if tag == "tr":
      self.rows.append([])
    if tag in ("td", "th"):
      self.rows[-1].append({"text": "", **attrs})

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    if {"td", "th"} & set(self.stack):
      self.rows[-1][-1]["text"] += data


@pytest.fixture
def image(tmp_path):
  path = tmp_path / "learning_curves.png"
  path.write_bytes(PIXEL)
  return path


def test_everything_is_in_one_file(tmp_path, image):
  info = {"name": "watch_imu", "command": "mmfuse compare --data watch_imu", "notes": ["A note."]}
  summary = report.summarise(rows(**NOISY), majority=0.25, unavailable={"mla": "why"}, info=info)
  path = report.html(summary, {"Curves": image}, tmp_path / "index.html")
  text = path.read_text(encoding="utf-8")
  page = Page(text)
  assert all(s.startswith("data:image/png;base64,") for s in page.sources) and page.sources
  assert base64.b64decode(page.sources[0].split(",")[1]) == PIXEL
  assert "http" not in text and "@import" not in text and "url(" not in text
  for part in (
    info["command"],
    "A note.",
    "d1",
    "0.10.2",
    "majority class of training",
    "n/a: why",
  ):
    assert part in text, part
  assert "Beyond noise, better than joint" in text and "over 5 seeds of one split" in text
  assert "prefers-color-scheme: dark" in text


def test_cells_carry_what_they_sort_by(tmp_path):
  path = report.html(report.summarise(rows(**NOISY)), [], tmp_path / "i.html")
  head, *body = Page(path.read_text()).rows
  names = [c["text"] for c in head]
  assert "macro-F1" in names  # further metrics have columns here
  table = {r[0]["text"].split(" (")[0]: dict(zip(names, r)) for r in body}
  better = table["better"]
  assert float(better["fused"]["data-value"]) == pytest.approx(0.606)
  assert better["vs joint"]["class"] == "up" and table["worse"]["vs joint"]["class"] == "down"
  assert "Holm-adjusted p" in better["vs joint"]["title"]
  assert "data-value" not in table["joint"]["vs joint"]
  assert "class" not in table["uniform"]["vs joint"]


def test_names_are_escaped(tmp_path, image):
  bad = '<script>alert("x")</script>'
  summary = report.summarise(
    [record(bad, versions={bad: bad})],
    unavailable={bad + "2": bad},
    info={"name": bad, "command": bad, "notes": [bad], "varies": bad},
  )
  text = report.html(summary, {bad: image}, tmp_path / "i.html").read_text()
  assert bad not in text
  assert Page(text).tags.count("script") == 1


def test_bad_images_are_named_and_nothing_is_written(tmp_path):
  summary = report.summarise(rows(x=[0.5]))
  with pytest.raises(FileNotFoundError, match="no image at"):
    report.html(summary, [tmp_path / "none.png"], tmp_path / "i.html")
  text = tmp_path / "text.png"
  text.write_text("no picture")
  with pytest.raises(ValueError, match="is not a PNG image"):
    report.html(summary, [text], tmp_path / "i.html")
  assert not (tmp_path / "i.html").exists()
