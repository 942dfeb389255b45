"""Code that the user brings: files on the command line, builders and tables from Python."""

import dataclasses
import functools
import json

import pytest

from mmfuse import data, methods, protocol, train
from mmfuse.protocol import Compare, UsageError
from mmfuse.protocol import _own as own_lib
from mmfuse.protocol._doors import with_own
from mmfuse.protocol._own import Own
from mmfuse.protocol._rows import optimiser_notes

from ._helpers import MINE, numbers, quick, records


def test_an_edited_file_is_another_module_and_another_configuration(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text("value = 1\n")
  spec = f"{file}:value"
  first = own_lib.source_digest(spec)
  assert own_lib.load_attribute(spec) == 1
  file.write_text("value = 2\n")
  assert own_lib.load_attribute(spec) == 2
  assert own_lib.source_digest(spec) != first
  assert Own().sources(Compare(methods=("joint", spec), encoder=("a=mlp",))) == {
    spec: own_lib.source_digest(spec)
  }


def test_a_file_that_fails_is_tried_again_once_mended(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text("raise KeyError('x')\n")
  for _ in range(2):
    with pytest.raises(UsageError, match="cannot be imported: KeyError"):
      own_lib.load_attribute(f"{file}:value")


def _twin(place):
  return own_lib.load_attribute(f"{place / 'mine.py'}:twin")


def test_a_builder_is_known_by_its_file_its_arguments_and_its_entry(place):
  twin, entry = _twin(place), methods.METHODS["joint"]
  digest = lambda found: Own({"x": found}).digest("x")
  assert digest(twin) == own_lib.source_digest(f"{place / 'mine.py'}:twin")
  partials = [functools.partial(twin, lam=lam) for lam in (1, 2)]
  entries = [entry._replace(build=twin, rates=rates) for rates in (None, (1, 2, 3))]
  assert len({digest(found) for found in (twin, *partials, *entries)}) == 5
  assert digest(functools.partial(twin, lam=1)) == digest(partials[0])
  wrapped = functools.wraps(partials[0])(lambda *args: None)
  assert digest(wrapped) == digest(partials[0])
  (place / "mine.py").write_text(MINE + "\n# edited\n")
  assert digest(_twin(place)) not in {digest(partials[0]), own_lib.builder_digest("x", entry)}


def test_a_builder_whose_source_nobody_can_read_is_refused():
  typed = {"__name__": "nowhere"}
  exec("def build(model, learning_rate): pass", typed)
  with pytest.raises(UsageError, match="the source of 'mine' cannot be read"):
    Own({"mine": typed["build"]}).digest("mine")


@pytest.mark.parametrize("name", ["a b", "a,b", "a:b", "a/b", "", 3])
def test_a_name_that_no_word_can_say_is_refused(name):
  with pytest.raises(UsageError, match="expected one word without"):
    Own({name: methods.METHODS["joint"]})


def test_another_name_of_a_row_of_the_index_is_refused():
  with pytest.raises(UsageError, match="'inter' is another name of 'joint' in the index"):
    Own({"inter": lambda model, learning_rate: None})


def test_it_is_said_that_the_tables_optimiser_does_not_reach_a_bare_builder():
  bare = lambda model, learning_rate: None
  own = Own({"mine": bare, "entry": methods.Entry(bare)})
  notes = lambda **options: optimiser_notes(
    Compare(methods=("joint", "mine", "entry"), **options), own
  )
  assert notes() == []
  assert [n.partition(":")[0] for n in notes(optimizer="adam")] == ["mine"]
  assert len(notes(weight_decay=0.1)) == 1


def test_own_methods_run_where_they_are_named_else_last():
  own = Own({"mine": methods.METHODS["joint"], "other": methods.METHODS["joint"]})
  named = lambda *words: with_own(Compare(methods=words), own).methods
  assert named("other,joint") == ("other", "joint", "mine")
  assert named() == ("mine", "other")
  assert named("default") == ("default", "mine", "other")
  assert with_own(Compare(), Own()) == Compare()
  assert with_own(Compare(methods=("mimo",)), Own({"mimo": methods.METHODS["joint"]})).methods == (
    "mimo",
  )
  for words, name in (
    (("default",), "joint"),
    (("joint", "all"), "joint"),
    ((), "heads"),
    ((), "balancing"),
  ):
    with pytest.raises(UsageError, match=f"two methods are called '{name}'; rename yours"):
      with_own(Compare(methods=words), Own({name: methods.METHODS["joint"]}))


def test_a_table_takes_the_choices_of_the_configuration(place):
  table = data.load(str(place / "my.npz"))
  cfg = Compare(modalities=("b",), encoder=("b=identity",))
  found = protocol.load_table(cfg, table)
  assert found.modalities == ("b",) and found.encoders == {"b": "identity"}
  assert found.fingerprint not in (table.fingerprint, "") and found.name == "my"
  assert protocol.load_table(Compare(), table).fingerprint == table.fingerprint
  assert len(protocol.load_table(Compare(smoke=True), table)) == 96
  with pytest.raises(data.DataError, match="a table takes no train_size"):
    protocol.load_table(Compare(train_size=5), table)
  with pytest.raises(data.DataError, match="my is a classification set"):
    protocol.load_table(Compare(task="regression"), table)


def test_a_table_and_builders_from_python_are_what_files_of_them_are(
  finished, place, monkeypatch, capsys
):
  quick(monkeypatch)
  monkeypatch.chdir(place)
  table, own = data.load("my.npz"), {"twin": _twin(place)}
  cfg = Compare(methods=("twin,joint",), epochs=2, batch_size=16, seeds=3, out="run")
  protocol.run(cfg, table=table, methods=own)
  assert list(dict.fromkeys(r["method"] for r in records(place / "run"))) == ["twin", "joint"]
  assert numbers(place / "run") == numbers(finished.run, ["joint", "twin"])
  info = json.loads((place / "run" / "run.json").read_text())
  assert (info["name"], info["data"]) == ("my", "my")
  assert info["data_fingerprint"] == table.fingerprint
  assert info["sources"] == {"twin": Own(own).digest("twin")}

  again = dataclasses.replace(cfg, resume=True)
  monkeypatch.setattr(train, "fit", None)  # nothing is left to train
  assert len(protocol.run(again, table=table, methods=own).rows) == 2
  capsys.readouterr()
  joint = dataclasses.replace(again, methods=("joint",))
  assert [row.method for row in protocol.run(joint, table=table).rows] == ["joint"]
  assert "note: twin of the run is not shown: it came from Python" in capsys.readouterr().out
  (place / "mine.py").write_text(MINE + "\n# edited\n")
  with pytest.raises(UsageError, match="the code of 'twin' was edited since the run"):
    protocol.run(again, table=table, methods={"twin": _twin(place)})


def test_a_row_from_python_predicts_where_it_is_given_again(place, monkeypatch, capsys):
  quick(monkeypatch)
  monkeypatch.chdir(place)
  own = {"twin": _twin(place)}
  cfg = Compare(methods=("joint",), tune=1, epochs=1, batch_size=16, seeds=1, out="run")
  protocol.run(cfg, table=data.load("my.npz"), methods=own)
  given = protocol.predict("run", "my.npz", method="twin", methods=own)
  assert given == protocol.predict("run", "my.npz", method="joint")
  assert "of those that can be taken" not in capsys.readouterr().err
  assert protocol.predict("run", "my.npz") == given
  assert "joint, seed 0: the best fused row" in (said := capsys.readouterr().err)
  assert "of those that can be taken" in said
  with pytest.raises(UsageError, match=r"twin came from Python, .* --method takes joint instead"):
    protocol.predict("run", "my.npz", method="twin")
