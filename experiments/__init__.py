"""Experiments, one module a claim: `python -m experiments.<name>`."""

from mmfuse import train

train.keep_freed_memory()  # here, for it must come before the first array of any of them
