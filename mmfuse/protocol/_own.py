"""Code that the user brings: `mine.py:name` on the command line, builders by name from Python."""

import functools
import importlib.util
import inspect
import pathlib
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

from mmfuse import methods
from mmfuse.names import closest
from mmfuse.protocol._config import Compare, UsageError, digest, parse_pairs, split_words

_WORD = re.compile(r"[^\s,:/=]+")  # what `--methods`, `--set` and the names of rows can hold


class Own:
  """What the words of `Compare.methods` mean that are none of the index."""

  def __init__(self, given: Mapping[str, Any] | None = None):
    self.given = dict(given or {})  # {name: builder or methods.Entry} of a caller in Python
    for name in self.given:
      if not isinstance(name, str) or not _WORD.fullmatch(name):
        raise UsageError(
          f"a method of your own cannot be called {name!r}: expected one word without , : / ="
        )
      if name in methods.METHODS and (other := methods.METHODS[name].alias_of):
        raise UsageError(f"{name!r} is another name of {other!r} in the index; rename yours")

  def __contains__(self, word: str) -> bool:
    return word in self.given or ":" in word

  def load(self, word: str) -> Any:
    """The builder or entry. Raises UsageError where a file has none of that name."""
    return self.given[word] if word in self.given else load_attribute(word)

  def digest(self, word: str) -> str:
    """Of the code behind a word: edited code is another configuration."""
    return builder_digest(word, self.given[word]) if word in self.given else source_digest(word)

  def sources(self, cfg: Compare) -> dict[str, str]:
    """{word: digest} of all code that the user brings, encoders among it."""
    encoders = parse_pairs(cfg.encoder, "--encoder").values()
    words = [w for w in split_words(cfg.methods) if w in self]
    specs = [e for e in encoders if ":" in e]
    return {w: self.digest(w) for w in words} | {e: source_digest(e) for e in specs}

  def lacking(self, sources: Mapping[str, str]) -> list[str]:
    """The methods from Python, of the `sources` of a run, that are not given again."""
    return [word for word in sources if word not in self]


def load_attribute(spec: str) -> Any:
  """`mine.py:name` -> the object. The file is the user's own code and is run, as by an import."""
  path, _, name = spec.rpartition(":")
  if not path or not name:
    raise UsageError(f"expected file.py:name, got {spec!r}")
  if not pathlib.Path(path).is_file():
    raise UsageError(f"{spec!r}: there is no file {path!r}")
  module = _load_file(pathlib.Path(path))
  if not hasattr(module, name):
    public = [n for n in vars(module) if not n.startswith("_")]
    raise UsageError(f"{path} has no {name!r}; {closest(name, public)}")
  return getattr(module, name)


def _load_file(file: pathlib.Path) -> types.ModuleType:
  """The module of a file, once per content: an edited file is another module."""
  module_name = f"mmfuse_user_{file.stem}_{digest([str(file.resolve()), file.read_text()])}"
  if module_name in sys.modules:
    return sys.modules[module_name]
  spec = importlib.util.spec_from_file_location(module_name, file)
  if spec is None or spec.loader is None:
    raise UsageError(f"{str(file)!r} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  sys.modules[module_name] = module  # dataclasses look their module up while it runs
  try:
    spec.loader.exec_module(module)
  except Exception as error:  # whatever the user's file raises becomes the one sentence they see
    del sys.modules[module_name]
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    raise UsageError(f"{str(file)!r} cannot be imported: {said}") from error
  return module


def source_digest(spec: str) -> str:
  """sha256 of the file of `mine.py:name`: an edited file is another configuration."""
  return digest(pathlib.Path(spec.rpartition(":")[0]).read_text())


def builder_digest(name: str, found: Any) -> str:
  """sha256 of the file that a builder stands in, a partial's arguments and an entry's other fields.

  The file alone gives what `source_digest` gives. What a closure holds is not seen.

  Raises UsageError for a builder whose source nobody can read.
  """
  more: list[Any] = []
  if isinstance(found, methods.Entry):
    more.append(found[1:])
    found = found.build
  while isinstance(found, functools.partial) or hasattr(found, "__wrapped__"):
    if isinstance(found, functools.partial):
      more.append([found.args, sorted(found.keywords.items())])
    found = found.func if isinstance(found, functools.partial) else found.__wrapped__
  text = _source(name, found)
  return digest([text, *more] if more else text)


def _source(name: str, builder: Any) -> str:
  """The text of a builder's file; of the builder alone where it stands in a notebook."""
  for where in (inspect.getmodule(builder), builder):
    try:
      return inspect.getsource(where)  # type: ignore[arg-type]
    except (OSError, TypeError):  # no file: the next one, then the sentence below
      continue
  raise UsageError(
    f"the source of {name!r} cannot be read, so that a run that is continued could not tell it from "
    "an edited one; define it in a file or a notebook"
  )
