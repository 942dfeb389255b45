"""A metric with what it decides by, as thresholds, taken from validation rows."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmfuse import masks, metrics
from mmfuse.core import Method, State
from mmfuse.train._evaluate import View, map_views, seen, stack_views, subset_view
from mmfuse.train._selection import subsets_of


def fitted(method: Method, state: State, split: Any, metric: metrics.Metric) -> metrics.Metric:
  """`metric` with its thresholds chosen on the rows of `split`; itself where it has none to choose.

  Every subset of modalities that the rows have is looked at, in one compiled call.

  Args:
    method, state: what predicts.
    split: the validation rows; no other row is read.
    metric: of the task.
  """
  if metric.fit is None:
    return metric
  few = len(split.mask) <= masks.MOST_SUBSETS
  views = [subset_view(split, s, covered=True) for s in subsets_of(split)] if few else []
  stacked, _ = stack_views(split, views or [View(split.mask)])
  totals: Mapping[str, Any] = jax.device_get(
    map_views(method.predict, metric, seen(state), *stacked, False)
  )
  return metric.fit(metric, jax.tree.map(lambda x: np.asarray(x).sum(0), totals))
