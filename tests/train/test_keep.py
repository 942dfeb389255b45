"""`Batch.keep`: what a step drops is dropped after the encoders, for heads, losses and rules alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfuse import objectives, train
from mmfuse.core import used
from mmfuse.encoders import MLP
from mmfuse.fusion import LateFusion

from . import _problems as problems
from ._problems import batch, close, one_step, same

ROWS = 8
DROPPED = np.arange(ROWS) % 2 == 0


def keeping(given, **keep):
  """`given` with modalities dropped: {m: bool [B]}, all rows kept elsewhere."""
  return given._replace(keep={m: jnp.asarray(keep.get(m, np.ones(ROWS, bool))) for m in given.mask})


def model(norm="layer"):
  return LateFusion({m: MLP(4, (5,), norm) for m in "ab"}, problems.CLASSES)


METHOD = train.supervised(model(), objectives.fused_and_unimodal, train.sgd(0.3))


def test_dropped_reads_as_absent_where_no_encoder_couples_rows():
  given = keeping(batch(nan=False), b=~DROPPED)
  absent = given._replace(mask=used(given).mask, keep=None)
  dropped, gone = one_step(METHOD, given), one_step(METHOD, absent)
  close(dropped[1], gone[1], 1e-6)
  assert float(dropped[2]["loss/b"]) == pytest.approx(float(gone[2]["loss/b"]), abs=1e-6)


def test_keeping_everything_is_the_step_without_it():
  given = batch()
  same(one_step(METHOD, keeping(given))[1], one_step(METHOD, given)[1])


def test_encoders_see_what_is_dropped():
  """Batch statistics count dropped rows: the encoder runs on all that is there."""
  method = train.supervised(model("batch"), objectives.fused_and_unimodal, train.sgd(0.3))
  given = batch()
  stats = one_step(method, keeping(given, b=~DROPPED))[1].stats
  same(stats["b"], one_step(method, given)[1].stats["b"])


def test_an_encoder_dropped_from_a_whole_batch_stands_still():
  moving = one_step(METHOD, batch())[1]  # momentum would carry it on
  _, after, log = one_step(METHOD, keeping(batch(), b=np.zeros(ROWS, bool)), moving)
  same(after.params["b"], moving.params["b"])
  assert float(log["loss/b"]) == 0.0
  assert np.any(jax.tree.leaves(after.params["a"])[0] != jax.tree.leaves(moving.params["a"])[0])


def test_an_objective_may_ask_for_the_batch_before_anything_was_dropped():
  seen = {}

  def objective(outputs, batch, complete, **extra):
    seen.update(mask=batch.mask, complete=complete.mask)
    share = sum(m.sum() for m in complete.mask.values()) - sum(m.sum() for m in batch.mask.values())
    return {"fused": (outputs.logits**2).mean() + 0.0 * share, "lost": share.astype(jnp.float32)}

  method = train.supervised(model(), objective, train.sgd(0.3))
  given = keeping(batch(), b=~DROPPED)
  log = one_step(method, given)[2]
  assert float(log["loss/lost"]) == float((given.mask["b"] & DROPPED).sum()) > 0


def test_rows_of_a_phase_are_dropped_not_absent_and_batches_keep_their_order():
  """A hook that gives batches [N, B]: taken as they are, -1 is padding."""
  problem = problems.Known((0.5,))
  method = problem.method()
  order = np.asarray([[3, 1, 0], [2, 2, -1]])
  phase = method.phases[0]._replace(rows=lambda state, splits, key, clock: (order, None))
  log = train.fit(method._replace(phases=(phase,)), problem.splits(), epochs=1, batch_size=8)
  place = lambda row: sum((i + 1) * max(r, 0) for i, r in enumerate(row))
  assert int(log.state(0).memory["seen"]) == place(order[0]) * 31 + place(order[1])
  assert log.logs[0].examples == 5


def test_a_step_sees_the_mask_of_the_data_beside_what_it_keeps():
  problem, found = problems.Known((0.5,)), {}
  method = problem.method()

  def step(state, batch, key, clock):
    found.update(batch.keep)
    lost = ~used(batch).mask["truth"] & batch.mask["truth"]
    memory = {**state.memory, "seen": lost.sum().astype(jnp.int32)}
    return state._replace(memory=memory), {"loss": jnp.zeros(())}

  keep = {"truth": np.asarray([True, False, False]), "rank": np.ones(3, bool)}
  chosen = method.phases[0]._replace(
    step=step, rows=lambda state, splits, key, clock: (np.asarray([0, 2, 4]), keep)
  )
  result = train.fit(method._replace(phases=(chosen,)), problem.splits(), epochs=1, batch_size=8)
  assert sorted(found) == ["rank", "truth"] and int(result.state(0).memory["seen"]) == 2
