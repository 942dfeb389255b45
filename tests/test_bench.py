"""The benchmarks run their smoke sizes, and what they conclude is right."""

import functools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _common
from experiments.bench import _accelerator, accelerator, compile
from experiments.bench._cast import Cast
from mmfuse import encoders, fusion, methods, train
from mmfuse.core import Batch, Clock, Unavailable


def small():
  """(a model with batch norm on two modalities, a batch of eight rows)."""
  rng, rows = np.random.default_rng(0), jnp.arange(8, dtype=jnp.int32)
  model = fusion.LateFusion({m: encoders.MLP(4, (5,), "batch") for m in "ab"}, 3)
  inputs = {m: jnp.asarray(rng.normal(size=(8, 3)), jnp.float32) for m in "ab"}
  mask = {m: jnp.ones(8, bool) for m in "ab"}
  return model, Batch(inputs, rows % 3, mask, jnp.ones(8), rows, {})


def test_accelerator_smoke(capsys, tmp_path):
  before = {p: p.read_bytes() for p in _common.RESULTS.iterdir()}
  done = accelerator.main(["--smoke", "--out", str(tmp_path)])
  assert set(done) == set(accelerator.SMOKE) and accelerator.sound(done)
  assert set(done["lenet"]["rows"]) == {"float32, batch 4", "bfloat16, batch 4"}
  assert done["rules"]["rows"]["joint"]["over_joint"] == 1
  for row in done["lenet"]["rows"].values():
    assert row["gflop"] > 0 and row["mfu"] > 0 and row["examples_per_s"] > 0
  page = (tmp_path / "accelerator_cpu.md").read_text()
  assert "| mmpareto | " in page and "versions: mmfuse" in page and "--smoke" in page
  kept = json.loads((tmp_path / "accelerator_cpu.json").read_text())
  assert kept["jax"] == jax.__version__ and kept["rules"] == done["rules"]
  printed = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] == "{"]
  assert [list(line) for line in printed] == [[name] for name in accelerator.SMOKE]
  assert {p: p.read_bytes() for p in _common.RESULTS.iterdir()} == before


def test_what_ended_is_saved_at_once_and_a_failure_stops_nothing(monkeypatch, tmp_path):
  def broken(cfg, until, done):
    raise ValueError("no such device")

  table = {"size": 8, "float32": 1.0, "bfloat16": 2.0}
  sections = {
    "ceiling": (1, lambda cfg, until, done: dict(table)),
    "rules": (1, broken),
    "digits": (1, lambda cfg, until, done: {"rows": {}, "equal": False}),
  }
  monkeypatch.setattr(accelerator, "SECTIONS", sections)
  saved = []
  save = lambda done: saved.append(sorted(done))
  done = accelerator.measure(accelerator.Config(), save)
  assert saved == [["ceiling"], ["ceiling", "rules"], ["ceiling", "digits", "rules"]]
  assert done["rules"]["failed"] == "ValueError: no such device"
  page = accelerator.page(done, "the command")
  assert "| float32 | 1.0 |" in page and "ValueError: no such device" in page
  sound = accelerator.sound
  assert (
    not sound(done)
    and not sound({"rules": done["rules"]})
    and not sound({"digits": done["digits"]})
  )
  late = accelerator.measure(accelerator.Config(minutes=-1), save)
  assert [s["skipped"] for s in late.values()] == ["not run: no time left"] * 3 and sound(late)


def test_no_program_is_built_once_the_time_is_up(monkeypatch):
  monkeypatch.setattr(_accelerator, "racer", lambda *what: what)
  wanted = {"a": (1,), "b": (2,)}
  assert list(_accelerator.racers(wanted, time.perf_counter() + 60)) == ["a", "b"]
  assert list(_accelerator.racers(wanted, 0.0)) == ["a"]  # one at least


def test_rounds_are_interleaved_and_stop_when_the_time_is_up():
  calls = []
  laps = {
    n: lambda steps, n=n: (calls.append((n, steps)), {"a": 0.002, "b": 0.004}[n])[1] for n in "ab"
  }
  cfg = accelerator.Config(rounds=3, steps=5)
  found = _accelerator.race(laps, cfg, time.perf_counter() + 60)
  assert calls == [("a", 1), ("b", 1), *[("a", 5), ("b", 5)] * 3]
  assert found["b"] == {"median_ms": 4.0, "least_ms": 4.0, "rounds": 3}
  assert _accelerator.race(laps, cfg, 0.0)["a"]["rounds"] == 1


def test_agreement_by_hand():
  cpu = {"joint": [0.50, 0.60, 0.70]}
  rows = lambda here: _accelerator.agreement({"joint": here}, cpu)
  assert rows([0.50, 0.60, 0.70])["equal"]
  assert rows([0.509, 0.609, 0.709])["equal"]  # .9 points
  assert not rows([0.52, 0.62, 0.72])["equal"]  # two points in every seed
  assert rows([0.56, 0.58, 0.72])["equal"]  # the mean is two, its interval has zero
  assert not rows([0.5, float("nan"), 0.7])["equal"]
  assert not _accelerator.agreement({"joint": cpu["joint"]}, {**cpu, "uniform": [0.5]})["equal"]
  found = rows([0.52, 0.62, 0.72])["rows"]["joint"]
  assert found["mean_difference"] == pytest.approx(0.02) and found["cpu"] == cpu["joint"]


def test_digits_asks_both_machines_the_same(monkeypatch, tmp_path):
  """Stand-ins for the two runs, which take half a minute: what is asked of each, and what is read."""
  asked = []

  def write(folder, score):
    folder.mkdir(parents=True)
    records = [
      {"method": m, "seed": s, "test": {"fused": score}}
      for s in (1, 0)
      for m in ("joint", "uniform")
    ]
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, records)))

  class Process:
    returncode = 0

    def __init__(self, words, env, **_):
      assert env["JAX_PLATFORMS"] == "cpu" and words[1:4] == ["-m", "mmfuse", "compare"]
      asked.append(dict(zip(words[4::2], words[5::2])))
      write(pathlib.Path(asked[0]["--out"]), 0.5)

    def wait(self, timeout=None):
      pass

    kill = wait

  def here(cfg):
    cfg.check()
    asked.append(cfg)
    write(pathlib.Path(cfg.out), 0.505)

  monkeypatch.setattr(_accelerator.subprocess, "Popen", Process)
  monkeypatch.setattr(_accelerator.protocol, "run", here)
  found = _accelerator.digits(accelerator.Config(), time.perf_counter() + 60)
  assert found["equal"] and found["rows"]["uniform"]["here"] == [0.505, 0.505]
  there, cfg = asked
  assert there["--data"] == cfg.data == "digits" and there["--methods"] == ",".join(cfg.methods)
  for name in ("tune", "epochs", "seeds", "learning_rate"):
    assert float(there["--" + name.replace("_", "-")]) == getattr(cfg, name)
  Process.returncode = 2
  asked.clear()
  with pytest.raises(RuntimeError, match="ended with code 2"):
    _accelerator.digits(accelerator.Config(), time.perf_counter() + 60)


def test_seeds_at_once_and_in_sequence(monkeypatch):
  calls = []

  def fit(method, splits, *, together, seeds, **options):
    calls.append((together, seeds))
    return train.Result(trained, (), "accuracy", ())

  model, given = small()
  trained = train.initial(methods.METHODS["joint"](model), jax.random.key(0), given)
  monkeypatch.setattr(_accelerator.train, "fit", fit)
  cfg = accelerator.Config(smoke=True, rounds=2)
  found = _accelerator.seeds(cfg, time.perf_counter() + 60)
  assert calls == [(True, 2), (False, 2)] * 3  # a warm-up, two rounds
  once, after = (found["rows"][name]["median_ms"] for name in ("at once", "in sequence"))
  assert found["sequence_over_at_once"] == after / once and found["training_rows"] > 0


def test_a_cast_model_computes_in_bfloat16_and_keeps_its_state_in_float32():
  model, given = small()
  method = methods.METHODS["uniform"](Cast(model))
  clock = Clock(*(jnp.int32(v) for v in (0, 0, 0, 1, 1)))
  state = jax.eval_shape(functools.partial(train.initial, method), jax.random.key(0), given)
  step = lambda s: method.phases[0].step(s, given, jax.random.key(1), clock)
  new, metrics = jax.eval_shape(step, state)
  assert jax.tree.map(lambda x: x.dtype, new) == jax.tree.map(lambda x: x.dtype, state)
  assert {str(x.dtype) for x in jax.tree.leaves((new.params, new.stats))} == {"float32"}
  assert all(v.dtype != jnp.bfloat16 for v in jax.tree.leaves(metrics))
  low = str(jax.make_jaxpr(step)(state))
  products = [line for line in low.splitlines() if "dot_general" in line]
  assert products and all(":bf16[" in line for line in products)
  variables = model.init(jax.random.key(0), given.inputs, given.mask)
  run = lambda m: m.heads(
    variables,
    m.encode(variables, given.inputs, given.mask, train=False)[0],
    given.mask,
    train=False,
  )[0]
  plain, cast = run(model).logits, run(Cast(model)).logits
  np.testing.assert_allclose(plain, cast, atol=0.05 * float(jnp.abs(plain).max()))
  assert cast.dtype == jnp.float32 and not np.array_equal(plain, cast)


def test_packed_ranking_equals_brute_force_in_a_32nd_of_the_memory(capsys):
  from experiments.bench import ranking

  found = ranking.main(["--smoke"])
  assert list(found) == [16, 32, 64, 128]
  assert all(r["equal"] == 1 and r["memory"] == 1 / 32 for r in found.values())
  assert "| 16 | yes | 1/32 |" in capsys.readouterr().out


@pytest.mark.slow
def test_compile_smoke(capsys):
  names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir")
  before = [getattr(jax.config, name) for name in names]
  found = compile.main(["--smoke"])
  assert [getattr(jax.config, name) for name in names] == before
  assert all(row["warm_cpu"] < row["cpu"] for row in found["rows"].values())  # it was read
  assert list(found["rows"]) == ["joint", "uniform"] and found["rows"]["joint"]["over_joint"] == 1
  printed = capsys.readouterr().out
  assert "| uniform | 1 |" in printed and "versions: mmfuse" in printed


def test_compile_sums_phases_and_says_what_is_not_there(monkeypatch):
  def seconds(name, model, batch):
    if name == "greedy":
      raise Unavailable("needs mmtm")
    cpu = {"joint": 2.0, "moco": 9.0}[name]
    warm = {"warm_cpu": 1.0, "warm_over_cold": 1 / cpu, "start_warm_over_cold": 0.25}
    return {"trace": 1.0, "compile": 2.0, "cpu": cpu, "largest": cpu, "phases": 1, **warm}

  monkeypatch.setattr(compile, "seconds", seconds)
  found = compile.measure(compile.Config(methods=("moco", "greedy", "joint"), batch_size=2))
  assert found["rows"]["moco"]["over_joint"] == 4.5 and list(found["rows"]) == ["joint", "moco"]
  page = compile.page(found, "the command")
  assert "| moco | 1 | 1.0 | 2.0 | 9.0 | 4.5 | 4.5 | 1.0 | 0.11 | 0.25 |\n| joint | 1 |" in page
  assert "Warm starts take 0.25 of cold ones" in page and "3 times joint's: moco." in page
  assert "- greedy: n/a: needs mmtm" in page
  with pytest.raises(ValueError, match="unknown method 'mocko'; closest: moco"):
    compile.main(["--methods", "mocko"])
