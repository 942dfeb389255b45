"""The next row's first run beside the present one."""

import contextlib
import threading

import pytest

from mmfuse.protocol import _ahead
from mmfuse.protocol._ahead import Ahead


class Search:
  """Trains a row by doing what it is."""

  def __init__(self):
    self.trained, self.stop = [], threading.Event()

  def train_first(self, row):
    self.trained.append(row(self))

  @contextlib.contextmanager
  def stopping(self):
    self.stop.set()
    yield


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
  monkeypatch.setattr(_ahead, "cores", lambda: 2)


def fails(error):
  def row(search):
    raise error

  return row


def test_a_run_is_trained_meanwhile():
  search = Search()
  with Ahead(search) as ahead:
    ahead.begin(lambda search: threading.current_thread().name)
    ahead.wait()
    ahead.wait()  # nothing to wait for
  assert len(search.trained) == 1 and search.trained[0] != threading.current_thread().name


def test_a_failure_is_left_to_the_row_itself():
  with Ahead(Search()) as ahead:
    ahead.begin(fails(ValueError("bad")))
    ahead.wait()
    ahead.begin(lambda search: None)
    ahead.wait()


def test_an_interruption_is_not():
  with pytest.raises(KeyboardInterrupt), Ahead(Search()) as ahead:
    ahead.begin(fails(KeyboardInterrupt()))
    ahead.wait()


def test_a_run_under_way_is_ended_with_the_rows():
  search = Search()
  with pytest.raises(ValueError, match="a row"), Ahead(search) as ahead:
    ahead.begin(lambda search: search.stop.wait(60))
    raise ValueError("a row")
  assert search.trained == [True]


def test_neither_without_a_row_nor_on_one_core(monkeypatch):
  search = Search()
  with Ahead(search) as ahead:
    ahead.begin(None)
    monkeypatch.setattr(_ahead, "cores", lambda: 1)
    ahead.begin(lambda search: None)
    ahead.wait()
  assert not search.trained
