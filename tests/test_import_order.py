"""A package imports only from those to its left, read off the sources."""

import ast
import pathlib
import subprocess
import sys

import pytest

import mmfuse

ROOT = pathlib.Path(mmfuse.__file__).parent
LEAVES = ("choose", "core", "draws", "masks", "names", "tree")
ORDER = (
  "data",
  "encoders",
  "fusion",
  "objectives",
  "balancing",
  "metrics",
  "tasks",
  "train",
  "report",
  "methods",
  "protocol",
  "cli",
  "__main__",
)
METHODS = ROOT / "methods"
FAMILIES = sorted(p.name for p in METHODS.iterdir() if (p / "__init__.py").exists())
FORBIDDEN = ("torch", "tensorflow", "experiments", "tests")
FILES = sorted(ROOT.rglob("*.py"))


def imported(path):
  """Dotted names that a file imports anywhere, functions included."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path.name} imports relatively"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path):
  """The package or top-level module that a file belongs to."""
  return path.relative_to(ROOT).parts[0].removesuffix(".py")


def ours(path):
  """The parts of mmfuse that a file imports, without its own."""
  names = {n.split(".")[1] for n in imported(path) if n.startswith("mmfuse.")}
  return {n for n in names if (ROOT / n).exists() or (ROOT / f"{n}.py").exists()} - {part(path)}


def test_every_part_has_a_place():
  assert {part(p) for p in FILES} - {"__init__"} <= {*LEAVES, *ORDER}
  assert len(FILES) > 50


@pytest.mark.parametrize("name", [*LEAVES, *ORDER])
def test_only_imports_from_the_left(name):
  allowed = set(LEAVES) if name in LEAVES else {*LEAVES, *ORDER[: ORDER.index(name)]}
  for path in FILES:
    if part(path) == name:
      assert ours(path) <= allowed, f"{path.relative_to(ROOT)}: {sorted(ours(path) - allowed)}"


def inner(path):
  """The parts of `mmfuse.methods` that a file imports: its families and its own files."""
  names = {n.split(".")[2] for n in imported(path) if n.startswith("mmfuse.methods.")}
  return {n for n in names if (METHODS / n).is_dir() or (METHODS / f"{n}.py").exists()}


@pytest.mark.parametrize("family", FAMILIES)
def test_families_do_not_import_each_other(family):
  for path in (METHODS / family).rglob("*.py"):
    assert inner(path) & set(FAMILIES) <= {family}, path.relative_to(ROOT)
    assert "mmfuse.methods.METHODS" not in imported(path), path.relative_to(ROOT)


def test_what_families_share_knows_none_of_them():
  for path in METHODS.glob("_[!_]*.py"):
    assert not inner(path) & set(FAMILIES), path.relative_to(ROOT)


def test_the_mrbm_needs_nothing_of_the_loop():
  for path in (METHODS / "generative" / "mrbm").glob("*.py"):
    assert "train" not in ours(path) and inner(path) <= {"generative"}, path.name


def test_the_checker_sees_what_it_should():
  assert inner(METHODS / "balancing" / "_umt.py") == set()
  assert {"_entry", "balancing"} <= inner(METHODS / "balancing" / "__init__.py")
  assert "balancing" in ours(ROOT / "train" / "_supervised.py")
  assert "core" in ours(ROOT / "train" / "_fit.py")
  # An import inside a function counts.
  assert any(n.startswith("optax.experimental") for n in imported(ROOT / "balancing" / "_base.py"))
  assert "orbax.checkpoint" in set(imported(ROOT / "train" / "_checkpoint.py"))


def test_nothing_imports_what_is_forbidden():
  for path in FILES:
    found = {n.split(".")[0] for n in imported(path)} & set(FORBIDDEN)
    assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}"


def test_aggregating_is_imported_in_one_file_only():
  users = [
    p.relative_to(ROOT).as_posix()
    for p in FILES
    if any(n.startswith("optax.experimental") for n in imported(p))
  ]
  assert users == ["balancing/_base.py"]


def test_importing_mmfuse_waits_for_nothing():
  heavy = ("jax", "flax", "optax", "numpy", "orbax", "tensorflow", "torch")
  code = f"import mmfuse, sys; print(sorted(set({heavy!r}) & set(sys.modules)))"
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert found.stdout.strip() == "[]"
