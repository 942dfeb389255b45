"""What a comparison is asked to do."""

import pytest

from mmfuse.protocol import Compare, UsageError
from mmfuse.protocol import _config as config


def test_the_rates_of_the_search():
  assert Compare().first_rates == (0.01, 0.03, 0.1)
  assert Compare(optimizer="adam").first_rates == pytest.approx((0.01 / 30, 0.001, 0.1 / 30))
  assert Compare(tune=1).first_rates == (0.03,)
  assert Compare(tune=1, learning_rate=0.2).first_rates == (0.2,)
  named = Compare(rates=(0.3, 0.1, 0.3))
  named.check()
  assert named.first_rates == (0.1, 0.3)
  for wrong in ({"tune": 9}, {"tune": 1, "learning_rate": 0.2}):
    with pytest.raises(UsageError, match="it goes with neither --tune nor --learning-rate"):
      Compare(rates=(0.1,), **wrong).check()


def test_numeric_leaves_out_where_and_how_fast():
  asked = Compare(missing=True, scale=("a=raw",), likelihood=("laplace",))
  left = set(Compare.__dataclass_fields__) - set(asked.numeric())
  assert left == {"data", "data_dir", "out", "resume", "threads", "checkpoint_seconds", "probe"}
  without = set(asked.numeric()) - set(Compare().numeric())  # as in runs of before
  assert without == {
    "scale",
    "likelihood",
    "missing",
    "missing_rate",
    "missing_kind",
    "missing_train",
  }


def test_words_and_values():
  assert config.split_words(("a,b", "c d", ",")) == ["a", "b", "c", "d"]
  values = {"2": 2, ".5": 0.5, "1e-3": 1e-3, "true": True, "ema": "ema", "null": None}
  assert {k: config.parse_value(k) for k in values} == values
  assert config.parse_settings(("mimo.lam=2,ogm.alpha=.1", "mimo.x=y")) == {
    "mimo": {"lam": 2, "x": "y"},
    "ogm": {"alpha": 0.1},
  }
  assert config.parse_settings(
    ("early.hidden=[64,32],multiplicative.clip=[-1, 1]", "joint.x=2")
  ) == {"early": {"hidden": (64, 32)}, "multiplicative": {"clip": (-1, 1)}, "joint": {"x": 2}}
  assert config.parse_pairs(("a=b", "c=d.py:E"), "--encoder") == {"a": "b", "c": "d.py:E"}


def test_a_name_with_blanks_can_be_given_an_encoder():
  pairs = lambda *words: config.parse_pairs(words, "--encoder")
  assert pairs("heart rate=gru") == {"heart rate": "gru"}
  assert (
    pairs("a=mlp b=gru")
    == pairs("a=mlp,b=gru")
    == pairs("a=mlp", "b=gru")
    == {"a": "mlp", "b": "gru"}
  )
  assert pairs("a=mlp, heart rate=gru c=lstm") == {"a": "mlp", "heart rate": "gru", "c": "lstm"}
  assert pairs("x, y=mlp") == {"x, y": "mlp"}
  assert pairs("a=my nets/mine.py:Net") == {"a": "my nets/mine.py:Net"}
  for words, sentence in (
    (("gru",), "takes name=value, got 'gru'"),
    (("=gru",), "got '=gru'"),
    (("a=",), "got 'a='"),
    (("a=mlp", "a=gru"), "'a' twice: mlp and gru"),
  ):
    with pytest.raises(UsageError, match=sentence):
      pairs(*words)


def test_help_names_every_encoder(capsys):
  from mmfuse import encoders
  from mmfuse.cli import main

  assert main(["compare", "--help"]) == 0
  said = capsys.readouterr().out.partition("--encoder")[2].partition("--fusion")[0]
  words = {w.strip(".,│|") for w in said.split()}
  assert {*encoders.NAMES, "embedding"} <= words
