"""The two laws of the layout: a name says what kind of thing it is, and a pure half stands beside.

1: `balancing.X` is an Optax value, `objectives.X` a loss, `methods.<family>.X` a builder of a Method,
and no public name stands in two packages. 2: what only one method needs stands beside that method.
"""

import ast
import importlib
import inspect
import pathlib
import pkgutil
import typing

import jax
import optax
import pytest

import mmfuse
from mmfuse import balancing, methods, objectives
from mmfuse.core import Method, Objective

ROOT = pathlib.Path(mmfuse.__file__).parent
PACKAGES = {
  info.name: importlib.import_module(info.name)
  for info in pkgutil.walk_packages(mmfuse.__path__, "mmfuse.")
  if info.ispkg
}
FAMILIES = {
  name.removeprefix("mmfuse.methods."): package
  for name, package in PACKAGES.items()
  if name.startswith("mmfuse.methods.") and hasattr(package, "ROWS")
}
# What rules are written, checked and fed with.
TOOLS = {"PARTS", "Aggregator", "ContractError", "Weighting", "chain", "check_contract", "scores"}
PIECES = {"mean_rows", "task_of", "weighted_mean"}  # what losses are made of


def public(package):
  return {name: getattr(package, name) for name in package.__all__}


def parameters(function):
  return list(inspect.signature(function).parameters)


def test_every_package_says_what_is_public():
  assert {name for name, package in PACKAGES.items() if not hasattr(package, "__all__")} == set()
  assert set(FAMILIES) == {
    "balancing",
    "baselines",
    "ensembles",
    "generative",
    "heads",
    "missing",
    "representation",
    "segmentation",
  }


def test_no_public_name_stands_in_two_packages():
  places: dict[str, list[str]] = {}
  for where, package in PACKAGES.items():
    for name, value in public(package).items():
      if not inspect.ismodule(value):
        places.setdefault(name, []).append(where)
  assert {name: where for name, where in places.items() if len(where) > 1} == {}


def _transform(factory):
  """What a factory of a rule makes of its defaults, for three objectives or two modalities."""
  known = {"num_objectives": 3, "modalities": ("a", "b")}
  return factory(**{k: v for k, v in known.items() if k in parameters(factory)})


RULES = sorted(
  name
  for name, value in public(balancing).items()
  if name not in TOOLS and not inspect.isclass(value)
)


@pytest.mark.parametrize("name", RULES)
def test_a_name_of_balancing_makes_an_optax_value(name):
  made = _transform(getattr(balancing, name))
  assert isinstance(made, optax.GradientTransformation | balancing.Aggregator)


def test_the_other_names_of_balancing_are_states_and_tools():
  states = set(public(balancing)) - set(RULES) - TOOLS
  for name in states:
    value = getattr(balancing, name)
    assert issubclass(value, tuple) and value._fields and name.endswith("State"), name
  assert set(balancing.__all__) >= TOOLS and len(RULES) > 40


def _objective(value) -> bool:
  return isinstance(value, Objective) or parameters(value)[:2] == ["outputs", "batch"]


@pytest.mark.parametrize("name", sorted(set(objectives.__all__) - PIECES))
def test_a_name_of_objectives_is_a_loss(name):
  """An objective, a factory of one, or a loss of arrays."""
  value = getattr(objectives, name)
  if _objective(value):
    return
  if typing.get_type_hints(value).get("return") is jax.Array:
    assert any(word in name for word in ("loss", "distillation"))
  else:
    assert _objective(value())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_of_a_family_builds_a_method(family):
  for name, value in public(FAMILIES[family]).items():
    assert inspect.isfunction(value), name
    assert typing.get_type_hints(value)["return"] is Method, name


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_builder_takes_a_model_and_an_optimiser_and_says_what_else_it_needs(name):
  entry = methods.METHODS[name]
  taken = parameters(entry.build)
  assert taken[:2] == ["model", "tx"]
  assert {p for p in taken if p in methods.FACTS} == set(entry.needs)


def test_rows_stand_in_the_page_of_their_family():
  for family, page in FAMILIES.items():
    for name, entry in page.ROWS.items():
      assert methods.METHODS[name].family == family
      assert methods.METHODS[name].build is entry.build
  named = {name for page in FAMILIES.values() for name in page.ROWS}
  assert set(methods.METHODS) - named == {n for n, e in methods.METHODS.items() if e.alias_of}


@pytest.mark.parametrize("package", ["balancing", "objectives"])
def test_a_file_that_only_a_method_reads_stands_beside_it(package):
  """Every file of rules and losses is read by a rule, by a loss or by their index."""
  read = set()
  for path in [*(ROOT / "balancing").glob("*.py"), *(ROOT / "objectives").glob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom) and node.module:
        names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        read |= names - {f"mmfuse.{package}.{path.stem}"}
  files = {f"mmfuse.{package}.{p.stem}" for p in (ROOT / package).glob("_*.py")}
  assert files - {f"mmfuse.{package}.__init__"} - read == set()


def test_no_method_compiles_anything():
  """`train` does, and what hooks compile goes through `train.on_batch`."""
  found = [
    f"{path.name}:{node.lineno}"
    for path in (ROOT / "methods").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute) and node.attr in ("jit", "pmap", "device_put")
  ]
  assert found == []


def test_a_file_is_a_few_pages_at_most():
  long = {
    str(path.relative_to(ROOT)): count
    for path in ROOT.rglob("*.py")
    if (count := len(path.read_text().splitlines())) > 350
  }
  assert long == {}
