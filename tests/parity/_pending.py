"""Kernels that are not built yet, as `slug` or `slug/prefix`. Their cases are not collected."""

PENDING = (
  "cmimh",
  "dibs",
  "diverse_representations",
  "dmrnet",
  "mmanet",
  "mmiai",
  "modality_distillation",
  "multimodal_vaes",
  "multimodal_vaes_is",
  "umurl",
  "unseen_interaction",
  "wss_cmer",
)
