"""Kernels that are not built yet, as `slug` or `slug/prefix`. Their cases are not collected."""

PENDING = (
  "cmimh",
  "dibs",
  "diverse_representations",
  "missing_prediction/embedding_substitution",
  "missing_prediction/predictor_mlp",
  "missing_prediction/read_only_prompt_attention",
  "missing_prediction/vicreg",
  "mmiai",
  "multimodal_vaes",
  "multimodal_vaes_is",
  "umurl",
  "wss_cmer",
)
