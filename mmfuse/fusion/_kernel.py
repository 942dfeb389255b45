"""One kernel for all modalities: its rows, dealt out to them."""

from collections.abc import Mapping

import jax


def dealt(kernel: jax.Array, features: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """{m: W_m [D_m, C]} of a kernel W [sum_m D_m, C], its rows in order sorted(m).

  features {m: [B, D_m]}. Raises ValueError where the kernel has another number of rows.
  """
  names = sorted(features)
  widths = [features[m].shape[-1] for m in names]
  if sum(widths) != kernel.shape[0]:
    raise ValueError(
      f"the kernel has {kernel.shape[0]} rows, but the features {widths} need {sum(widths)}"
    )
  out, start = {}, 0
  for m, width in zip(names, widths):
    out[m] = kernel[start : start + width]
    start += width
  return out


def total_width(features: Mapping[str, jax.Array]) -> int:
  r"""\sum_m D_m, the rows of such a kernel."""
  return sum(h.shape[-1] for h in features.values())
