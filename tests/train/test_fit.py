"""`fit`: the loop, selection, phases, the guard, and what it leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import balancing, metrics, train
from mmfuse.core import LAST, Outputs, Phase
from mmfuse.train import _feed, _plan, _programs, _run

from ._problems import (
  Known,
  close,
  history,
  known_predict,
  known_step,
  late_fusion,
  same,
  tiny,
)

METHOD = train.supervised(
  late_fusion(2, "none", 0.0), tx=train.sgd(0.1), aggregator=balancing.mimo(3)
)
SHORT = {"epochs": 2, "batch_size": 8, "diagnose": False, "loop": "scan"}


@pytest.fixture(scope="module")
def splits():
  return tiny()


@pytest.fixture(scope="module")
def both(splits):
  """Seeds 0 and 1, one after the other, from `lax.scan`."""
  return train.fit(METHOD, splits, seeds=2, **SHORT)


def test_it_learns_and_logs(splits, both):
  result = train.fit(METHOD, splits, epochs=15, batch_size=8, learning_rate=0.2, loop="scan")
  log = result.logs[0]
  assert result.validation[0]["fused"] >= 0.8
  assert [e["epoch"] for e in log.history] == list(range(15))
  losses = [e["loss/fused"] for e in log.history]
  assert losses[-1] < 0.8 * losses[0]
  # The rule's own decision and the diagnostics are part of the history.
  assert len(log.history[0]["rule/weights"]) == 3
  assert -1 <= log.history[0]["cosine/a"] <= 1
  assert [e["epoch"] for e in log.history if "cosine/a" in e] == list(range(0, 15, 2))
  assert log.examples == 15 * 24 and log.diverged_at is None
  record = result.records("mimo")[0]
  assert record["validation"]["fused"] == log.selected["validation"]["fused"]["accuracy"]
  assert record["test"] == {"fused": None, "a": None, "b": None}
  assert both.seeds == (0, 1) and both.seconds_per_step > 0


def test_python_and_scan_loops_agree(splits, both):
  found = train.fit(METHOD, splits, seeds=1, **{**SHORT, "loop": "python"})
  close(found.state(0), both.state(0), 1e-5)
  for a, b in zip(found.logs[0].history, both.logs[0].history, strict=True):
    assert abs(a["loss/fused"] - b["loss/fused"]) < 1e-5
    assert a["validation"]["fused"]["accuracy"] == b["validation"]["fused"]["accuracy"]


def test_seeds_together_agree_with_one_by_one(splits, both):
  found = train.fit(METHOD, splits, seeds=2, together=True, **SHORT)
  close(found.states, both.states, 1e-4)
  assert [log.selected_epoch for log in found.logs] == [log.selected_epoch for log in both.logs]


def test_seeds_and_rates_repeat_bitwise_and_compile_nothing(splits, both):
  before = _programs._epoch_jit._cache_size()
  again = train.fit(METHOD, splits, seeds=(1,), **SHORT)
  same(again.state(0), both.state(1))
  assert history(again.logs[0]) == history(both.logs[1])
  # A rate written into the state is a strong float32, as the one it replaces.
  other = train.fit(METHOD, splits, seeds=2, learning_rate=[0.01, 0.1], **SHORT)
  assert _programs._epoch_jit._cache_size() == before
  same(other.state(1), both.state(1))
  assert other.logs[0].learning_rate == 0.01
  assert not np.array_equal(
    other.state(0).params["a"]["dense0"]["kernel"], both.state(0).params["a"]["dense0"]["kernel"]
  )


def test_order_is_a_function_of_seed_phase_and_epoch():
  first = _feed.order(0, 0, 0, 10, 4)
  np.testing.assert_array_equal(first, _feed.order(0, 0, 0, 10, 4))
  for other in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
    assert not np.array_equal(first, _feed.order(*other, 10, 4))


@pytest.mark.parametrize(
  "rows, size, lengths", [(10, 4, [4, 3, 3]), (9, 8, [5, 4]), (8, 4, [4, 4]), (3, 3, [3])]
)
def test_every_row_is_seen_once_an_epoch_and_batches_are_as_even_as_they_get(rows, size, lengths):
  order = _feed.order(3, 0, 1, rows, size)
  assert order.shape == (len(lengths), size) and sorted(order[order >= 0]) == list(range(rows))
  assert [int((b >= 0).sum()) for b in order] == lengths
  assert all((b[n:] == -1).all() for b, n in zip(order, lengths))  # padding comes last


def test_padding_counts_for_nothing(splits):
  """24 rows in batches of 16: two of 12 rows and 4 of padding, the same as batches of 12."""
  padded = train.fit(METHOD, splits, seeds=1, **{**SHORT, "batch_size": 16})
  exact = train.fit(METHOD, splits, seeds=1, **{**SHORT, "batch_size": 12})
  close(padded.state(0).params, exact.state(0).params, 1e-5)
  assert padded.logs[0].examples == exact.logs[0].examples == 2 * 24


def test_no_two_draws_of_a_phase_share_a_key(splits):
  plan = _plan.make_plan(METHOD, splits, epochs=3, batch_size=8)
  keys = _run.Group(plan, [(0, None)]).feed.phase_keys(0)
  drawn = [jax.random.fold_in(keys.steps, s) for s in range(9)] + [keys.begin]
  drawn += [keys.at(k, e) for k in (keys.rows, keys.end, keys.diagnosis) for e in range(3)]
  assert len({tuple(np.asarray(jax.random.key_data(k))) for k in drawn}) == len(drawn)


def test_epochs_that_tie_are_told_apart_by_the_loss():
  log = train.RunLog(0, None)
  for epoch, (score, loss) in enumerate(
    [(0.5, 1.0), (0.8, 0.9), (0.8, 0.7), (0.8, 0.7), (0.7, 0.1)]
  ):
    log.append("train", epoch, {}, None, (score, loss), (0, 0), 1, None)
  assert (log.selected_epoch, log.best, log.best_loss) == (2, 0.8, 0.7)
  assert log.waited == 3  # a smaller loss is no improvement that patience waits for


def test_two_methods_see_the_same_rows():
  seen = []
  for scores in ((0.5, 0.9, 0.1), (0.9, 0.1, 0.5)):
    problem = Known(scores)
    result = train.fit(problem.method(), problem.splits(), epochs=3, batch_size=4, seeds=(7,))
    seen.append(result.state(0).memory["seen"])
  np.testing.assert_array_equal(*seen)
  assert int(seen[0]) != 0


def known(scores, *, epochs=None, **options):
  problem = Known(scores, **{k: options.pop(k) for k in ("broken", "phases") if k in options})
  return train.fit(
    problem.method(), problem.splits(), epochs=epochs or len(scores), batch_size=4, **options
  )


def test_the_first_best_epoch_is_selected_and_put_back():
  result = known((0.2, 0.8, 0.5, 0.8))
  log = result.logs[0]
  assert log.selected_epoch == 1 and log.best == pytest.approx(7 / 9)
  assert float(result.state(0).params["w"]) == 4.0  # two steps an epoch
  assert [round(e["validation"]["fused"]["accuracy"] * 9) for e in log.history] == [2, 7, 4, 7]


def test_a_metric_of_which_less_is_better_is_minimised():
  log = known((0.2, 0.8, 0.5), select="nll").logs[0]
  assert log.selected_epoch == 1 and log.best < 0


@pytest.mark.parametrize(("larger", "epoch"), [(True, 2), (False, 0)])
def test_a_phase_with_a_metric_of_its_own_is_selected_by_it(larger, epoch):
  """Its one score, in its own direction; no label and no logits are read."""
  problem = Known((0.2, 0.8, 0.5))
  method = problem.method()
  w = lambda s, inputs, mask: Outputs(
    None, aux={"w": jnp.broadcast_to(s.params["w"], mask["rank"].shape)}
  )
  phase = method.phases[0]._replace(
    predict=w, metric=metrics.row_mean("w", larger_is_better=larger)
  )
  method = method._replace(phases=(phase,))
  log = train.fit(method, problem.splits(), epochs=3, batch_size=4).logs[0]
  assert log.selected_epoch == epoch
  assert [set(e["validation"]["fused"]) for e in log.history] == [{"w"}] * 3


def test_patience_stops_a_run():
  log = known((0.2, 0.8, 0.5, 0.8, 0.9), patience=2).logs[0]
  assert log.selected_epoch == 1 and len(log.history) == 4 and log.stopped


def test_patience_stops_each_of_several_seeds():
  seen = []
  result = known((0.8, 0.2, 0.5, 0.9), patience=2, seeds=2, together=True, on_epoch=seen.append)
  assert [len(log.history) for log in result.logs] == [3, 3]
  assert len(seen) == 6 and [e["seed"] for e in seen[:2]] == [0, 1]


def test_steps_are_rounded_up_to_epochs():
  problem = Known((0.5, 0.6, 0.7))
  log = train.fit(problem.method(), problem.splits(), steps=5, batch_size=4).logs[0]
  assert len(log.history) == 3


def test_the_guard_reports_the_first_broken_step_and_keeps_the_best_state():
  result = known((0.2, 0.8, 0.5, 0.9, 0.9), broken=5)  # second step of epoch 2
  log = result.logs[0]
  assert log.diverged_at == 5 and log.stopped and len(log.history) == 3
  assert log.selected_epoch == 1 and float(result.state(0).params["w"]) == 4.0


def test_a_run_broken_from_the_start_has_no_selected_epoch():
  result = known((0.9,), broken=0)
  assert result.logs[0].selected is None and float(result.state(0).params["w"]) == 0.0
  assert result.validation == [{"fused": None, "rank": None, "truth": None}]


def test_the_guard_works_without_validation():
  problem = Known((0.5,) * 4, broken=5)
  data = problem.splits().with_parts(validation=None)
  result = train.fit(problem.method(), data, epochs=4, batch_size=4)
  assert result.logs[0].diverged_at == 5 and float(result.state(0).params["w"]) == 4.0


class TwoPhases(Known):
  """ "teacher", whose scores are known, then "student", which starts from the best teacher."""

  def __init__(self, scores, **options):
    self.calls = []
    super().__init__(scores, **options)
    self.phases = (
      Phase("teacher", known_step, share=0.5),
      Phase(
        "student",
        known_step,
        begin=self.begin,
        epoch_end=self.epoch_end,
        rows=self.rows,
        predict=self.wrong,
        share=0.25,
      ),
    )

  def begin(self, state, splits, key, clock):
    self.calls.append(("begin", sorted(splits), float(state.params["w"])))
    # The same buffer twice: donating it as it is would fail.
    return state._replace(memory={**state.memory, "teacher": state.params["w"]})

  def epoch_end(self, state, splits, key, clock):
    self.calls.append(("epoch_end", len(splits["train"].label), float(state.params["w"])))
    return state

  def rows(self, state, splits, key, clock):
    self.calls.append(("rows",))
    return np.asarray([0, 2, 4]), {
      "truth": np.asarray([True, True, False]),
      "rank": np.ones(3, bool),
    }

  def wrong(self, state, inputs, mask):
    outputs = known_predict(state, inputs, mask)
    return outputs._replace(logits=-outputs.logits)


def test_signatures_of_before_are_refused_in_a_sentence_that_shows_the_new_ones():
  problem = TwoPhases((0.2, 0.8))
  old = problem.method()._replace(init=lambda key, batch: None)
  with pytest.raises(
    TypeError, match=r"Method.init is called as \(key, batch, num_rows\).*\(key, batch\)$"
  ):
    train.fit(old, problem.splits(), epochs=2)
  method = problem.method()
  phase = method.phases[1]._replace(epoch_end=lambda state, splits, key: state)
  with pytest.raises(
    TypeError, match=r"epoch_end of phase 'student' is called as \(state, splits, key, clock"
  ):
    train.fit(method._replace(phases=(method.phases[0], phase)), problem.splits(), epochs=2)


def test_hooks_are_told_the_time_in_plain_numbers():
  problem, seen = Known((0.2, 0.8, 0.5)), []
  method = problem.method()

  def told(state, splits, key, clock):
    seen.append(tuple(clock))
    return state

  def rows(state, splits, key, clock):
    seen.append(tuple(clock))
    return np.arange(len(splits["train"].label)), None

  phase = method.phases[0]._replace(begin=told, epoch_end=told, rows=rows)
  train.fit(method._replace(phases=(phase,)), problem.splits(), epochs=2, batch_size=4)
  every = [(0, 0, 0, 2, 2), (0, 0, 0, 2, 2), (2, 1, 0, 2, 2), (2, 1, 0, 2, 2), (4, 2, 0, 2, 2)]
  assert seen == every and all(type(n) is int for t in seen for n in t)


def test_phases_begin_from_the_best_parameters_and_call_their_hooks():
  problem = TwoPhases((0.2, 0.8, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1))
  result = train.fit(problem.method(), problem.splits(), epochs=8, batch_size=4)
  log = result.logs[0]
  # 8 epochs shared out: 4 and 2.
  assert [(e["phase"], e["epoch"]) for e in log.history] == [
    *(("teacher", i) for i in range(4)),
    ("student", 0),
    ("student", 1),
  ]
  assert problem.calls == [
    ("begin", ["train", "validation"], 4.0),
    ("rows",),
    ("epoch_end", 8, 5.0),
    ("rows",),
    ("epoch_end", 8, 6.0),
  ]  # three rows are one batch
  assert float(result.state(0).memory["teacher"]) == 4.0
  # The student is validated with its own `predict`: 1 - .8 at w = 5, 1 - .5 at w = 6.
  assert log.selected_epoch == 1 and log.selected["phase"] == "student"
  assert float(result.state(0).params["w"]) == 6.0
  assert log.examples == 4 * 8 + 2 * 3


@pytest.mark.parametrize(
  "shares, epochs, expected",
  [((0.05, 0.05, 0.9), 5, (1, 1, 3)), ((1 / 3,) * 3, 7, (2, 3, 2)), ((0.5, 0.5), 1, (1, 1))],
)
def test_a_phase_has_at_least_one_epoch_and_all_have_the_budget(shares, epochs, expected):
  phases = tuple(Phase(str(i), known_step, share=s) for i, s in enumerate(shares))
  problem = Known((0.5,) * 7, phases=phases)
  result = train.fit(problem.method(), problem.splits(), epochs=epochs, batch_size=4)
  ran = [e["phase"] for e in result.logs[0].history]
  assert tuple(ran.count(p.name) for p in phases) == expected


def test_a_phase_that_is_not_selected_hands_its_last_state_on():
  """Its prediction is never called, its best epoch (the second) is not put back, patience is not its."""

  def refuse(state, inputs, mask):
    raise AssertionError("validated")

  problem = Known(
    (0.2, 0.8, 0.5),
    phases=(
      Phase("teacher", known_step, predict=refuse, select=LAST),
      Phase("student", known_step),
    ),
  )
  result = train.fit(
    problem.method(),
    problem.splits(),
    epochs={"teacher": 3, "student": 1},
    batch_size=4,
    patience=1,
  )
  log = result.logs[0]
  assert [e["validation"] is None for e in log.history] == [True, True, True, False]
  assert float(result.state(0).params["w"]) == 8.0  # two steps an epoch, all four of them
  whole = train.fit(
    Known((0.2, 0.8, 0.5)).method(), problem.splits(), epochs=3, batch_size=4, select=LAST
  )
  assert float(whole.state(0).params["w"]) == 6.0 and whole.logs[0].selected_epoch == 2
  assert whole.logs[0].best is None and whole.validation[0]["fused"] is None


def test_epochs_and_batch_sizes_can_be_given_per_phase():
  problem = TwoPhases((0.5,) * 8)
  log = train.fit(
    problem.method(),
    problem.splits(),
    epochs={"teacher": 1, "student": 2},
    batch_size={"teacher": 2, "student": 3},
  ).logs[0]
  assert [e["phase"] for e in log.history] == ["teacher", "student", "student"]
  assert log.examples == 8 + 2 * 3
  with pytest.raises(ValueError, match="epochs names no value for phase 'student'; given: teacher"):
    train.fit(problem.method(), problem.splits(), epochs={"teacher": 1})


def test_a_diverged_phase_ends_the_run():
  problem = TwoPhases((0.2, 0.8, 0.5, 0.9, 0.9), broken=5)
  result = train.fit(problem.method(), problem.splits(), epochs=8, batch_size=4)
  log = result.logs[0]
  assert {e["phase"] for e in log.history} == {"teacher"} and log.diverged_at == 5
  # What the teacher scored says nothing about the student, which never trained.
  assert log.selected_epoch == -1 and log.best is None and log.selected is None


class Sealed:
  """Splits whose test arrays nobody may open."""

  def __init__(self, splits):
    self._splits = splits

  def __getattr__(self, name):
    assert name != "test", "fit opened the test split"
    return getattr(self._splits, name)


def test_the_test_split_is_never_opened():
  problem = Known((0.5, 0.9))
  wanted = train.fit(problem.method(), problem.splits(), epochs=2, batch_size=4)
  for data in (Sealed(problem.splits()), problem.splits().sealed()):
    found = train.fit(problem.method(), data, epochs=2, batch_size=4)
    assert history(found.logs[0]) == history(wanted.logs[0])


def test_donation_never_reaches_the_callers_arrays(splits, both):
  on_device = splits.with_parts(
    **{
      name: getattr(splits, name).replace(
        **{
          field: jax.tree.map(jnp.asarray, getattr(getattr(splits, name), field))
          for field in ("inputs", "label", "mask")
        }
      )
      for name in ("train", "validation")
    },
  )
  found = train.fit(METHOD, on_device, seeds=1, **SHORT)
  same(found.state(0), both.state(0))
  for split in (on_device.train, on_device.validation):
    assert not any(x.is_deleted() for x in jax.tree.leaves((split.inputs, split.label, split.mask)))


def test_a_batch_larger_than_the_set_is_the_whole_set():
  problem = Known((0.5, 0.9))
  log = train.fit(problem.method(), problem.splits(rows=5), epochs=2, batch_size=64).logs[0]
  assert log.examples == 10


def test_a_modality_that_is_never_present_does_not_move_and_has_no_score(splits):
  never = tiny(never=("b",))
  result = train.fit(METHOD, never, seeds=1, **SHORT)
  assert result.logs[0].diverged_at is None
  assert result.validation[0]["b"] is None and result.validation[0]["a"] is not None
  fresh = train.initial(
    METHOD,
    jax.random.fold_in(jax.random.key(0), 0),
    jax.tree.map(lambda x: jnp.asarray(x)[:8], train.to_batch(never.train)),
  )
  same(result.state(0).params["b"], fresh.params["b"])


@pytest.mark.parametrize(
  "options, sentence",
  [
    ({"epochs": 0}, "epochs must be at least 1, got 0"),
    ({"epochs": float("nan")}, "epochs must be at least 1, got nan"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
    ({"seeds": 0}, "seeds must name at least one run"),
    ({"seeds": 2, "learning_rate": [0.1]}, "1 learning rates for 2 seeds"),
    ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
    ({"learning_rate": float("nan")}, "learning_rate must be positive and finite, got nan"),
    ({"learning_rate": 0.1}, "keeps no learning rate in its state"),
    ({"loop": "while"}, "unknown loop 'while'; expected auto, scan or python"),
    (
      {"select": "auc"},
      "cannot select by 'auc'; this task has: accuracy, balanced_accuracy, ece, macro_f1, nll",
    ),
  ],
)
def test_bad_settings_are_refused_with_a_sentence(options, sentence):
  problem = Known((0.5,))
  with pytest.raises(ValueError, match=sentence):
    train.fit(problem.method(), problem.splits(), **{"epochs": 1, "batch_size": 4, **options})


def test_an_empty_training_split_is_refused():
  problem = Known((0.5,))
  data = problem.splits()
  empty = data.train.rows(np.arange(0))
  with pytest.raises(ValueError, match="the training split is empty"):
    train.fit(problem.method(), data.with_parts(train=empty))


def test_step_times_are_interleaved(splits):
  times = train.interleaved_step_times({"a": METHOD, "b": METHOD}, splits, batch_size=8, rounds=2)
  assert sorted(times) == ["a", "b"] and all(len(t) == 2 and min(t) > 0 for t in times.values())


def test_step_times_are_at_least_three(splits):
  times = train.interleaved_step_times({"a": METHOD}, splits, batch_size=8, budget=0.0)
  assert len(times["a"]) == 3
