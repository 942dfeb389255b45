"""What takes three parameters or more says what each of them is, in every package.

Functions and classes: an entry under `Args:`, one for several that belong together ("x, y: ...").
Fields of a NamedTuple or a dataclass may have a comment on their line or on the one above, or a
string below, instead. What is swallowed (`*args`, `**extra`) needs no name, nor what is the same for
all of a kind: a builder's `model` and `tx`, and the `name` and `parent` of a Linen module.
"""

import ast
import dataclasses
import importlib
import inspect
import io
import pkgutil
import re
import textwrap
import tokenize
from typing import NamedTuple

import flax.linen as nn
import pytest

import mmfuse

BUILDER, LINEN = {"model", "tx"}, {"name", "parent"}
SWALLOWED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
ENTRY = r"\w+(?: \[[^\]]*\])?(?:, \w+(?: \[[^\]]*\])?)*:"  # "x, y [B]:"


def namespaces():
  """Every module of mmfuse whose name says that it is public."""
  found = (info.name for info in pkgutil.walk_packages(mmfuse.__path__, "mmfuse."))
  return sorted(n for n in found if not any(p.startswith("_") for p in n.split(".")))


def public(module):
  """{name: function or class}; of a module that lists none, those that it defines."""
  names = getattr(module, "__all__", None) or [
    n
    for n, value in vars(module).items()
    if not n.startswith("_") and getattr(value, "__module__", None) == module.__name__
  ]
  found = {n: inspect.unwrap(getattr(module, n)) for n in names}
  return {n: v for n, v in found.items() if inspect.isfunction(v) or _is_made_by_callers(v)}


def _is_made_by_callers(value):
  """Classes but for exceptions, which callers catch."""
  return inspect.isclass(value) and not issubclass(value, BaseException)


def parameters(value):
  """The names that a caller may give."""
  given = inspect.signature(value).parameters.values()
  names = {p.name for p in given if p.kind not in SWALLOWED}
  if inspect.isclass(value) and issubclass(value, nn.Module):
    return names - LINEN
  return names


def entries(docstring):
  """The names under `Args:`."""
  section = re.search(r"^Args:\n((?:  .*(?:\n|$))+)", docstring or "", re.MULTILINE)
  lines = re.findall(r"^  (\S.*)$", section[1], re.MULTILINE) if section else []
  heads = [re.match(ENTRY, part) for line in lines for part in line.split("; ")]
  return {
    name for head in heads if head for name in re.findall(r"(\w+)(?: \[[^\]]*\])?[,:]", head[0])
  }


def commented(cls):
  """The fields of a class, inherited ones too, that have a comment."""
  found = set()
  for base in inspect.getmro(cls):
    if not base.__module__.startswith(("mmfuse", __name__)):
      continue
    source = textwrap.dedent(inspect.getsource(base))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {
      t.start[0]: not t.line[: t.start[1]].strip() for t in tokens if t.type == tokenize.COMMENT
    }
    body = ast.parse(source).body[0].body
    for field, after in zip(body, [*body[1:], None]):
      if isinstance(field, ast.AnnAssign):
        on = any(line in comments for line in range(field.lineno, field.end_lineno + 1))
        if on or comments.get(field.lineno - 1, False) or _is_text(after):
          found.add(field.target.id)
  return found


def _is_text(statement):
  """A string below a field: what the command line prints of an option."""
  value = getattr(statement, "value", None)
  return isinstance(statement, ast.Expr) and isinstance(getattr(value, "value", None), str)


def unsaid(value):
  """The parameters of a function or class that its docstring and comments say nothing of."""
  names = parameters(value)
  if len(names) < 3:
    return set()
  has_fields = dataclasses.is_dataclass(value) or hasattr(value, "_fields")
  said = entries(inspect.getdoc(value)) | (commented(value) if has_fields else set())
  return names - said - (BUILDER if names >= BUILDER else set())


@pytest.mark.parametrize("namespace", namespaces())
def test_every_parameter_is_said(namespace):
  lacking = {n: unsaid(v) for n, v in public(importlib.import_module(namespace)).items()}
  lines = [f"{n}: {', '.join(sorted(names))}" for n, names in sorted(lacking.items()) if names]
  assert not lines, "parameters that nothing is said of:\n" + "\n".join(lines)


def test_what_counts_as_said():
  def half(a, b, c, d, e, **extra):
    """Three of five.

    Args:
      a, b: two at once,
        and c: in a continuation.
      d [B]: with a shape; e: beside it.

    Returns c: elsewhere.
    """

  class Fields(NamedTuple):
    """Three of four."""

    one: int  # on its line
    # above it
    two: int
    three: int
    """Below it."""
    four: str = "# in a string"

  class Module(nn.Module):
    """Nothing of what Linen adds."""

    width: int  # of the layer
    depth: int  # of the module
    rate: float

  def build(model, tx, *, alpha):
    """A builder."""

  def two(a, b):
    """Few enough to be clear."""

  assert unsaid(half) == {"c"}
  assert unsaid(Fields) == {"four"}
  assert unsaid(Module) == {"rate"}
  assert unsaid(build) == {"alpha"}
  assert unsaid(two) == set()
