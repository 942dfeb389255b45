"""The next row's first run, trained beside the present row."""

import threading

import jax

from mmfuse.protocol._config import cores
from mmfuse.protocol._rows import Row
from mmfuse.protocol._search import Search


class Ahead:
  """One thread that trains a run of the row whose turn is next.

  Compiling keeps one core busy, and a row's other runs wait for it: on two cores a sixth of a small
  table's time. The run is one of those the row needs anyway, so nothing is done twice, and no number
  depends on when it was trained.
  """

  def __init__(self, search: Search):
    self.search = search
    self._thread: threading.Thread | None = None
    self._error: BaseException | None = None

  def begin(self, row: Row | None) -> None:
    """Starts with a row; None, a single core or an accelerator: nothing."""
    if row is None or jax.default_backend() != "cpu" or cores() < 2:
      return
    self._thread = threading.Thread(target=self._train, args=(row,))
    self._thread.start()

  def _train(self, row: Row) -> None:
    try:
      self.search.train_first(row)
    except BaseException as error:  # the row meets it again in its turn, and reports it there
      self._error = error

  def wait(self) -> None:
    """Until the run is there; an interruption is the whole comparison's."""
    if self._thread is None:
      return
    self._thread.join()
    self._thread, error = None, self._error
    self._error = None
    if isinstance(error, KeyboardInterrupt):
      raise error

  def __enter__(self) -> "Ahead":
    return self

  def __exit__(self, *error: object) -> None:
    """Ends the run at its next epoch where the rows were left before it was waited for."""
    if self._thread is not None:
      with self.search.stopping():
        self._thread.join()
