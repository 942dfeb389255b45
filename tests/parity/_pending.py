"""Kernels that are not built yet, as `slug` or `slug/prefix`. Their cases are not collected."""

PENDING = ()
