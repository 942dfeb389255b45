"""The command line: every kind of bad input is one sentence and changes nothing on disk."""

import contextlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import pytest

from mmfuse import cli, data, methods

MINE = """
import flax.linen as nn
from mmfuse import methods

number = 3


class NeedsSize(nn.Module):
  size: int


def builder(model, learning_rate=0.03, *, decay=0.5):
  return methods.METHODS["joint"](model, learning_rate)


uneven = methods.of_rate(builder)._replace(rates=(0.1, 0.2))
wide = methods.of_rate(builder)._replace(grid={"decay": (0.1, 0.5)})
curious = methods.of_rate(builder)._replace(needs=("weather",))
"""


def _arrays(rows=30, **changes):
  rng = np.random.default_rng(0)
  made = {
    "label": np.arange(rows) % 2,
    "a": rng.normal(size=(rows, 4)),
    "b": rng.normal(size=(rows, 3)),
    **changes,
  }
  return {name: x for name, x in made.items() if x is not None}


@pytest.fixture
def place(tmp_path, monkeypatch):
  """The working folder, with good data and a user's file."""
  monkeypatch.chdir(tmp_path)
  np.savez("my.npz", **_arrays())
  pathlib.Path("mine.py").write_text(MINE)
  return tmp_path


def _listing(folder: pathlib.Path) -> dict[str, bytes | None]:
  """{path: content} of everything below a folder."""
  return {
    str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None
    for p in sorted(folder.rglob("*"))
  }


def _call(*argv) -> tuple[int, str, str]:
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = cli.main([str(a) for a in argv])
  return code, out.getvalue(), err.getvalue()


def _refused(place, *argv) -> str:
  """The one sentence of a command that must fail and write nothing."""
  before = _listing(place)
  code, out, err = _call(*argv)
  assert code == 2, (code, out, err)
  assert err.startswith("mmfuse: ") and err.endswith("\n") and err.count("\n") == 1, err
  assert "Traceback" not in err and not out, out
  assert _listing(place) == before
  return err


def _compare(place, *argv) -> str:
  return _refused(place, "compare", "--data", "my.npz", *argv)


# What is wrong with the arrays, and what the sentence must say.
BAD_ARRAYS = {
  "rows": (_arrays(b=np.zeros((29, 3))), ("'b'", "29", "30")),
  "mask rows": (_arrays(mask_b=np.ones(28, bool)), ("'mask_b'", "28", "30")),
  "mask of nothing": (_arrays(mask_c=np.ones(30, bool)), ("mask_c", "available: a, b")),
  "mask closest": (
    _arrays(audio=np.ones((30, 2)), mask_audo=np.ones(30, bool)),
    ("mask_audo", "closest: audio"),
  ),
  "mask of floats": (_arrays(mask_a=np.ones(30)), ("mask_a", "float64", "True = present")),
  "no label": (_arrays(label=None), ("'label'", "available: a, b")),
  "no modality": (_arrays(a=None, b=None), ("no modality",)),
  "empty label": (_arrays(0), ("label", "empty")),
  "one class": (_arrays(label=np.zeros(30, int)), ("one class", "at least two")),
  "label not 0/1": (
    _arrays(label=np.arange(60).reshape(30, 2)),
    ("multi-label", "0 and 1", "from 0 to 59"),
  ),
  "label nan": (_arrays(label=np.where(np.arange(30) == 7, np.nan, 1.0)), ("label", "row 7")),
  "empty split": (
    _arrays(split=np.asarray(["train"] * 20 + ["validation"] * 10)),
    ("test split is empty", "train 20, validation 10, test 0", "--folds 5"),
  ),
  "unknown split": (_arrays(split=np.asarray(["train"] * 29 + ["eval"])), ("'eval'", "row 29")),
  "straddling groups": (
    _arrays(split=np.arange(30) % 3, group=np.arange(30) % 10),
    ("10 of 10 groups stand in more than one part", "the first is 0", "--allow-straddling"),
  ),
  "strings": (_arrays(b=np.asarray(["x", "y"] * 15)), ("'b' holds strings", "--encoder b=embed")),
  "nan": (_arrays(a=np.where(np.arange(30)[:, None] == 4, np.nan, np.ones(4))), ("'a'", "row 4")),
  "infinity": (_arrays(a=np.where(np.arange(30)[:, None] == 5, np.inf, np.ones(4))), ("row 5",)),
  "absent": (
    _arrays(mask_a=np.arange(30) < 20, mask_b=np.arange(30) < 25),
    ("5 of 30 rows have no modality present", "row 25", "--drop-empty"),
  ),
  "few groups": (_arrays(group=np.arange(30) % 2), ("group", "2 different values", "3")),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(place, case):
  arrays, words = BAD_ARRAYS[case]
  np.savez("my.npz", **arrays)
  said = _compare(place)
  assert all(w in said for w in words), said


def test_a_file_that_is_not_there_or_no_archive(place):
  assert "there is no file 'no.npz'" in _refused(place, "compare", "--data", "no.npz")
  pathlib.Path("text.npz").write_text("a,b\n1,2\n")
  assert "'text.npz' is no .npz archive" in _refused(place, "compare", "--data", "text.npz")
  pathlib.Path("half.npz").write_bytes(pathlib.Path("my.npz").read_bytes()[:400])
  assert "'half.npz'" in _refused(place, "compare", "--data", "half.npz")
  pathlib.Path("table.csv").write_text("a,b\n")
  assert "no .npz archive" in _refused(place, "compare", "--data", "table.csv")


def test_arrays_of_objects_are_never_loaded(place):
  np.savez("objects.npz", label=np.arange(4) % 2, a=np.asarray([{}, 1, "x", None], object))
  said = _refused(place, "compare", "--data", "objects.npz")
  assert "'a'" in said and "Python objects are never loaded" in said


def test_an_unknown_data_set_gets_the_closest_name(place):
  assert "closest: watch_imu" in _refused(place, "compare", "--data", "watch_im")


# Options after `compare --data my.npz`, and what the sentence must say.
BAD_OPTIONS = {
  "--seeds 0": ("--seeds must be at least 1, got 0",),
  "--epochs -1": ("--epochs must be at least 1, got -1",),
  "--batch-size 0": ("--batch-size must be at least 1, got 0",),
  "--threads 0": ("--threads must be at least 1",),
  "--patience 0": ("--patience must be at least 1",),
  "--seeds nan": ("--seeds", "nan"),
  "--epochs nan": ("--epochs", "nan"),
  "--batch-size nan": ("--batch-size", "nan"),
  "--epochs 1.5": ("--epochs", "1.5"),
  "--epochs many": ("--epochs", "many"),
  "--tune 1 --learning-rate nan": ("--learning-rate must be a positive number, got nan",),
  "--tune 1 --learning-rate -0.1": ("--learning-rate must be a positive number, got -0.1",),
  "--tune 1 --learning-rate 0": ("--learning-rate must be a positive number, got 0.0",),
  "--tune 1 --learning-rate inf": ("--learning-rate must be a positive number, got inf",),
  "--learning-rate 0.1": ("needs --tune 1",),
  "--tune 2": ("--tune takes 1, 3 or 9 trials, got 2",),
  "--folds 2": ("--folds needs at least 3", "got 2"),
  "--folds 31": ("folds=31", "30 rows"),
  "--weight-decay -1": ("--weight-decay must not be negative, got -1.0",),
  "--weight-decay nan": ("--weight-decay", "nan"),
  "--checkpoint-seconds nan": ("--checkpoint-seconds", "nan"),
  "--train-size 10": ("train_size",),
  "--methods mimoo": ("unknown method 'mimoo'; closest: mimo",),
  "--methods ,": ("--methods names no method",),
  "--methods no.py:f": ("'no.py:f'", "there is no file 'no.py'"),
  "--methods mine.py:bilder": ("mine.py has no 'bilder'; closest: builder",),
  "--methods mine.py:": ("expected file.py:name, got 'mine.py:'",),
  "--methods mine.py:number": ("is a int, expected a builder",),
  "--methods mine.py:uneven": ("2 rates, every row tries 3",),
  "--methods mine.py:wide": ("one name with three values",),
  "--methods mine.py:curious": ("needs 'weather', but builders are told only task,",),
  "--set mimo": ("--set takes method.name=value, got 'mimo'",),
  "--set mimo.lm=2": ("method 'mimo' has no option 'lm'; closest: lam",),
  "--set mino.lam=2": ("--set names 'mino'", "closest: mimo"),
  "--set joint.lam=2": ("method 'joint' has no option 'lam'",),
  "--set mimo.lam=nan": ("--set mimo.lam must be a finite number, got nan",),
  "--set mimo.lam=-2": ("--set mimo: ", "lam"),
  "--set mimo.lam=big": ("--set mimo: ",),
  "--encoder a": ("--encoder takes name=value, got 'a'",),
  "--encoder c=mlp": ("'c'", "available: a, b"),
  "--encoder a=mlpp": ("unknown encoder 'mlpp'", "closest: mlp"),
  "--encoder a=conv1d": ("'conv1d' takes floats of rank 3",),
  "--encoder a=embedding": ("'a' is float64", "embedding reads integers"),
  "--encoder a=mine.py:None": ("mine.py has no 'None'",),
  "--encoder a=no.py:Net": ("there is no file 'no.py'",),
  "--encoder a=mine.py:number": ("is a int, expected a Linen module",),
  "--encoder a=mine.py:NeedsSize": ("the class needs arguments", "size"),
  "--ignore c": ("ignore names 'c', which is no modality", "available: a, b"),
  "--modalities a,c": ("modalities names 'c', which is no modality",),
  "--modalities ,": ("modalities leaves no modality",),
  "--modalities a --ignore b": ("(--modalities, --ignore)", "expected one of them"),
  "--weighted-scores": ("--weighted-scores", "needs an array 'weight'"),
  "--class-weights balansed": ("--class-weights", "balansed"),
  "--class-weights balanced --task regression": ("class weights are for classes",),
  "--fusion conact": ("unknown fusion 'conact'; closest: concat",),
  "--select acuracy": ("--select has no metric 'acuracy'", "accuracy"),
  "--task regresion": ("--task", "regresion"),
  "--optimizer rms": ("--optimizer", "rms"),
  "--resume": ("--resume: there is no run in 'results/my'",),
  "--out my.npz": ("--out 'my.npz' is a file, expected a folder",),
  "--out my.npz/deep/run": ("--out 'my.npz/deep/run' cannot be written", "my.npz"),
  "--out .": ("--out '.' is the working folder or above it",),
  "--out ..": ("--out '..' is the working folder or above it",),
  "--sedes 3": ("--sedes",),
  "extra": ("extra",),
}


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_bad_options(place, options):
  said = _compare(place, *options.split())
  assert all(w in said for w in BAD_OPTIONS[options]), said


def test_a_users_file_that_cannot_be_imported_is_one_sentence(place):
  pathlib.Path("syntax.py").write_text("def f(:\n")
  assert "'syntax.py' cannot be imported: SyntaxError" in _compare(
    place, "--methods", "syntax.py:f"
  )
  pathlib.Path("raises.py").write_text("1 / 0\n")
  assert "'raises.py' cannot be imported: ZeroDivisionError" in _compare(
    place, "--methods", "raises.py:f"
  )


def test_a_file_with_a_newline_in_its_name_still_makes_one_line(place):
  assert "there is no file" in _refused(place, "compare", "--data", "two\nlines.npz")


def test_two_methods_of_one_name_are_refused(place):
  pathlib.Path("own.py").write_text("def joint(model, learning_rate=.03):\n  return None\n")
  assert "two methods are called 'joint'" in _compare(place, "--methods", "joint,own.py:joint")


def test_a_folder_that_may_not_be_written_is_refused(place, monkeypatch):
  access = os.access
  monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
  assert "cannot be written" in _compare(place, "--out", "run")


def test_folds_by_group_need_as_many_groups(place):
  np.savez("my.npz", **_arrays(group=np.arange(30) % 4))
  said = _compare(place, "--folds", "5")
  assert "folds=5 is more than the 4 groups" in said


def test_other_commands_refuse_in_one_sentence_too(place):
  assert "there is no run in 'nowhere'" in _refused(place, "predict", "nowhere", "--data", "my.npz")
  assert "'my.npz' exists; nothing is overwritten" in _refused(
    place, "predict", "nowhere", "--data", "my.npz", "--out", "my.npz"
  )
  assert "there is no folder 'no'" in _refused(
    place, "predict", "nowhere", "--data", "my.npz", "--out", "no/p.csv"
  )
  assert "unknown method 'mimoo'; closest: mimo" in _refused(place, "cite", "mimoo")
  (place / "empty").mkdir()
  assert "there is no run in 'empty'" in _refused(place, "cite", "empty")
  assert "unknown command 'compar'; closest: compare" in _refused(place, "compar")


@pytest.mark.parametrize("file", ["run.json", "results.jsonl"])
def test_a_broken_run_is_refused(place, file):
  run = place / "run"
  run.mkdir()
  (run / "run.json").write_text("{}")
  (run / "results.jsonl").write_text("")
  (run / "schema.json").write_text("{}")
  (run / file).write_text('{"form')
  said = _refused(place, "predict", "run", "--data", "my.npz")
  assert file in said


def test_methods_lists_the_index(place):
  code, out, _ = _call("methods", "--json")
  rows = json.loads(out)
  assert code == 0 and [r["name"] for r in rows] == list(methods.METHODS)
  fields = ["name", "kind", "family", "fidelity", "paper", "reads_validation", "file"]
  assert all(list(r) == fields for r in rows)
  code, out, _ = _call("methods")
  assert code == 0 and all(name in out for name in methods.METHODS)


def test_data_lists_the_sets(place):
  code, out, _ = _call("data", "--json")
  rows = json.loads(out)
  assert code == 0 and [r["name"] for r in rows] == sorted(data.DATASETS)
  assert all(set(r) == {"name", "what", "size", "licence", "how"} for r in rows)
  code, out, _ = _call("data")
  assert code == 0 and "watch_imu" in out
  assert "mmfuse[datasets]" in "".join(out.split())  # brackets are text, no markup


def test_cite_prints_bibtex_or_says_that_there_is_nothing(place):
  code, out, _ = _call("cite", "ogm_ge")
  assert code == 0 and out.startswith("@inproceedings{peng2022balanced")
  assert _call("cite", "joint")[:2] == (0, "% joint: nothing to cite\n")


def test_a_pipe_shows_a_line_when_it_is_said():
  pipe = io.BytesIO()
  out = io.TextIOWrapper(pipe, encoding="utf-8")
  with contextlib.redirect_stdout(out):
    assert cli.main(["cite", "joint"]) == 0
  assert pipe.getvalue() == b"% joint: nothing to cite\n"  # and nobody has flushed it


def test_help_and_no_command_at_all(place):
  code, out, _ = _call("--help")
  assert code == 0 and all(name in out for name in cli.COMMANDS)
  assert _call()[0] == 0
  code, out, _ = _call("compare", "--help")
  assert code == 0 and all(
    f"--{o}" in out
    for o in (
      "methods",
      "set",
      "seeds",
      "folds",
      "tune",
      "epochs",
      "batch-size",
      "learning-rate",
      "select",
      "threads",
      "out",
      "resume",
      "smoke",
      "drop-empty",
      "allow-straddling",
      "encoder",
      "task",
      "checkpoint-seconds",
    )
  )


def test_python_m_mmfuse_is_the_entry_point(place, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["mmfuse", "methods", "--json"])
  with pytest.raises(SystemExit) as stop:
    runpy.run_module("mmfuse", run_name="__main__")
  assert stop.value.code == 0
  assert [r["name"] for r in json.loads(capsys.readouterr().out)] == list(methods.METHODS)


def test_threads_are_limited_only_before_jax_runs(place, monkeypatch):
  kept = []
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
  monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: kept.append(cores), raising=False)
  err = io.StringIO()
  with contextlib.redirect_stderr(err):
    cli._limit_threads(2)
  assert not kept and "no effect once JAX is running" in err.getvalue()
  monkeypatch.delitem(sys.modules, "jax")
  cli._limit_threads(2)
  assert kept == [[0, 1]]


def test_what_is_no_bad_input_keeps_its_traceback(place, monkeypatch):
  from mmfuse import protocol

  def run(cfg, command):
    raise ValueError("a mistake of ours")

  monkeypatch.setattr(protocol, "run", run, raising=False)
  with pytest.raises(ValueError, match="a mistake of ours"):
    _call("compare", "--data", "my.npz")


def test_a_reader_that_goes_away_is_no_traceback():
  command = f"{sys.executable} -m mmfuse methods --json | head -n 1; echo ${{PIPESTATUS[0]}}"
  said = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
  assert "Traceback" not in said.stderr and said.stdout.split()[-1] in ("0", "141")
