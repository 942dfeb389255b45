"""What is kept on disk, and what is refused when it is continued."""

import json
import os

import pytest

from mmfuse.protocol import UsageError
from mmfuse.protocol._store import FORMAT, Store, read_json, read_own, write_json

INFO = {
  "methods": ["joint", "uniform"],
  "command": "mmfuse compare",
  "format": FORMAT,
  "config": {"epochs": 2, "seeds": 3},
  "sources": {"mine.py:rule": "abc"},
  "data_fingerprint": "f" * 64,
  "versions": {"cpu_count": 2, "device_count": 1, "XLA_FLAGS": "", "jax": "1"},
}


def test_json_is_written_whole_and_a_broken_file_is_named(tmp_path):
  path = tmp_path / "deep" / "x.json"
  write_json(path, {"b": 0.1, "a": None})
  assert read_json(path) == {"b": 0.1, "a": None}
  assert [p.name for p in path.parent.iterdir()] == ["x.json"]
  path.write_text("{")
  with pytest.raises(UsageError, match=r"x\.json' is broken"):
    read_json(path)


def test_json_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(os, "fsync", lambda file: seen.append((tmp_path / "x.json").exists()))
  write_json(tmp_path / "x.json", 1)
  assert seen == [False] and read_json(tmp_path / "x.json") == 1


@pytest.mark.parametrize("out", ["run", "run/", "deep/run", "./run"])
def test_what_is_there_is_moved_aside_every_time(tmp_path, monkeypatch, out):
  monkeypatch.chdir(tmp_path)
  for text in ("first", "second", "third"):
    store = Store.open(out, resume=False)
    (store.folder / "text").write_text(text)
    store.close()
  name = store.folder
  read = lambda p: (p / "text").read_text()
  assert read(name) == "third"
  assert read(name.with_name("run-1")) == "first" and read(name.with_name("run-2")) == "second"


def test_an_empty_folder_is_taken(tmp_path):
  (tmp_path / "run").mkdir()
  Store.open(str(tmp_path / "run"), resume=False).close()
  assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_same_run_is_continued_and_other_machines_are_warned_of(tmp_path, capsys):
  store = Store.open(str(tmp_path / "run"), resume=False)
  assert store.start(INFO, resume=False) == INFO
  store.close()
  again = Store.open(str(tmp_path / "run"), resume=True)
  assert again.start(INFO, resume=True) == INFO
  assert capsys.readouterr().err == ""
  other = {**INFO, "versions": {**INFO["versions"], "cpu_count": 8}}
  assert again.start(other, resume=True) == INFO
  assert capsys.readouterr().err == (
    "warning: cpu_count is 8, the run was begun with 2: its numbers may differ in the last digits\n"
  )


@pytest.mark.parametrize(
  "change, words",
  [
    ({"data_fingerprint": "e" * 64}, "the data differ .eeeeeeeeeeee, there ffffffffffff"),
    ({"config": {"epochs": 4, "seeds": 3}}, "the configuration differs in epochs;"),
    ({"config": {"epochs": 2, "seeds": 3, "new": 1}}, "the configuration differs in new;"),
    ({"sources": {"mine.py:rule": "abd"}}, "the code of 'mine.py:rule' was edited"),
  ],
)
def test_another_run_is_refused(tmp_path, change, words):
  store = Store(tmp_path)
  store.start(INFO, resume=False)
  with pytest.raises(
    UsageError, match=words.replace("differ .", r"differ from those of the run \(")
  ):
    store.start({**INFO, **change}, resume=True)
  assert json.loads((tmp_path / "run.json").read_text()) == INFO


def test_more_methods_may_join_and_those_not_named_stay(tmp_path):
  store = Store(tmp_path)
  store.start(INFO, resume=False)
  more = {**INFO, "methods": ["joint", "uniform", "mimo"], "command": "another"}
  more["config"] = {**INFO["config"], "methods": more["methods"]}
  assert store.start({**more, "date": "later"}, resume=True) == more
  assert json.loads((tmp_path / "run.json").read_text()) == more
  assert store.start({**INFO, "methods": ["mimo"], "sources": {}}, resume=True) == more
  grown = store.start({**INFO, "methods": ["ogm", "mimo"], "sources": {}}, resume=True)
  assert grown["methods"] == grown["config"]["methods"] == ["ogm", "mimo", "joint", "uniform"]
  assert grown["sources"] == INFO["sources"]


def test_a_file_of_another_configuration_is_named(tmp_path):
  path = tmp_path / "x.json"
  write_json(path, {"row": "a", "hyper": {"h": [1, 2]}, "log": 1})
  assert read_own(path, {"row": "a", "hyper": {"h": (1, 2)}})["log"] == 1
  with pytest.raises(
    UsageError, match=r"x\.json' is not of this run: its row is 'a', expected 'b'"
  ):
    read_own(path, {"row": "b"})
  with pytest.raises(UsageError, match="its seed is None, expected 0"):
    read_own(path, {"seed": 0})
  write_json(path, [1])
  with pytest.raises(UsageError, match="not of this run"):
    read_own(path, {"row": "a"})


def test_another_format_is_refused(tmp_path):
  store = Store(tmp_path)
  store.start({**INFO, "format": 0}, resume=False)
  with pytest.raises(UsageError, match="another version of mmfuse"):
    store.start(INFO, resume=True)


def test_the_files_of_a_row_on_a_split(tmp_path):
  store = Store(tmp_path)
  for fold, seed in ((None, 0), (0, 0), (1, 0), (1, 1), (10, 0)):
    write_json(store.run_path("joint", fold, seed, "lr0.1", ".json"), {})
    write_json(store.choice_path("joint", fold), {})
  names = lambda fold: [p.name for p in store.run_files("joint", fold)]
  assert names(None) == ["seed0-lr0.1.json"]
  assert names(1) == ["fold1-seed0-lr0.1.json", "fold1-seed1-lr0.1.json"]
  assert names(2) == []
