"""From names to rows: equal budgets, options, models."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from mmfuse import data, encoders, fusion, methods, train
from mmfuse.core import Batch, Sequence
from mmfuse.protocol import Compare, UsageError
from mmfuse.protocol import _model as model_lib
from mmfuse.protocol import _rows as rows
from mmfuse.protocol._built import Built, defined
from mmfuse.protocol._rows import Trial

KEY = jax.random.key(0)
BATCH = Batch(
  {m: np.ones((4, 2), np.float32) for m in "ab"},
  np.array([0, 1, 0, 1]),
  {m: np.ones(4, bool) for m in "ab"},
  np.ones(4, np.float32),
  np.arange(4),
)
NEEDY = """
from mmfuse import methods, objectives, train


def build(model, tx, *, task, learning_rate):
  method = train.supervised(model, objectives.fused, tx)
  return method._replace(functions={"told": (task, learning_rate)})


needy = methods.Entry(build, needs=("task", "learning_rate"))


def bare(model, learning_rate):
  return train.supervised(model, objectives.fused, train.sgd(learning_rate))
"""


def _rows(task="classification", **options):
  return rows.make_rows(Compare(**options), ("b", "a"), task)


@pytest.mark.parametrize("tune", [1, 3, 9])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_row_has_as_many_trials_all_different(tune, optimizer):
  made, _ = _rows(methods=("all",), tune=tune, optimizer=optimizer)
  for row in made:
    trials = row.trials(Compare(tune=tune, optimizer=optimizer))
    assert len(trials) == len(set(trials)) == tune


def test_nine_trials_are_rates_by_values_or_nine_rates():
  cfg = Compare(tune=9)
  made = {r.name: r for r in _rows(methods=("mimo", "joint"))[0]}
  grid = methods.METHODS["mimo"].grid["lam"]
  assert set(made["mimo"].trials(cfg)) == {
    Trial(r, (("lam", v),)) for r in (0.01, 0.03, 0.1) for v in grid
  }
  nine = np.geomspace(0.01, 0.1, 9)  # within the range of the others
  rates = lambda row, cfg: [t.rate for t in row.trials(cfg)]
  np.testing.assert_allclose(rates(made["joint"], cfg), nine, rtol=1e-5)
  (fixed,), _ = _rows(methods=("mimo",), set=("mimo.lam=2",))
  assert rates(fixed, cfg) == rates(made["joint"], cfg)
  adam = Compare(tune=9, optimizer="adam")
  np.testing.assert_allclose(rates(made["joint"], adam), nine / 30, rtol=1e-5)


def test_a_builder_with_rates_of_its_own_gets_three_or_nine_of_them():
  entry = methods.METHODS["joint"]._replace(rates=(1e-4, 3e-4, 1e-3))
  row = rows.Row("own", entry, {})
  assert [t.rate for t in row.trials(Compare())] == [1e-4, 3e-4, 1e-3]
  nine = [t.rate for t in row.trials(Compare(tune=9))]
  np.testing.assert_allclose(nine, np.geomspace(1e-4, 1e-3, 9), rtol=1e-5)
  assert [t.rate for t in row.trials(Compare(tune=1, learning_rate=0.5))] == [0.5]


def test_unimodal_is_a_row_per_modality_and_words_count_once():
  made, unavailable = _rows(methods=("joint,unimodal", "joint"))
  assert [r.name for r in made] == ["joint", "unimodal/a", "unimodal/b"] and not unavailable
  assert [r.fixed for r in made] == [{}, {"modality": "a"}, {"modality": "b"}]
  assert [r.slug for r in made] == ["joint", "unimodal-a-744ab874", "unimodal-b-4064a5f7"]


def test_settings_of_a_row_that_is_undefined_for_the_model_leave_it_a_reason():
  settings = ("bogc_laplace.evidence_scale=.2",)
  cfg = Compare(methods=("joint", "bogc_laplace"), set=settings, epochs=3, batch_size=8)
  made, unavailable = _rows(methods=cfg.methods, set=cfg.set)
  pair = {"a": encoders.MLP(3), "b": encoders.MLP(3)}
  gated = fusion.LateFusion(pair, 2, fusion.Gated())
  assert [r.name for r in defined(Built(cfg, gated), made, unavailable)] == ["joint"]
  assert "concat or sum, got Gated" in unavailable["bogc_laplace"]


def test_a_value_that_a_rule_refuses_is_told_from_a_row_that_fails_anyway():
  pair = fusion.LateFusion({"a": encoders.MLP(3), "b": encoders.MLP(3)}, 2)

  def build(model, tx, *, size=1, broken=False):
    if broken or size < 0:
      raise ValueError("broken" if broken else "size must not be negative")
    return methods.METHODS["joint"].build(model, tx)

  cfg = Compare(set=("own.size=-1",), epochs=3, batch_size=8)
  entry = methods.Entry(build)
  good, fails = (
    rows.Row("own", entry, {"size": -1, "broken": b}, source="x") for b in (False, True)
  )
  with pytest.raises(UsageError, match="--set own: size must not be negative"):
    defined(Built(cfg, pair), [good], {})
  assert defined(Built(cfg, pair), [fails], {}) == [fails]  # its training says why


def test_a_row_that_cannot_run_on_such_labels_is_a_reason():
  made, unavailable = _rows("regression", methods=("joint", "ogm", "ogm_ge"))
  assert [r.name for r in made] == ["joint"]
  why = "needs classification or multilabel labels, these are regression"
  assert unavailable == {"ogm": why, "ogm_ge": why}
  assert _rows("regression", methods=("joint,ogm",), set=("ogm.alpha=.2",))[1] == {"ogm": why}


def test_late_average_is_told_the_task():
  (row,), _ = _rows("multilabel", methods=("late_average",))
  assert row.fixed == {"task": "multilabel"}


def test_a_row_asked_for_by_two_names_is_one_row_and_it_is_said():
  for words in (("joint,inter",), ("inter", "joint"), ("inter",)):
    made, unavailable = _rows(methods=words)
    assert [r.name for r in made] == ["joint"] and not unavailable
    (said,) = rows.alias_notes(Compare(methods=words))
    assert said == (
      "inter is joint, as in Madaan et al., NeurIPS 2024: trained and shown once, as joint"
    )
  assert rows.alias_notes(Compare(methods=("joint", "all"))) == []


def test_an_entry_of_a_users_file_gets_the_shared_optimiser_and_what_it_needs(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(NEEDY)
  cfg = Compare(methods=(f"{file}:needy", f"{file}:bare"), weight_decay=0.5)
  needy, bare = rows.make_rows(cfg, ("b", "a"), "multilabel")[0]
  assert needy.fixed == {"task": "multilabel"} and bare.fixed == {}
  pair = fusion.LateFusion({"a": encoders.MLP(3), "b": encoders.MLP(3)}, 2)
  state = lambda row: train.initial(row.build(cfg, pair, Trial(0.1)), KEY, BATCH)
  decayed, plain = (len(state(row).opt["train"]["tx"]) for row in (needy, bare))
  assert decayed == plain + 1  # the link of the weight decay
  assert needy.build(cfg, pair, Trial(0.1)).functions["told"] == ("multilabel", 0.1)


def test_the_hash_of_a_row_sees_its_own_settings_only():
  alone, with_more = Compare(methods=("mimo",)), Compare(methods=("mimo", "joint"), seeds=5)
  (row,), _ = _rows(methods=("mimo",))
  (other,), _ = _rows(methods=("mimo",), set=("mimo.lam=2",))
  assert rows.config_hash(row.config(alone)) == rows.config_hash(row.config(with_more))
  assert rows.config_hash(row.config(alone)) != rows.config_hash(other.config(alone))
  assert rows.config_hash(row.config(alone)) != rows.config_hash(row.config(Compare(epochs=3)))


def test_default_and_smoke():
  assert rows.method_words(Compare()) == list(methods.DEFAULT)
  assert rows.method_words(Compare(smoke=True)) == list(methods.SMOKE)
  every, heads = (rows.method_words(Compare(methods=(word,))) for word in ("all", "heads"))
  left_out = ("custom", "inter")  # by name only; another name of `joint`
  assert every + list(fusion.FUSIONS) == [n for n in methods.METHODS if n not in left_out]
  assert heads == [
    "joint",
    *(name for name in fusion.FUSIONS if name != "concat"),
  ]  # `joint` is concat


def test_a_family_brings_its_rows_but_those_by_name_only_and_aliases():
  words = lambda *given: rows.method_words(Compare(methods=given))
  assert words("baselines,balancing")[:4] == ["unimodal", "joint", "uniform", "ogm"]
  assert set(words("balancing")) == {
    n for n, e in methods.METHODS.items() if e.family == "balancing"
  }
  assert "custom" not in words("missing") and words("ensembles", "i2m2").count("i2m2") == 1
  assert set(methods.FAMILY_NAMES) & set(methods.METHODS) == set()


def test_the_model_takes_an_encoder_by_rank_by_name_or_of_the_user(finished, tmp_path):
  file = tmp_path / "net.py"
  file.write_text(
    "from mmfuse import encoders\n\n\nclass Net(encoders.MLP):\n  features: int = 5\n"
  )
  splits = finished.fits[0]["splits"]
  cfg = Compare(encoder=(f"a={file}:Net",))
  own = dataclasses.replace(splits, encoders=model_lib.encoder_choices(cfg))
  model = model_lib.make_model(own, "sum")
  assert type(model.encoders["a"]).__name__ == "Net" and model.encoders["a"].features == 5
  assert type(model.encoders["b"]).__name__ == "MLP"
  assert type(model.fusion).__name__ == "Sum" and model.num_classes == 2


def test_a_fusion_that_attends_to_steps_gets_them_unless_the_module_is_the_users(finished):
  splits = finished.fits[0]["splits"]
  x = np.zeros((6, 9, 2), np.float32)
  inputs = {"a": x, "b": Sequence(x, np.full(6, 9))}
  splits = splits.with_parts(train=splits.train.replace(inputs=inputs))
  splits = dataclasses.replace(splits, encoders={"b": "conv1d"})
  pools = lambda splits, name: {
    m: e.pool for m, e in model_lib.make_model(splits, name).encoders.items()
  }
  assert pools(splits, "perceiver") == {"a": "none", "b": "none"}
  assert pools(splits, "concat") == {"a": "segments", "b": "segments"}
  own = dataclasses.replace(splits, encoders={"b": encoders.Conv1D()})
  assert pools(own, "mult") == {"a": "none", "b": "segments"}


NETS = """
import flax.linen as nn
import jax.numpy as jnp
from flax import nnx


class New(nnx.Module):
  def __init__(self, in_features, *, rngs):
    self.dense = nnx.Linear(in_features, 3, rngs=rngs)

  def __call__(self, x):
    return self.dense(x)


class Dict(nn.Module):
  def __call__(self, x, mask, *, train):
    return {"h": x}


class Many(nn.Module):
  width: int

  def __call__(self, x):
    return x
"""


def test_a_users_module_is_taken_or_refused_at_the_door(finished, tmp_path):
  file = tmp_path / "nets.py"
  file.write_text(NETS)
  splits = finished.fits[0]["splits"]
  check = lambda name: model_lib.checked_model(
    dataclasses.replace(
      splits, encoders=model_lib.encoder_choices(Compare(encoder=(f"a={file}:{name}",)))
    ),
    "concat",
    splits.task,
  )
  said, remarks = model_lib.said_of_encoders(splits, check("New"))
  assert said["a"] == "[4] -> New, 15 parameters" and not remarks
  with pytest.raises(
    UsageError, match=r"encoder of 'a' \(Dict\) returned a dict, expected one array"
  ):
    check("Dict")
  with pytest.raises(UsageError, match=r"nets\.py:Many: the class needs arguments"):
    check("Many")
  with pytest.raises(
    UsageError, match=r"nets\.py:jnp: the encoder of 'a' \(.*\) is a module, expected"
  ):
    check("jnp")


def test_what_was_chosen_is_printed_recorded_and_in_the_table(finished):
  said = "[4] -> mlp, 4.7k parameters"
  assert json.loads((finished.run / "run.json").read_text())["encoders"] == {"a": said, "b": said}
  note = f"encoders: a {said}; b {said}"
  assert f"note: {note}\n" in finished.said.out
  assert note in (finished.run / "table.md").read_text()


def test_a_method_that_is_undefined_for_the_model_is_told_apart():
  """bogc_laplace needs a linear fused head; what fails otherwise is left to its row."""
  cfg = Compare(methods=("joint", "bogc_laplace"), epochs=3, batch_size=8)
  made, unavailable = _rows(methods=cfg.methods)
  pair = {"a": encoders.MLP(3), "b": encoders.MLP(3)}
  kept = defined(Built(cfg, fusion.LateFusion(pair, 2, fusion.Gated())), made, unavailable)
  assert [r.name for r in kept] == ["joint"]
  assert "concat or sum, got Gated" in unavailable["bogc_laplace"]
  assert len(defined(Built(cfg, fusion.LateFusion(pair, 2)), made, {})) == 2


def test_a_fusion_of_class_distributions_is_refused_for_other_labels():
  splits = data.from_arrays(
    {"a": np.zeros((12, 2)), "label": np.linspace(0, 1, 12), "split": np.repeat([0, 1, 2], 4)}
  )
  assert model_lib.checked_model(splits, "tensor", splits.task).num_classes == 1
  with pytest.raises(
    UsageError, match="product_of_experts needs classification labels, these are regr"
  ):
    model_lib.checked_model(splits, "product_of_experts", splits.task)
  _, unavailable = _rows("regression", methods=("heads",))
  assert set(unavailable) == {"product_of_experts", "mixture_of_experts", "confidence", "cosine"}


def test_rates_of_plain_gradients_are_not_given_to_adam():
  made, unavailable = _rows(methods=("joint", "mdrnn"), optimizer="adam")
  assert [r.name for r in made] == ["joint"] and "--optimizer sgd" in unavailable["mdrnn"]


def test_a_method_with_more_phases_than_epochs_sees_more_examples_and_it_is_said(capsys):
  model = fusion.LateFusion({"a": encoders.MLP(3), "b": encoders.MLP(3)}, 2)
  few, enough = (Compare(methods=("joint", "i2m2"), epochs=n, batch_size=8) for n in (3, 4))
  made, unavailable = _rows(methods=few.methods)
  assert len(defined(Built(few, model), made, unavailable)) == 2 and not unavailable
  assert "i2m2 has 4 phases" in (said := capsys.readouterr().out) and "--epochs 4" in said
  defined(Built(enough, model), made, {})
  assert not capsys.readouterr().out


# Rows of a modality that some part lacks.


def _lacking(part=None, labelled=True, **options):
  """Reasons of the rows on data whose `b` is in no row of a part."""
  split = np.arange(60) % 3
  arrays = {"a": np.ones((60, 2)), "b": np.ones((60, 2)), "label": np.arange(60) // 3 % 2}
  if part is not None:
    arrays["mask_b"] = split != part
  splits = {None: data.from_arrays({**arrays, "split": split})}
  if not labelled:
    validation = splits[None].validation
    known = splits[None].validation.replace(labelled=np.zeros(len(validation.index), bool))
    splits = {None: splits[None].with_parts(validation=known)}
  made, unavailable = _rows(methods=("unimodal,late_average,joint",))
  kept = rows.present(made, splits, unavailable)
  assert {r.name for r in made} == {r.name for r in kept} | set(unavailable)
  return unavailable


def test_a_modality_that_a_part_lacks_has_no_row_of_its_own():
  assert _lacking() == {}
  for part, of in enumerate(("training", "validation", "test")):
    assert _lacking(part) == {"unimodal/b": f"b is in no {of} row"}
  assert _lacking(2, labelled=False) == {
    "unimodal/a": "a is in no validation row with a label",
    "unimodal/b": "b is in no validation row with a label",
  }


def test_a_fold_that_lacks_a_modality_is_named():
  group = np.arange(60) % 5
  arrays = {"a": np.ones((60, 2)), "b": np.ones((60, 2)), "label": np.arange(60) // 5 % 2}
  table = data.table_from_arrays({**arrays, "group": group, "mask_b": group == 0})
  splits = {fold: table.splits(fold=fold, folds=5) for fold in range(5)}
  made, unavailable = _rows(methods=("unimodal",))
  assert [r.name for r in rows.present(made, splits, unavailable)] == ["unimodal/a"]
  assert unavailable["unimodal/b"] in [
    f"b is in no {part} row of fold 0" for part in ("training", "validation")
  ]
