"""Reads parity fixtures: `<slug>.json` describes the cases whose arrays stand in `<slug>.npz`."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

SHIPPED = pathlib.Path(__file__).parent / "fixtures"


class Case(NamedTuple):
  """One case of one slug."""

  slug: str
  name: str
  inputs: dict[str, np.ndarray]
  outputs: dict[str, np.ndarray]
  hp: dict[str, Any]  # hyper-parameters of the arrays and of the description

  @property
  def id(self) -> str:
    return f"{self.slug}/{self.name}"


def folder() -> pathlib.Path:
  """Where the fixtures are: MMFUSE_PARITY, else the shipped copy."""
  found = pathlib.Path(os.environ.get("MMFUSE_PARITY") or SHIPPED)
  if not list(found.glob("*.json")):
    raise FileNotFoundError(f"no parity fixtures (<slug>.json, <slug>.npz) in {found}")
  return found


def names(where: pathlib.Path) -> dict[str, list[str]]:
  """{slug: its cases}, from both files, so that a case in only one of them is noticed."""
  found: dict[str, list[str]] = {}
  for path in sorted(where.glob("*.json")):
    cases = list(json.loads(path.read_text()))
    with np.load(path.with_suffix(".npz")) as arrays:
      cases += [key.split("/")[0] for key in arrays.files]
    found[path.stem] = list(dict.fromkeys(cases))
  return found


def load(where: pathlib.Path, slug: str, name: str) -> Case:
  """The arrays and hyper-parameters of one case."""
  described = json.loads((where / f"{slug}.json").read_text())[name]
  parts: dict[str, dict[str, np.ndarray]] = {"in": {}, "out": {}, "hp": {}}
  with np.load(where / f"{slug}.npz") as arrays:
    for key in arrays.files:
      case, kind, rest = key.split("/", 2)
      if case == name:
        parts[kind][rest] = arrays[key]
  hp = {k: v.item() if v.ndim == 0 else v for k, v in parts["hp"].items()}
  hp = {**described.get("hyper_parameters", {}), **described.get("hp", {}), **hp}
  return Case(slug, name, parts["in"], parts["out"], hp)
