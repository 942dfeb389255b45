"""Kernels that are not built yet, as `slug` or `slug/prefix`. Their cases are not collected."""

PENDING = (
  "mmiai",
  "multimodal_vaes",
  "multimodal_vaes_is",
  "umurl",
  "wss_cmer",
)
