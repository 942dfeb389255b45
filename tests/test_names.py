"""How a sentence on an unknown name ends."""

import string

from mmfuse import names


def test_few_names_are_all_listed_and_of_many_the_closest():
  assert names.closest("mimoo", ["joint", "mimo"]) == "closest: mimo; available: joint, mimo"
  assert names.closest("zzz", ["joint", "mimo"]) == "available: joint, mimo"
  assert names.closest("zzz", []) == "available: none"
  many = ["mimo", "mino", "momo", "nimo", *string.ascii_lowercase]
  assert names.closest("mimoo", many) == "closest: mimo, nimo, momo"
  assert names.closest("zzzz", many[:-1]) == f"available: {', '.join(many[:-1])}"
