"""A row is built once for a model, and again only for a rate that its state does not show."""

import collections

import optax

from mmfuse import data, objectives, protocol, train
from mmfuse.protocol import Compare
from mmfuse.protocol._built import Built
from mmfuse.protocol._rows import Row, Trial, make_rows

from ._helpers import arrays, quick


def fixed_rate(model, learning_rate):
  """`joint` by plain SGD, whose state does not show the rate."""
  return train.supervised(model, objectives.fused, optax.sgd(learning_rate))


def test_the_first_rate_serves_the_others(monkeypatch):
  made = []
  monkeypatch.setattr(Row, "build", lambda row, cfg, model, trial: made.append(trial) or object())
  (row,), _ = make_rows(Compare(methods=("joint",)), "ab", "classification")
  built = Built(Compare(), None)
  low, high, other = Trial(0.01), Trial(0.1), Trial(0.1, (("lam", 1.0),))
  assert built.first(row, low) == built.first(row, high) == (built.at(row, low), 0.01)
  assert built.first(row, other) == (built.at(row, other), 0.1)
  assert built.at(row, high) is not built.at(row, low)
  assert made == [low, other, high]


def test_a_comparison_builds_a_row_once_and_one_whose_rate_is_fixed_once_a_rate(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  quick(monkeypatch)
  built, build = collections.Counter(), Row.build

  def counted(row, cfg, model, trial):
    built[row.name] += 1
    return build(row, cfg, model, trial)

  monkeypatch.setattr(Row, "build", counted)
  cfg = Compare(
    methods=("joint", "uniform"),
    rates=(0.01, 0.03),
    trial_seeds=1,
    seeds=2,
    epochs=1,
    batch_size=16,
    out="run",
  )
  table = data.table_from_arrays(arrays())
  protocol.run(cfg, table=table, methods={"fixed_rate": fixed_rate})
  assert built == {"joint": 1, "uniform": 1, "fixed_rate": 2}
