"""File names of rows and trials: different where the names are, on any file system."""

import itertools
import re

import pytest

from mmfuse import methods
from mmfuse.protocol import Compare
from mmfuse.protocol._names import file_name, trial_name
from mmfuse.protocol._rows import make_rows
from mmfuse.protocol._search import _items

# Pairs that people have, which a readable file name alone would mix up.
ALIKE = [
  ("音频", "视频"),
  ("ecg 1", "ecg-1"),
  ("ecg-1", "ecg_1"),
  ("Audio", "audio"),
  ("STRASSE", "straße"),
  ("x" * 60 + "1", "x" * 60 + "2"),
  ("a.b", "a b"),
  ("é", "e\u0301"),
  ("a", " a"),
  ("..", "."),
  ("\udc80", "\udc81"),
]


@pytest.mark.parametrize("pair", ALIKE)
@pytest.mark.parametrize("prefix", ["", "unimodal/"])
def test_different_names_are_different_files(pair, prefix):
  files = [file_name(prefix + name) for name in pair]
  assert len({f.casefold() for f in files}) == 2
  for f in files:
    assert len(f) <= 40 + 9 and len(f.encode()) <= 180 and not re.search(r"[/\\\s:]", f)
    assert f.strip(".") == f and f


def test_a_plain_name_stands_as_it_is_and_no_digest_can_equal_one():
  assert file_name("joint") == "joint" and file_name("ogm_ge") == "ogm_ge"
  assert all(file_name(name) == name for name in methods.METHODS)
  assert file_name("unimodal/a") == "unimodal-a-744ab874"  # sha256 of "unimodal/a"
  assert file_name("unimodal-a-744ab874") != "unimodal-a-744ab874"
  assert file_name("音频").startswith("音频-")


def test_rows_of_awkward_modalities_have_folders_of_their_own():
  names = sorted({name for pair in ALIKE for name in pair})
  rows, _ = make_rows(Compare(methods=("joint,unimodal",)), names, "classification")
  assert len({r.slug.casefold() for r in rows}) == len(rows) == 1 + len(names)


def test_trials_that_print_alike_are_different_files():
  trials = [
    (0.01, ()),
    (0.01 * (1 + 1e-9), ()),
    (0.01, (("lam", 1.0),)),
    (0.01, (("lam", 1),)),
    (0.01, (("lam", True),)),
    (0.01, (("lam", "1.0"),)),
    (0.01, (("lam", 1.0 + 1e-15),)),
    (0.01, (("lam1", 0),)),
    (0.01, (("hidden", (64,) * 200),)),
    (0.01, (("hidden", (64,) * 201),)),
    (0.01, (("a", 1), ("b", 2))),
    (0.01, (("a", "1-b2"),)),
  ]
  names = [trial_name(*t) for t in trials]
  assert len({n.casefold() for n in names}) == len(names)
  assert names[0] == "lr0.01" and all(len(n) < 70 for n in names)
  assert all(trial_name(r, ()) == f"lr{r:g}" for r in (1e-5, 0.003, 0.03, 0.3))
  third = trial_name(0.1 / 30, ())
  assert third.startswith("lr0.00333333-") and third != trial_name(0.00333333, ())


def test_a_trial_read_from_a_file_has_the_same_name():
  for hyper in ({"lam": 2.0, "hidden": [64, [1, 2]]}, {}):
    read = _items(hyper)
    assert hash(read) is not None
    assert trial_name(0.1, read) == trial_name(0.1, sorted(hyper.items()))
  assert _items({"b": [1], "a": 2}) == (("a", 2), ("b", (1,)))


def test_no_two_rows_of_the_index_share_a_folder():
  rows, _ = make_rows(Compare(methods=("all",)), ("a", "A"), "classification")
  for x, y in itertools.combinations(rows, 2):
    assert x.slug.casefold() != y.slug.casefold()
