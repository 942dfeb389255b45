"""A finished comparison, trained once, and builders that are traced once for all tests."""

import pathlib
from typing import NamedTuple

import numpy as np
import pytest

from mmfuse import train
from mmfuse.protocol._rows import Row

from ._helpers import COMMON, MINE, Said, arrays, call


@pytest.fixture(scope="session", autouse=True)
def _builders_are_traced_once():
  """The same row of the same model and first rate is the same Method: a second run compiles nothing.

  With the rate: a method is known by the rate that it was built with, and one of another would be
  taken for a method that scales it.
  """
  build, made = Row.build, {}

  def cached(self, cfg, model, trial):
    key = (
      self.name,
      repr(sorted(self.fixed.items())),
      self.source,
      repr(model),
      trial.hyper,
      cfg.optimizer,
      cfg.schedule,
      cfg.weight_decay,
      trial.rate,
    )
    if key not in made:
      made[key] = build(self, cfg, model, trial)
    return made[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(Row, "build", cached)
    yield


class Finished(NamedTuple):
  """A comparison that ran to its end."""

  folder: pathlib.Path  # where it was called; the run is in `folder / "run"`
  said: Said
  fits: list[dict]  # the arguments of every train.fit

  @property
  def run(self) -> pathlib.Path:
    """The output folder."""
    return self.folder / "run"


METHODS = "joint,uniform,mine.py:twin,late_average,unimodal"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Finished:
  """Six rows x 3 seeds, three rates."""
  folder = tmp_path_factory.mktemp("finished")
  np.savez(folder / "my.npz", **arrays())
  (folder / "mine.py").write_text(MINE)
  fits, fit = [], train.fit

  def recorded(method, splits, **options):
    fits.append({"method": method, "splits": splits, **options})
    return fit(method, splits, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(train, "fit", recorded)
    said = call(
      folder, "compare", "--data", "my.npz", "--methods", METHODS, "--out", "run", *COMMON
    )
  return Finished(folder, said, fits)


@pytest.fixture
def place(tmp_path) -> pathlib.Path:
  """An empty folder with the user's data and builders."""
  np.savez(tmp_path / "my.npz", **arrays())
  (tmp_path / "mine.py").write_text(MINE)
  return tmp_path
