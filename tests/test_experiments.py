"""Every experiment runs its smoke size in process, prints its table, and leaves committed results alone."""

import importlib
import json
import os
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
TABLES = (
  "balance_benchmark",
  "compare",
  "mimo",
  "bogc",
  "mla",
  "panel",
  "missing_digits",
  "missing_toy",
  "missing_prediction",
  "stronger_modality",
  "unseen_interaction",
)


def test_every_module_is_covered():
  found = {p.stem for p in (ROOT / "experiments").glob("*.py") if not p.stem.startswith("_")}
  # These have no table of methods; the last is tested with the rules.
  assert found == {
    *TABLES,
    "fusion_heads",
    "i2m2",
    "mdrnn",
    "provable_mml",
    "rule_properties",
    "dmrnet",
    "missing_rows",
    "mmanet",
    "modality_distillation",
    "cmimh",
    "dibs",
    "diverse_representations",
    "mmiai",
    "multimodal_vaes",
    "umurl",
    "wss_cmer",
  }


SLOW = (
  "balance_benchmark",
  "bogc",
  "mimo",
  "mla",
  "missing_digits",
  "missing_toy",
  "missing_prediction",
  "panel",
  "stronger_modality",
  "unseen_interaction",
)  # beyond half a minute


@pytest.mark.parametrize(
  "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in TABLES]
)
def test_smoke(name, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  before = {p: p.read_bytes() for p in (ROOT / "experiments" / "results").glob("*.md")}
  module = importlib.import_module(f"experiments.{name}")
  module.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "\n| joint " in printed and "versions: mmfuse" in printed
  assert {p: p.read_bytes() for p in before} == before
  doc = module.__doc__
  assert all(
    word in doc
    for word in ("Claim", "Command:", "Expected:", "--smoke", f"experiments/results/{name}.md")
  )


def test_provable_smoke(capsys):
  from experiments import provable_mml

  provable_mml.main(["--smoke"])
  assert "| modalities |" in capsys.readouterr().out


def results() -> dict[pathlib.Path, bytes]:
  return {p: p.read_bytes() for p in (ROOT / "experiments" / "results").iterdir()}


@pytest.mark.slow
def test_provable_av_mnist_smoke(capsys):
  from experiments import provable_mml

  before = results()
  provable_mml.main(["--smoke", "--av-mnist"])
  printed = capsys.readouterr().out
  lines = [line for line in printed.splitlines() if line.startswith("| 0.4 | 12 | n/a |")]
  assert len(lines) == 1 and lines[0].count("±") == 5  # three subsets, two gammas
  assert "versions: mmfuse" in printed and results() == before


def test_a_fraction_is_drawn_by_class():
  from experiments import _provable_av_mnist

  label = np.repeat([0, 1, 2], [50, 30, 20])
  rows = _provable_av_mnist.draw(label, 0.1, seed=0)
  assert np.bincount(label[rows]).tolist() == [5, 3, 2] and len(set(rows)) == 10
  assert not np.array_equal(rows, _provable_av_mnist.draw(label, 0.1, seed=1))
  assert np.bincount(label[_provable_av_mnist.draw(label, 0.01, 0)]).tolist() == [1, 1, 1]


@pytest.mark.slow
def test_cmimh_smoke(capsys):
  from experiments import cmimh

  before = results()
  cmimh.main(["--smoke"])
  printed = capsys.readouterr().out
  assert all(f"\n| {name} | " in printed for name in cmimh.OBJECTIVES)
  assert "| intra + inter less gap | " in printed and "| random ranking" in printed
  assert "versions: mmfuse" in printed and results() == before
  said = ("Claim", "Command:", "Expected:", "--smoke", "results/cmimh.md")
  assert all(word in cmimh.__doc__ for word in said)


@pytest.mark.slow
def test_umurl_smoke(capsys):
  from experiments import umurl

  before = results()
  umurl.main(["--smoke"])
  printed = capsys.readouterr().out
  assert all(f"\n| {name} | " in printed for name in (*umurl.PARTS, umurl.RAW))
  assert "| full less no_spread | " in printed and "versions: mmfuse" in printed
  assert results() == before
  said = ("Claim", "Command:", "Expected:", "--smoke", "results/umurl.md")
  assert all(word in umurl.__doc__ for word in said)


def test_what_umurl_claims_is_read_off_paired_differences(tmp_path, monkeypatch):
  from experiments import _common, umurl

  runs = lambda *values: [{"knn": v, "linear": 1.0} for v in values]
  found = {"random": runs(0.5, 0.6), "full": runs(0.7, 0.81), "intra": runs(0.6)}
  said = umurl.contrasts(found)
  assert "| full less random | +20.5 ± 6.4 | 2 |" in said
  assert "| full less intra | +10.0 | 1 |" in said and "interval above 0: holds." in said
  assert "does not hold" in umurl.contrasts({**found, "random": runs(0.7, 0.6)})
  monkeypatch.setattr(_common, "RESULTS", tmp_path)
  cfg = umurl.Config()
  _common.write_json("umurl", {"setting": umurl.setting(cfg), "parts": found}, smoke=False)
  assert umurl.stored(cfg) == found and umurl.stored(umurl.Config(steps=3)) == {}
  umurl.draw({**found, umurl.RAW: runs(1.0, 1.0)})
  assert (tmp_path / "umurl.png").stat().st_size > 1000


def test_what_cmimh_claims_is_read_off_paired_differences():
  from experiments import cmimh

  runs = lambda *values: [({"map_at_50": v}, {}, v) for v in values]
  found = {"gap": runs(0.2, 0.2), "inter": runs(0.5, 0.62), "intra + inter": runs(0.6, 0.7)}
  said = cmimh.contrasts(found)
  assert "| intra + inter less inter | +9.0 ± 12.7 |" in said
  assert "30 points above gap, interval above 0: does not hold" in said  # 45 +- 63.5
  found["gap"] = runs(0.2, 0.3)
  assert "30 points above gap, interval above 0: holds" in cmimh.contrasts(found)


@pytest.mark.slow
def test_fusion_heads_smoke(capsys):
  from experiments import fusion_heads

  before = results()
  fusion_heads.main(["--smoke"])
  printed = capsys.readouterr().out
  for head in ("concat", "tensor", "low_rank", "low_rank_frozen"):
    assert f"\n| {head} | " in printed or f"\n| {head} (best fused) | " in printed
  assert "versions: mmfuse" in printed and results() == before
  assert all(word in fusion_heads.__doc__ for word in ("Claim", "Command:", "Expected:", "--smoke"))


def test_no_modality_alone_tells_a_product():
  """Of four columns each way: the sign of x1 . x2 is that of neither; a linear map of both is at chance."""
  from experiments import fusion_heads
  from mmfuse import metrics

  for label, expected in (("multiplicative", 0.5), ("additive", 0.0)):
    splits = fusion_heads.make_data(label, {"train": 4000, "validation": 10, "test": 4000})
    wrong = metrics.latent_quality(
      splits.train.inputs, splits.train.label, heldout=(splits.test.inputs, splits.test.label)
    )
    assert wrong == pytest.approx(expected, abs=0.04)
    x = splits.test.inputs
    if label == "multiplicative":  # the product of the columns says it
      products = np.stack([x["x1"][:, i] * x["x2"][:, i] for i in range(fusion_heads.COLUMNS)], 1)
      assert metrics.latent_quality(products, splits.test.label) < 0.02


def test_spreads_by_hand():
  from experiments import fusion_heads

  runs = {"a": (0.1, 0.3), "b": (0.5, 0.5)}
  records = [{"method": m, "test": {"fused": v}} for m, values in runs.items() for v in values]
  between, within = fusion_heads.spreads(records)
  assert between == pytest.approx(0.3 / 2**0.5)
  assert within == pytest.approx((0.02 / 2) ** 0.5)


def test_contrasts_of_mla_are_paired():
  from experiments import mla

  scores = {"mla": (0.7, 0.8, 0.9), "mla_off": (0.6, 0.7, 0.8), "mla_bb_add": (0.6, 0.8, 0.7)}
  records = [
    {"method": m, "seed": seed, "test": {"fused": v, "audio": v / 2, "image": 0.5}}
    for m, values in scores.items()
    for seed, v in reversed(list(enumerate(values)))
  ]
  table = mla.contrast_table(records)
  assert "| mla less mla_off | n/a | +10.0 | +5.0 | +0.0 ± 0.0 |" in table
  assert "| mla_bb_add less mla_off | n/a | +0.0 ± 24.8 |" in table
  assert "mla_released" not in table and "mla_mean" not in table
  assert "| mla | n/a | 80.0 ± 24.8 | n/a |" in mla.paper_table(records)


def test_training_rows_are_on_one_side_and_test_rows_on_both():
  from experiments import unseen_interaction as unseen

  label, split = np.repeat([0, 1], 24), np.tile(np.repeat(["train", "validation", "test"], 8), 2)
  views = {m: np.random.default_rng(0).normal(size=(48, 2)) for m in "AB"}
  for complete in (False, True):
    found = unseen.disjoint(views, label, split, "digits", complete)
    both = found.mask["A"] & found.mask["B"]
    assert both[split == "test"].all() and both[split == "validation"].all() == complete
    train = split == "train"
    assert not both[train].any() and (found.mask["A"] | found.mask["B"]).all()
    assert np.bincount(label[train & found.mask["A"]]).tolist() == [4, 4]
    assert complete == ("validated on complete rows" in found.name)


def test_unseen_combinations_by_hand():
  from experiments import unseen_interaction as unseen

  both = {"late_average": ((0.5, 0.7), (0.8, 0.8)), "joint": ((0.5, 0.5), (0.6, 0.8))}
  records = [
    {
      "method": name,
      "seed": seed,
      "subsets": [
        {"modalities": ["A", "B"], "score": whole[seed]},
        *({"modalities": [m], "score": v} for m, v in zip("AB", alone)),
      ],
    }
    for name, (alone, whole) in both.items()
    for seed in (1, 0)
  ]
  found = unseen.scores(records, "digits")
  assert found["joint"]["all (unseen)"] == pytest.approx([60, 80])
  assert found["late_average"]["B (seen)"] == pytest.approx([70, 70])
  table = unseen.scores_table(found, "digits")
  assert "| joint | 70.0 ± 127.1 | 50.0 ± 0.0 | 50.0 ± 0.0 | -10.0 ± 127.1 | baseline |" in table
  assert len(unseen.subsets("mfeat")["mixed pairs (unseen)"]) == 9


@pytest.mark.slow
def test_modality_distillation_smoke(capsys):
  from experiments import modality_distillation

  before = results()
  modality_distillation.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "| across: one_stage less B_only | " in printed
  assert "| one_stage: as_is less across | " in printed
  assert "versions: mmfuse" in printed and results() == before


@pytest.mark.slow
def test_dibs_smoke(capsys):
  from experiments import dibs

  before = results()
  dibs.main(["--smoke"])
  printed = capsys.readouterr().out
  for row in ("joint (one network)", "shared_trunk", "deep_ensemble", "dibs less shared_trunk"):
    assert printed.count(f"\n| {row} | ") == 3
  assert "versions: mmfuse" in printed and results() == before


def test_shifted_and_foreign_pictures_are_as_bright_as_digits_and_not_learnt_from():
  from experiments import _dibs_data

  found, size = _dibs_data.table(fake=True), _dibs_data.FEW
  images = found.inputs["image"]
  assert images.shape[1:] == (28, 28, 1) and images.min() >= 0 and images.max() <= 1
  counts = {p: int((found.split == p).sum()) for p in np.unique(found.split)}
  assert counts == {**size._asdict(), "shifted": 3 * size.shifted, "ood": 3 * size.ood}
  rows = lambda part, kind: images[(found.split == part) & (found.truth["kind"] == kind)]
  permuted = np.sort(rows("ood", 1).reshape(size.ood, -1), 1)
  given = np.sort(images[found.split == "test"].reshape(size.test, -1), 1)
  assert permuted.mean() == pytest.approx(given.mean(), rel=0.2)
  assert rows("shifted", 2).min() >= 0.3 - 1e-6 and rows("shifted", 2).max() <= 0.7 + 1e-6
  assert found.labelled is not None and not found.labelled[found.split == "ood"].any()
  rng = np.random.default_rng(0)
  turned = _dibs_data.shifted(given.reshape(-1, 28, 28)[:3], "rotated", rng)
  assert turned.shape == (3, 28, 28) and turned.max() <= 1


@pytest.mark.slow
def test_diverse_representations_smoke(capsys):
  from experiments import diverse_representations

  before = results()
  diverse_representations.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "\n| 1 less 0 | " in printed and "| 0 | " in printed and "null" in printed
  assert "versions: mmfuse" in printed and results() == before


def test_two_cues_of_which_a_shift_leaves_one():
  from experiments import diverse_representations as module
  from mmfuse import metrics

  splits = module.make_data(0)
  wrong = {}
  for name, part in (("train", splits.train), ("test", splits.test)):
    for cue, columns in (("digit", slice(0, 64)), ("bar", slice(64, 72))):
      x = part.inputs["x"][:, columns]
      seen = splits.train.inputs["x"][:, columns]
      wrong[name, cue] = metrics.latent_quality(
        seen, splits.train.label, heldout=(x, part.label), ridge=1e-3
      )
  assert max(wrong.values()) < 0.1  # either cue says it, in training and in new rows
  part = splits.part("shifted")
  digit, bar = slice(0, 64), slice(64, 72)
  for kind, gone, left in ((0, bar, digit), (1, digit, bar)):
    rows = part.truth["kind"] == kind
    error = lambda columns, rows=rows: metrics.latent_quality(
      splits.train.inputs["x"][:, columns],
      splits.train.label,
      heldout=(part.inputs["x"][rows][:, columns], part.label[rows]),
      ridge=1e-3,
    )
    assert error(gone) == pytest.approx(0.5, abs=0.06) and error(left) < 0.1


def test_shuffles_of_the_privileged_training_rows():
  from experiments import modality_distillation

  found = {part: modality_distillation.make_data(part) for part in modality_distillation.PARTS}
  plain = found["as_is"]
  rows, label = plain.split == "train", plain.label
  means = lambda t: np.stack([t.inputs["A"][rows & (label == c)].mean(0) for c in range(10)])
  for part, given in found.items():
    np.testing.assert_array_equal(given.inputs["B"], plain.inputs["B"])
    np.testing.assert_array_equal(given.inputs["A"][~rows], plain.inputs["A"][~rows])
    np.testing.assert_allclose(
      given.inputs["A"][rows].sum(0), plain.inputs["A"][rows].sum(0), rtol=1e-4
    )
    stay = (given.inputs["A"][rows] == plain.inputs["A"][rows]).all(1).mean()
    assert (stay == 1) if part == "as_is" else (stay < 0.1)
    same = np.allclose(means(given), means(plain), atol=1e-4)
    assert same == (part != "across")
  assert len({t.fingerprint for t in found.values()}) == 3


@pytest.mark.slow
def test_mdrnn_smoke(capsys):
  from experiments import mdrnn

  mdrnn.main(["--smoke"])
  assert "| mdrnn_pcd |" in capsys.readouterr().out


@pytest.mark.parametrize(
  "more", [pytest.param([], marks=pytest.mark.slow), ["--recipe", "--rows", "inter_lf"]]
)
def test_i2m2_smoke(more, capsys):
  from experiments import i2m2

  i2m2.main(["--smoke", *more, *(["--part", "av_mnist"] if more else [])])
  printed = capsys.readouterr().out
  assert ("| inter_only |" in printed) == (not more)
  assert "| inter_lf | n/a |" in printed


@pytest.mark.needs_data
@pytest.mark.slow
def test_mdrnn_mnist_smoke(capsys, tmp_path, monkeypatch):
  from experiments import _common, mdrnn

  if not os.environ.get("MMFUSE_DATA_DIR"):
    pytest.skip("MMFUSE_DATA_DIR is not set: no MNIST to read")
  monkeypatch.setattr(_common, "RESULTS", tmp_path)
  mdrnn.main(["--mnist", "--smoke", "--seeds", "1"])
  printed = capsys.readouterr().out
  for name in ("pcd", "cdpl", "mp"):
    assert f"| {name} | ~" in printed and f"| {name}, 10 |" in printed
  assert "| hybrid | n/a |" in printed and "versions: mmfuse" in printed
  assert not list(tmp_path.iterdir())  # a smoke run commits nothing


@pytest.mark.slow
def test_overhead_bench(capsys):
  from experiments.bench import method_overhead

  method_overhead.main(["--smoke", "--methods", "mimo", "mmpareto"])
  rows = json.loads(capsys.readouterr().out)["rows"]
  assert set(rows) == {"joint", "mimo", "mmpareto"}
  assert rows["joint"]["flops"] == 1.0
  assert rows["mmpareto"]["flops"] > rows["mimo"]["flops"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoders", "gradient_rules"])
def test_bench_of_steps(name, capsys):
  module = importlib.import_module(f"experiments.bench.{name}")
  before = results()
  found = module.main(["--smoke"])
  assert "versions: mmfuse" in capsys.readouterr().out and results() == before
  assert found["processor"] and found["rows"]


@pytest.mark.slow
def test_dmrnet_smoke(capsys):
  from experiments import dmrnet

  before = results()
  dmrnet.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "\n| A+B+C | " in printed and "\n| dmrnet less dropout | " not in printed
  assert "\n| mean_head | " in printed and "\n| dmrnet | " in printed
  assert "versions: mmfuse" in printed and results() == before
  assert all(word in dmrnet.__doc__ for word in ("Claim", "Command:", "Expected:", "--smoke"))


def test_contrasts_of_dmrnet_are_paired_over_subsets():
  from experiments import _contrasts, dmrnet

  scores = {"dropout": ((0.5, 0.7), (0.4, 0.8)), "gaussian": ((0.7, 0.7), (0.6, 0.8))}
  records = [
    {
      "method": m,
      "seed": seed,
      "subsets": [
        {"modalities": ["a"], "score": alone, "rows": 9},
        {"modalities": ["a", "b"], "score": both, "rows": 9},
        {"modalities": ["b"], "score": None, "rows": 0},
      ],
    }
    for m, values in scores.items()
    for seed, (alone, both) in reversed(list(enumerate(values)))
  ]
  table = _contrasts.contrast_table(records, dmrnet.CONTRASTS)
  assert "| gaussian less dropout | n/a | +10.0 | +20.0 | +0.0 ± 0.0 |" in table
  assert "dmrnet less" not in table


def test_what_a_statistic_says_of_accuracy_by_hand():
  from experiments import dmrnet

  assert dmrnet.ordered([3.0, 2.0, 1.0], [0.1, 0.2, 0.3]) == 100.0
  assert dmrnet.ordered([1.0, 2.0, 3.0], [0.1, 0.2, 0.3]) == 0.0
  assert dmrnet.ordered([3.0, 2.0, 1.0], [0.2, 0.1, 0.1]) == 0.0  # of two pairs that differ
  assert dmrnet.ordered([1.0, 2.0], [0.1, 0.1]) == 50.0


@pytest.mark.slow
def test_missing_rows_smoke(capsys):
  from experiments import missing_rows

  before = results()
  missing_rows.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "\n| dropout_wide less dropout | n/a | " in printed and "shaspec less" not in printed
  assert "versions: mmfuse" in printed and results() == before


def test_encoders_of_twice_the_width():
  import flax.linen as nn

  from experiments import _wider
  from mmfuse import encoders
  from mmfuse.core import Unavailable

  found = _wider.widened(encoders.MLP(8, (4, 6), "batch"))
  assert found == encoders.MLP(16, (8, 12), "batch")
  assert _wider.widened(encoders.Conv1D(8, (3, 8))).widths == (6, 16)
  with pytest.raises(Unavailable, match="no widths of a Dropout"):
    _wider.widened(nn.Dropout(0.1))


@pytest.mark.slow
def test_mmanet_smoke(capsys):
  from experiments import mmanet

  before = results()
  mmanet.main(["--smoke"])
  printed = capsys.readouterr().out
  for part in ("digits", "rates", "teacher"):
    assert f"# mmanet: {part}" in printed
  for line in ("mmanet less dropout | n/a", "linear", "0.01", "mad off"):
    assert f"\n| {line} | " in printed
  assert "versions: mmfuse" in printed and results() == before
  said = ("Claim", "Command:", "Expected:", "--smoke", "--full", "experiments/results/mmanet_")
  assert all(word in mmanet.__doc__ for word in said)


def _over_subsets(scores):
  """Records of runs whose scores on a, on b and on both are given, the last seed first."""
  return [
    {
      "method": m,
      "seed": seed,
      "subsets": [
        {"modalities": names, "score": v} for names, v in zip((["a"], ["b"], ["a", "b"]), values)
      ],
    }
    for m, runs in scores.items()
    for seed, values in reversed(list(enumerate(runs)))
  ]


def test_contrasts_of_mmanet_are_paired_over_subsets():
  from experiments import _contrasts, mmanet

  dropout = ((0.3, 0.4, 0.5), (0.5, 0.4, 0.6))
  records = _over_subsets({"dropout": dropout, "mmanet": ((0.4, 0.4, 0.7), (0.6, 0.4, 0.8))})
  table = _contrasts.contrast_table(records, mmanet.PAIRS)
  # The mean (.5, .6) less (.4, .5); the worst (.4, .4) less (.3, .4); complete +20 twice.
  assert "| mmanet less dropout | n/a | +10.0 | +5.0 ± 63.5 | +20.0 |" in table
  assert "mmanet_mad_off" not in table and "joint" not in table


def test_rates_of_mmanet_stand_beside_a_larger_step():
  from experiments import mmanet

  of = lambda *means: [(v, v, v) for v in means]
  by_rate = {
    0.1: _over_subsets(dict.fromkeys(mmanet.AT_RATES, of(0.7, 0.9))),
    0.03: _over_subsets(
      {"dropout": of(0.5, 0.7), "mmanet": of(0.6, 0.8), "mmanet_mad_off": of(0.5, 0.7)}
    ),
  }
  first, second = mmanet.rate_table(by_rate).splitlines()[2:]
  assert first == "| 0.03 | 60.0 ± 127.1 | +10.0 | +0.0 ± 0.0 | +20.0 |"
  assert second.startswith("| 0.1 | 80.0 ± 127.1 | +0.0") and second.endswith("| n/a |")


@pytest.mark.slow
def test_mopoe_bench(capsys):
  from experiments.bench import mopoe_step

  mopoe_step.main(["--smoke"])
  found = json.loads(capsys.readouterr().out)
  assert found["mmfuse_ms"] > 0 and found["modalities"] == 2
  assert (found["ratio"] == "n/a") == (found["pytorch_ms"] == "n/a")


@pytest.mark.slow
def test_mmiai_smoke(capsys):
  from experiments import mmiai

  before = results()
  mmiai.main(["--smoke"])
  printed = capsys.readouterr().out
  assert "\n| joint ELBO, nats: after less before refinement | " in printed
  for base in ("control", "jmvae"):
    assert f"| probe of x0, points: mmiai less {base} | " in printed
  assert "versions: mmfuse" in printed and results() == before
  assert all(word in mmiai.__doc__ for word in ("Claim", "Command:", "Expected:", "--smoke"))


def test_contrasts_of_mmiai_are_paired_over_seeds():
  from experiments import mmiai

  def runs(*probes):
    of = lambda p: mmiai.Measured(-2.0 + p, -3.0, -1.0 - p, {"x0": p, "x1": p}, {}, {})
    return [of(p) for p in probes]

  found = {name: runs(0.5, 0.7) for name in mmiai.ROWS} | {"mmiai": runs(0.6, 0.8)}
  found["control"] = runs(0.6, 0.7)
  table = mmiai.contrasts(found)
  assert "| joint ELBO, nats: after less before refinement | 1.300 ± 1.271 |" in table
  assert "| probe of x0, points: mmiai less jmvae | 10.0 ± 0.0 |" in table
  assert "| probe of x1, points: mmiai less control | 5.0 ± 63.5 |" in table


@pytest.mark.slow
@pytest.mark.parametrize("part", ["products", "mixtures"])
def test_multimodal_vaes_smoke(part, capsys, tmp_path, monkeypatch):
  from experiments import multimodal_vaes

  monkeypatch.chdir(tmp_path)
  before = results()
  multimodal_vaes.main(["--smoke", "--part", part])
  printed = capsys.readouterr().out
  assert f"\n| {multimodal_vaes.PARTS[part][-1]} | -" in printed
  assert "| coherence given 1 | probe, mean | squared error, mean |" in printed
  assert "laplace(0.75) of m0 (as it is), m1 (as it is)" in printed
  assert "versions: mmfuse" in printed and results() == before
  doc = multimodal_vaes.__doc__
  assert all(word in doc for word in ("Claim", "Command:", "Expected:", "--smoke", "--full"))


@pytest.mark.slow
def test_wss_cmer_smoke(capsys):
  from experiments import wss_cmer

  before = results()
  wss_cmer.main(["--smoke"])
  printed = capsys.readouterr().out
  for row in ("cam (CE alone)", "+ ER + CMER + KL", "supervised"):
    assert f"\n| {row} | " in printed
  assert "\n| + ER + CMER + KL less cam (CE alone) | " in printed
  assert "interval above 0: " in printed
  assert "versions: mmfuse" in printed and results() == before
  said = ("Claim", "Command:", "Expected:", "--smoke", "--full", "experiments/results/wss_cmer.md")
  assert all(word in wss_cmer.__doc__ for word in said)


def test_contrasts_of_wss_cmer_are_paired_over_seeds():
  from experiments import wss_cmer

  def runs(*means):
    names = ("dice_of_slices/a", "dice_of_slices/b", "dice_of_slices")
    return [dict.fromkeys(names, v) for v in means]

  found = {"cam": runs(0.1, 0.2), "er": runs(0.1, 0.3), "full": runs(0.15, 0.25)}
  table = wss_cmer.contrasts(found)
  assert "| + ER + CMER + KL less cam (CE alone) | +5.0 ± 0.0 | +5.0 ± 0.0 | +5.0 ± 0.0 |" in table
  assert (
    "| + ER less cam (CE alone) | +5.0 ± 63.5 | " in table and "interval above 0: holds" in table
  )
  null = wss_cmer.contrasts({"cam": runs(0.1, 0.2), "full": runs(0.1, 0.3)})
  assert "does not hold: a null" in null
