"""Data sets and your own arrays: read at the door, split, standardised from training rows only."""

from mmfuse.data._arrays import from_arrays
from mmfuse.data._arrays import table_from_arrays
from mmfuse.data._error import DataError
from mmfuse.data._fake import fake
from mmfuse.data._index import DATASETS
from mmfuse.data._index import Dataset
from mmfuse.data._index import catalogue
from mmfuse.data._index import load
from mmfuse.data._inputs import read_inputs
from mmfuse.data._npz import read_arrays
from mmfuse.data._ntu import Recording
from mmfuse.data._ntu import ntu_arrays
from mmfuse.data._ntu import ntu_names
from mmfuse.data._ntu import read_ntu
from mmfuse.data._ntu import write_ntu
from mmfuse.data._provable import overlapping
from mmfuse.data._provable import overlapping_arrays
from mmfuse.data._provable import overlapping_risk
from mmfuse.data._scaler import Scaler
from mmfuse.data._split import Split
from mmfuse.data._split import Splits
from mmfuse.data._table import Table
from mmfuse.data._target import Target

__all__ = [
  "DATASETS",
  "DataError",
  "Dataset",
  "Recording",
  "Scaler",
  "Split",
  "Splits",
  "Table",
  "Target",
  "catalogue",
  "fake",
  "from_arrays",
  "load",
  "ntu_arrays",
  "ntu_names",
  "overlapping",
  "overlapping_arrays",
  "overlapping_risk",
  "read_arrays",
  "read_inputs",
  "read_ntu",
  "table_from_arrays",
  "write_ntu",
]
