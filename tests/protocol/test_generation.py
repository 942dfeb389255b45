"""Data without labels go through the whole comparison under a task that needs none."""

import json
import pathlib

import numpy as np

from tests.open import vae

from ._helpers import QUICK, call

OWN = """

def vae(model, learning_rate=0.01, *, tx=None):
  return method(learning_rate)
"""


def test_a_row_of_ones_own_is_judged_by_its_elbo_and_rows_with_labels_say_why_not(tmp_path):
  rng = np.random.default_rng(0)
  z = rng.normal(size=(60, 2))
  np.savez(tmp_path / "my.npz", **{m: z @ rng.normal(size=(2, d)) for m, d in (("a", 5), ("b", 3))})
  (tmp_path / "mine.py").write_text(pathlib.Path(vae.__file__).read_text() + OWN)
  said = call(
    tmp_path,
    *("compare", "--data", "my.npz", "--task", "generation", "--out", "run"),
    *("--methods", "joint,mine.py:vae", "--scale", "a=raw", *QUICK),
  )
  assert said.code == 0 and "joint: n/a: needs classification" in said.out
  (record,) = map(json.loads, (tmp_path / "run" / "results.jsonl").read_text().splitlines())
  assert record["metric"] == "elbo" and np.isfinite(record["test"]["fused"])
  assert json.loads((tmp_path / "run" / "baselines.json").read_text()) == []
  refused = call(tmp_path, "predict", "run", "--data", "my.npz")
  assert refused.code == 2 and "has no labels (task generation)" in refused.err
  forgotten = call(tmp_path, "compare", "--data", "my.npz", "--methods", "joint", *QUICK)
  assert forgotten.code == 2 and "--task generation" in forgotten.err
