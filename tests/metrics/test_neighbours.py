"""Nearest neighbours: by hand, ties, what takes no part, chance."""

import numpy as np
import pytest

from mmfuse import data, metrics
from mmfuse.core import Outputs, Unavailable

DATABASE = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, -0.3], [0.0, 2.0], [0.1, 1.0]])
LABEL = np.array([7, 3, 3, 5, 5])


def test_the_nearest_by_angle_whatever_the_length():
  query = np.array([[5.0, 0.0], [0.01, 0.2], [-1.0, 0.1]])
  # The cosines of the last with the five: -.99, -.98, -.96, .1, -.0
  assert metrics.neighbour_classes(query, DATABASE, LABEL).tolist() == [7, 5, 5]


def test_neighbours_vote_and_the_nearest_settles_a_tie():
  query = np.array([[1.0, 0.0]])
  vote = lambda k: metrics.neighbour_classes(query, DATABASE, LABEL, k)[0]
  assert [vote(k) for k in (1, 2, 3, 4, 5)] == [7, 7, 3, 3, 3]  # 5: two of 3, two of 5
  assert metrics.neighbour_classes(query, DATABASE[[1, 1]], np.array([2, 1]))[0] == 2  # the first
  with pytest.raises(ValueError, match=r"k must lie in 1\.\.5"):
    vote(6)
  with pytest.raises(ValueError, match="at least 1, got 0"):
    metrics.knn(0)


def splits(**changes):
  arrays = {"a": np.arange(8.0), "b": np.arange(8.0), "label": np.arange(8) % 2}
  arrays["split"] = np.repeat(["train", "validation", "test"], [4, 1, 3])
  found = data.from_arrays({**arrays, **changes})
  return {"query": found.parts["test"], "database": found.parts["train"]}


def outputs(**features):
  return Outputs(None, features={m: np.asarray(x, np.float32) for m, x in features.items()})


def test_features_of_all_modalities_stand_side_by_side():
  parts = splits()  # classes 0 1 0 1, and 1 0 1
  database = outputs(a=np.eye(2)[[0, 1, 0, 1]], b=np.zeros((4, 1)))
  query = outputs(a=np.eye(2)[[1, 1, 1]], b=np.zeros((3, 1)))
  both = {"query": query, "database": database}
  assert metrics.knn().compute(both, parts) == {"knn_1": pytest.approx(2 / 3)}
  other = {**both, "query": query._replace(features={**query.features, "b": np.ones((3, 1))})}
  assert metrics.knn().compute(other, parts) == {"knn_1": pytest.approx(2 / 3)}
  assert metrics.knn().chance(parts) == {"knn_1": pytest.approx(0.5)}
  broken = {**both, "database": outputs(a=np.full((4, 2), np.nan), b=np.zeros((4, 1)))}
  assert np.isnan(metrics.knn().compute(broken, parts)["knn_1"])
  (score,) = metrics.knn(3).scores
  assert (score.name, score.words, score.share) == ("knn_3", "3-NN accuracy", True)


def test_rows_without_a_label_take_no_part():
  known = np.arange(8) != 6
  parts = splits(mask_label=known)
  both = {
    "query": outputs(a=np.eye(2)[[1, 1, 1]]),
    "database": outputs(a=np.eye(2)[[0, 1, 0, 1]]),
  }
  assert metrics.knn().compute(both, parts) == {"knn_1": 1.0}  # the wrong one is not asked


def test_what_has_no_classes_or_no_features_is_unavailable():
  parts = splits(label=np.arange(8.0))
  with pytest.raises(Unavailable, match="a class a row"):
    metrics.knn().chance(parts)
  with pytest.raises(Unavailable, match="no features"):
    metrics.knn().compute(dict.fromkeys(parts, Outputs(None)), splits())
