"""Which function answers which parity case, and how closely. Shapes and numbers come from the case."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.parity._balancing import (
    bogc_evidence, bogc_laplace, bogc_precision, cagrad, mgda, mimo_kernel, mimo_trajectory, min_norm, mmpareto,
    ogm_balance_benchmark, ogm_ge, pcgrad, stch,
)
