"""Fusion heads, each trained as `joint` is, as rows; `--fusion` gives any of them to all rows."""

from typing import Any

from mmfuse import fusion
from mmfuse.methods._entry import ALL_TASKS, CLASSES, LABELLED, row
from mmfuse.methods.heads._head import head

__all__: list[str] = []  # the builders are made below, one a fusion

# name: (fidelity, where from)
_HEADS: dict[str, tuple[str, dict[str, Any]]] = {
  "concat": ("parity", {"about": "one linear map"}),
  "early": ("equations", {"key": "liang2021multibench", "as_in": True}),
  "sum": ("parity", {"about": "one linear map per modality"}),
  "stack": ("parity", {"key": "liang2021multibench", "as_in": True}),
  "gated": ("parity", {"key": "peng2022balanced", "as_in": True}),
  "film": ("parity", {"key": "perez2018film"}),
  "multiplicative": ("parity", {"key": "jayakumar2020multiplicative"}),
  "low_rank": ("parity", {"key": "liu2018efficient"}),
  "tensor": ("parity", {"key": "zadeh2017tensor"}),
  "nl_gate": ("parity", {"key": "wang2018nonlocal"}),
  "mult": ("parity", {"key": "tsai2019multimodal"}),
  "bottleneck": ("equations", {"key": "nagrani2021attention"}),
  "perceiver": ("equations", {"key": "jaegle2021perceiver"}),
  "product_of_experts": ("equations", {"key": "hinton2002training"}),
  "gaussian_product": ("parity", {"key": "wu2018multimodal"}),
  "mixture_of_experts": ("equations", {"key": "jacobs1991adaptive"}),
  "confidence": ("equations", {"key": "zhang2023provable"}),
  "attention": ("parity", {"about": "TorchMultimodal (facebookresearch/multimodal)"}),
  "deep_set": ("parity", {"key": "zaheer2017deep"}),
  "cosine": ("parity", {"key": "xu2023mmcosine"}),
  "mmtm": ("equations", {"key": "joze2020mmtm"}),
}
_TASKS = {  # the others are defined for every label
  "product_of_experts": CLASSES,
  "mixture_of_experts": CLASSES,
  "confidence": CLASSES,
  "cosine": LABELLED,
}


def _row(name, module):
  fidelity, source = _HEADS[name]
  build = head(name, module)
  return row(build, "head", fidelity, of=module, tasks=_TASKS.get(name, ALL_TASKS), **source)


ROWS = {name: _row(name, module) for name, module in fusion.FUSIONS.items()}
