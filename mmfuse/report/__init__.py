"""One honest table: records of runs in, markdown, CSV, terminal, PNG and one HTML page out."""

from mmfuse.report._bars import bars
from mmfuse.report._best import best_fused
from mmfuse.report._curves import curves
from mmfuse.report._html import html
from mmfuse.report._lines import CONSTANT
from mmfuse.report._lines import LINEAR
from mmfuse.report._missing import Missing
from mmfuse.report._missing_curve import missing_curve
from mmfuse.report._overlays import overlays
from mmfuse.report._precision_recall import RecallCurves
from mmfuse.report._precision_recall import precision_recall
from mmfuse.report._precision_recall import precision_recall_csv
from mmfuse.report._records import read_jsonl
from mmfuse.report._records import write_jsonl
from mmfuse.report._records import write_whole
from mmfuse.report._samples import samples
from mmfuse.report._statistics import Difference
from mmfuse.report._statistics import Estimate
from mmfuse.report._statistics import estimate
from mmfuse.report._statistics import holm
from mmfuse.report._statistics import paired
from mmfuse.report._summary import DEFAULT_BASELINES
from mmfuse.report._summary import Row
from mmfuse.report._summary import Summary
from mmfuse.report._summary import summarise
from mmfuse.report._table import csv
from mmfuse.report._table import markdown
from mmfuse.report._terminal import TERMINAL_WIDTH
from mmfuse.report._terminal import terminal
from mmfuse.report._words import caption
from mmfuse.report._words import sentence

__all__ = [
  "CONSTANT",
  "DEFAULT_BASELINES",
  "LINEAR",
  "TERMINAL_WIDTH",
  "Difference",
  "Estimate",
  "Missing",
  "RecallCurves",
  "Row",
  "Summary",
  "bars",
  "best_fused",
  "caption",
  "csv",
  "curves",
  "estimate",
  "holm",
  "html",
  "markdown",
  "missing_curve",
  "overlays",
  "paired",
  "precision_recall",
  "precision_recall_csv",
  "read_jsonl",
  "samples",
  "sentence",
  "summarise",
  "terminal",
  "write_jsonl",
  "write_whole",
]
