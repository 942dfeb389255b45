"""Five methods that need what no index row needs: each is a page, and `train/` does not know it."""

import pathlib

import jax
import numpy as np
import pytest

from mmfuse import data, metrics, train

from . import cca, ensemble, pixels, teacher, vae

RNG = np.random.default_rng(0)
ROWS = 90
LABEL = np.arange(ROWS) % 3
LENGTH = 40


def arrays(noise=0.3, **more):
  """Two views of one class, turned; the last rows are asked for by role."""
  x = 2 * np.eye(3)[LABEL] + noise * RNG.normal(size=(ROWS, 3))
  turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
  found = {"a": x, "b": x @ turn + noise * RNG.normal(size=(ROWS, 3)), "label": LABEL, **more}
  return {k: v for k, v in found.items() if v is not None}


@pytest.mark.parametrize("module", [cca, ensemble, pixels, teacher, vae])
def test_a_method_is_a_page(module):
  assert len(pathlib.Path(module.__file__).read_text().splitlines()) <= LENGTH


def test_a_vae_is_selected_by_its_elbo_without_labels():
  splits = data.from_arrays(arrays(label=None), task="generation")
  log = train.fit(vae.method(), splits, epochs=6, batch_size=18).logs[0]
  scores = [e["validation"]["fused"]["elbo"] for e in log.history]
  assert scores[log.selected_epoch] == max(scores) > scores[0]


def test_cca_is_scored_by_retrieval():
  column = np.repeat(["train", "validation", "test", "query", "database"], [36, 12, 6, 12, 24])
  splits = data.from_arrays(arrays(split=column))
  result = train.fit(cca.METHOD, splits.sealed(), epochs=1, batch_size=12)
  score = lambda state, selecting: train.collect(
    cca.METHOD, state, splits, metrics.map_at_k(10), selecting=selecting
  )["map_at_10"]
  found = score(result.state(0), selecting=False)
  shuffled = result.state(0)._replace(
    params={
      m: {**p, "w": p["w"][:, [1, 2, 0]] if m == "b" else p["w"]}
      for m, p in result.state(0).params.items()
    }
  )
  assert found > 0.9 and score(result.state(0), selecting=True) > 0.9
  assert score(shuffled, selecting=False) < found - 0.3


def test_pixels_are_classified_and_scored_by_dice():
  masks = RNG.random((48, 6, 6)) < 0.4
  x = {
    m: (masks[..., None] + 0.3 * RNG.normal(size=(48, 6, 6, 1))).astype(np.float32) for m in "ab"
  }
  label = np.where(RNG.random(masks.shape) < 0.1, -1, masks).astype(np.int32)
  present = {m: np.arange(48) % 8 != i for i, m in enumerate("ab")}
  whole = data.Split(x, label, present, np.arange(48))
  parts = {"train": whole.rows(np.arange(32)), "validation": whole.rows(np.arange(32, 48))}
  splits = data.Splits("pixels", parts, "classification", 2, (), {}, None, "")
  log = train.fit(pixels.method(), splits, epochs=6, batch_size=8, diagnose=False).logs[0]
  scores = [e["validation"]["fused"]["macro_f1"] for e in log.history]
  assert scores[log.selected_epoch] == max(scores) > 0.9


@pytest.mark.slow
def test_an_ensemble_tells_what_is_out_of_distribution():
  column = np.repeat(["train", "validation", "test", "ood"], [36, 12, 18, 24])
  given = arrays(split=column)
  for m in "ab":
    given[m][66:] = 0.3 * RNG.normal(size=(24, 3)) + given[m][:36].mean(0)  # between the classes
  splits = data.from_arrays(given)
  method = ensemble.method()
  result = train.fit(method, splits.sealed(), epochs=8, batch_size=12, diagnose=False)
  state = result.state(0)
  found = train.collect(method, state, splits, metrics.ood_auroc(), selecting=False)
  assert found["ood_auroc"] > 0.9
  leaf = lambda i: jax.tree.leaves(state.params[f"member{i}"])[-1]
  assert not np.allclose(leaf(0), leaf(1))


@pytest.mark.slow
def test_a_student_learns_from_a_teacher_of_another_architecture():
  splits = data.from_arrays(arrays(split=np.repeat([0, 1, 2], [48, 24, 18])))
  method = teacher.method()
  result = train.fit(method, splits, epochs=8, batch_size=12, diagnose=False)
  log = result.logs[0]
  assert {e["phase"] for e in log.history} == {"teacher/train", "student/train"}
  last = log.history[-1]
  assert last["loss/distil"] < 0.9 * next(
    e["loss/distil"] for e in log.history if e["phase"] == "student/train"
  )
  assert last["validation"]["fused"]["accuracy"] > 0.9


@pytest.mark.parametrize(
  "method, task",
  [
    (vae.method(), "generation"),
    (cca.METHOD, None),
    (ensemble.method(2), None),
    (teacher.method(), None),
  ],
  ids=["vae", "cca", "ensemble", "teacher"],
)
def test_they_pass_the_checks_of_any_method(method, task):
  given = arrays() if task is None else arrays(label=None)
  train.check_method(method, data.from_arrays(given, task=task))
