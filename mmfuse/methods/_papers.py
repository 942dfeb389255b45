"""papers.bib, the one place where a paper is written down: its entry, and how a table names it."""

import importlib.resources
import re


def _read() -> dict[str, str]:
  """{key: BibTeX entry}."""
  text = (importlib.resources.files("mmfuse") / "papers.bib").read_text(encoding="utf-8")
  entries = [e.strip() for e in re.split(r"\n(?=@)", text) if e.strip()]
  return {e[e.index("{") + 1 : e.index(",")]: e for e in entries}


_PAPERS = _read()


def bibtex(key: str) -> str:
  """The BibTeX entry of a key."""
  return _PAPERS[key]


def short(key: str) -> str:
  """Authors, venue and year: "Li et al., ICCV 2023", "Guo et al., arXiv 2505.23071, 2025".

  The venue is the field `venue` of an entry, which BibTeX itself ignores; where there is none, its
  booktitle or journal as it stands.
  """
  entry = _PAPERS[key]
  surnames = [name.split(",")[0].strip() for name in _field(entry, "author").split(" and ")]
  authors = " and ".join(surnames) if len(surnames) < 3 else f"{surnames[0]} et al."
  fields = (_field(entry, name) for name in ("venue", "booktitle", "journal"))
  venue = next(filter(None, fields))
  if venue.startswith("arXiv:"):
    venue = venue.replace("arXiv:", "arXiv ") + ","  # two numbers in a row
  return f"{authors}, {venue} {_field(entry, 'year')}"


def _field(entry: str, name: str) -> str:
  """What stands between the braces of a field, on one line; "" where there is no such field."""
  found = re.search(rf"\b{name}=\{{", entry)
  if found is None:
    return ""
  depth, end = 1, found.end()
  while depth:
    depth += {"{": 1, "}": -1}.get(entry[end], 0)
    end += 1
  return " ".join(entry[found.end() : end - 1].split())
