"""Plots: they draw what is there, for any names and holes, without global state."""

import struct
import sys

import numpy as np
import pytest

from mmfuse import report
from mmfuse.report import _bars, _figure

from ._records import NOISY, record, rows

pytest.importorskip("matplotlib")


def size(path):
  content = path.read_bytes()
  assert content.startswith(b"\x89PNG\r\n\x1a\n")
  return struct.unpack(">II", content[16:24])


def history(epochs, seed=0):
  rng = np.random.default_rng(seed)
  return [
    {"epoch": e, "validation": float(rng.uniform()), "train_loss": 2.0 / (e + 1)}
    for e in range(epochs)
  ]


def test_bars_grow_with_the_rows(tmp_path):
  few = report.bars(report.summarise(rows(joint=[0.5, 0.6])), tmp_path / "few.png")
  summary = report.summarise(rows(**NOISY), majority=0.25)
  many = report.bars(summary, tmp_path / "many.png")
  assert size(many)[1] > size(few)[1] and size(many)[0] == size(few)[0]
  assert many.read_bytes() == report.bars(summary, tmp_path / "again.png").read_bytes()
  assert "matplotlib.pyplot" not in sys.modules


def test_bars_draw_one_bar_per_head_with_its_interval(tmp_path, monkeypatch):
  from matplotlib.axes import Axes

  drawn = []
  monkeypatch.setattr(Axes, "barh", _spy(Axes.barh, drawn))
  records = rows(joint=[0.5, 0.7])
  records += [
    record("unimodal/audio", s, 0.4, test={"fused": 0.4, "audio": 0.4, "image": None})
    for s in range(2)
  ]
  summary = report.summarise(records)
  report.bars(summary, tmp_path / "b.png")
  assert [w for w, _ in drawn] == pytest.approx([60, 60, 60, 40])
  # .5 and .7: the interval of +- 127 ends where a share does.
  assert summary.rows[0].test.half > 1.2
  assert np.ravel(drawn[0][1]) == pytest.approx([60, 40])
  assert drawn[3][1] is None


def test_the_axis_of_a_share_ends_at_0_and_100(monkeypatch):
  figures, drawn = [], []
  monkeypatch.setattr(_bars, "save", lambda figure, path: figures.append(figure))
  from matplotlib.axes import Axes

  monkeypatch.setattr(Axes, "barh", _spy(Axes.barh, drawn))
  report.bars(report.summarise(rows(x=[0.96, 0.99], y=[0.5, 0.52])), "unused")
  assert figures.pop().axes[0].get_xlim() == (0, 100)
  half = 100 * report.estimate([0.5, 0.52]).half
  assert np.ravel(drawn[-1][1]) == pytest.approx([half, half])
  assert np.ravel(drawn[0][1])[1] == pytest.approx(2.5)
  low = [record("x", s, v, metric="r2") for s, v in enumerate((-0.5, -0.3))]
  report.bars(report.summarise(low), "unused")
  assert figures.pop().axes[0].get_xlim()[0] < -1


def _spy(barh, drawn):
  def call(self, y, width, *args, **options):
    drawn.append((width, options["xerr"]))
    return barh(self, y, width, *args, **options)

  return call


def test_odd_names_and_negative_scores(tmp_path):
  names = ("$x_{", "_hidden", "n" * 90)
  records = [record(m, s, -0.5 + s, metric="r2") for m in names for s in (0, 1)]
  assert size(report.bars(report.summarise(records, majority=0.0), tmp_path / "b.png"))[0] > 800
  curves = {m: [history(3)] for m in names}
  assert size(report.curves(curves, tmp_path / "c.png"))[0] > 800


def test_names_that_no_font_has_stay_two_names(tmp_path, monkeypatch):
  """Warnings are errors here, and matplotlib warns of a character that it cannot draw."""
  from matplotlib.figure import Figure

  monkeypatch.setattr(_figure, "_other_fonts", lambda name: ((), name & frozenset("音声画像")))
  assert _figure.drawable("a音声") == "a\\u97f3\\u58f0"
  labels, legend = [], Figure.legend
  monkeypatch.setattr(
    Figure,
    "legend",
    lambda self, a, names, **o: (labels.extend(names), legend(self, a, names, **o))[1],
  )
  heads = {"fused": 0.5, "音声": 0.4, "画像": 0.3}
  found = report.summarise([record("unimodal/音声", s, test=heads) for s in (0, 1)])
  assert size(report.bars(found, tmp_path / "b.png"))[0] > 800
  assert labels == ["\\u97f3\\u58f0"]
  assert size(report.curves({"音声": [history(3)]}, tmp_path / "c.png"))[0] > 500


def test_a_font_is_looked_for_once_a_character_is_missing():
  assert _figure._other_fonts(frozenset("joint\n")) == ((), frozenset())
  unassigned = chr(0x10FFFD)
  assert _figure._other_fonts(frozenset("a" + unassigned)) == ((), frozenset(unassigned))


def test_bars_of_rows_without_scores(tmp_path):
  summary = report.summarise([record("x", test={"fused": None}, validation={})])
  assert size(report.bars(summary, tmp_path / "b.png"))[0] > 800
  with pytest.raises(ValueError, match="no rows to draw"):
    report.bars(report.summarise([], unavailable={"x": "y"}), tmp_path / "none.png")
  assert not (tmp_path / "none.png").exists()


def test_curves_take_holes_one_seed_and_seeds_of_other_lengths(tmp_path):
  holes = history(4)
  holes[1]["validation"], holes[2]["train_loss"] = None, float("nan")
  histories = {"joint": [history(6), history(3, 1)], "x": holes, "empty": []}
  path = report.curves(histories, tmp_path / "c.png", metric="accuracy")
  assert size(path)[0] > size(report.curves({"x": holes}, tmp_path / "one.png"))[0]
  no_loss = [{"epoch": 1, "validation": 0.5}, {"epoch": 2, "validation": 0.6}]
  flat = report.curves({"x": [no_loss]}, tmp_path / "flat.png")
  assert size(flat)[1] < size(report.curves({"x": [history(2)]}, tmp_path / "loss.png"))[1]
  with pytest.raises(ValueError, match="no learning curves"):
    report.curves({"x": [[]]}, tmp_path / "none.png")


def test_an_epoch_that_blew_up_does_not_flatten_the_rest(tmp_path, monkeypatch):
  from matplotlib.axes import Axes

  limits = []
  monkeypatch.setattr(Axes, "set_ylim", lambda self, low, high: limits.append((low, high)))
  values = [-1e6, *np.linspace(0.1, 0.7, 19)]
  run = [{"epoch": i, "validation": v} for i, v in enumerate(values)]
  report.curves({"x": [run]}, tmp_path / "c.png", metric="r2")
  ((low, high),) = limits
  assert -2 < low < 0.1 and 0.7 < high < 1


def test_the_dot_is_at_the_first_best_epoch(tmp_path, monkeypatch):
  from matplotlib.axes import Axes

  dots = []
  plot = Axes.plot

  def spy(self, *args, **options):
    if len(args) == 3 and args[2] == "o":
      dots.append((float(args[0]), float(args[1])))
    return plot(self, *args, **options)

  monkeypatch.setattr(Axes, "plot", spy)
  run = [{"epoch": e, "validation": v} for e, v in ((1, 0.2), (2, 0.8), (3, 0.8), (4, None))]
  report.curves({"x": [run]}, tmp_path / "c.png", metric="accuracy")
  assert dots == [(2.0, pytest.approx(80.0))]


def test_without_matplotlib_there_is_a_sentence(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
  with pytest.raises(ImportError, match=r"plots need matplotlib: pip install 'mmfuse\[report\]'"):
    report.bars(report.summarise(rows(x=[0.5])), tmp_path / "b.png")
