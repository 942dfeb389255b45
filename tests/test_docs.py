"""Every public name is documented, and what the documents show runs."""

import importlib
import importlib.util
import inspect
import pathlib
import re

import jax
import pytest

import mmfuse
from mmfuse import methods

ROOT = pathlib.Path(mmfuse.__file__).parent
PROJECT = ROOT.parent
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
SMALL = {"rows": 60, "epochs": 1, "steps": 3, "seeds": 1, "names": ("joint",)}
INNER = (
  "balancing",
  "baselines",
  "ensembles",
  "generative",
  "generative.mrbm",
  "generative.vae",
  "missing",
)
NAMESPACES = sorted({*mmfuse.__all__, *(f"methods.{name}" for name in INNER)} - {"__version__"})


def public(namespace):
  """{qualified name: object} of what a namespace offers, with the methods of its classes."""
  module = importlib.import_module(f"mmfuse.{namespace}")
  names = getattr(module, "__all__", None) or [
    n
    for n, value in vars(module).items()
    if not n.startswith("_") and getattr(value, "__module__", None) == module.__name__
  ]
  for name in names:
    value = getattr(module, name)
    if not callable(value):
      continue
    yield f"{namespace}.{name}", value
    if inspect.isclass(value):
      for attribute, member in vars(value).items():
        if attribute in inspect.get_annotations(value):
          continue  # a field whose default is a function
        if not attribute.startswith("_") and (
          inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
        ):
          yield f"{namespace}.{name}.{attribute}", member


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_public_name_has_a_docstring(namespace):
  found = dict(public(namespace))
  assert found
  bare = sorted(name for name, value in found.items() if not own_docstring(value))
  assert not bare, f"without a docstring: {', '.join(bare)}"


def own_docstring(value):
  """The docstring as written; what `NamedTuple` and `dataclass` generate is none."""
  text = (getattr(value, "__doc__", None) or "").strip()
  generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")
  return "" if generated else text


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_all_names_exist_and_are_listed_once(namespace):
  module = importlib.import_module(f"mmfuse.{namespace}")
  names = getattr(module, "__all__", [])
  assert len(names) == len(set(names))
  for name in names:
    assert hasattr(module, name), f"{namespace}.{name}"


@pytest.mark.parametrize("name", sorted(methods.METHODS))
def test_every_method_names_an_existing_file(name):
  assert (ROOT / methods.METHODS[name].file).is_file()


def python_blocks(path):
  return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
  readme = PROJECT / "README.md"
  blocks = python_blocks(readme)
  assert blocks or len(readme.read_text().splitlines()) <= 50
  monkeypatch.chdir(tmp_path)
  namespace = {"__name__": "readme"}
  with jax.numpy_rank_promotion("allow"):  # as in a reader's own session
    for i, block in enumerate(blocks):
      exec(compile(block, f"README.md, block {i}", "exec"), namespace)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_run(path, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  settings = {k: v for k, v in SMALL.items() if k in inspect.signature(module.main).parameters}
  with jax.numpy_rank_promotion("allow"):
    module.main(**settings)
  assert capsys.readouterr().out.strip()


def test_relative_links_of_the_documents_lead_somewhere():
  documents = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
  for document in documents:
    prose = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", re.sub(r"`[^`\n]*`", "", prose)):
      if "://" not in target:
        assert (document.parent / target).exists(), f"{document.name} links to {target}"
