"""An encoder whose result is tokens, of whatever a modality's own encoder reads."""

from typing import Any

from mmfuse.encoders._chain import Chain
from mmfuse.encoders._default import keep_steps
from mmfuse.encoders._tokens import Tokens
from mmfuse.encoders._transformer import Transformer


def token_encoder(module: Any, *, features: int = 32, layers: int = 2, heads: int = 4) -> Any:
  """`module` where it keeps its steps, else a Transformer of `Tokens` of what it reads: [B, n, D].

  `Conv1D` and whatever has a `step_features` stay, with all their steps (`keep_steps`). D is the
  `step_features` of the result. Without dropout.

  Args:
    module: an encoder.
    features: D of the Transformer, default 32; sizes are ours.
    layers: of it, default 2.
    heads: of its attention, default 4.
  """
  module = keep_steps(module)
  if getattr(module, "step_features", None) is not None:
    return module
  first = getattr(module, "stages", (module,))[0]  # integers are embedded in the first stage
  tokens = Tokens(getattr(first, "vocabulary", None))
  return Chain((tokens, Transformer(features, layers, heads, dropout=0.0, pool="none")))
