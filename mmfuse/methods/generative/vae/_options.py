"""Options that the rows share."""

from collections.abc import Mapping

from mmfuse.methods.generative.vae._likelihood import AUTO, parse


def specs(likelihood: str | Mapping[str, str]) -> str | tuple[tuple[str, str], ...]:
  """A likelihood for all modalities, or of each, in a form that compares by value.

  Raises ValueError for what is none.
  """
  if isinstance(likelihood, str):
    if likelihood != AUTO:
      parse(likelihood)
    return likelihood
  for spec in likelihood.values():
    if spec != AUTO:
      parse(spec)
  return tuple(sorted(likelihood.items()))
