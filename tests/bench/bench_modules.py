"""The modules of bench/, which is a folder of scripts, not a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import _bandwidth as bandwidth
import _cases as cases
import _console as console
import _crops as crops
import _environment as environment
import _rows as rows
import _sampling as sampling
import _scaling as scaling
import _selection as selection
import _shift as shift
import _tables as tables
import _timing as timing
import cuda_report
import estimators
import gpu
import ops
import report
import throughput

BENCH = Path(ops.__file__).parent

__all__ = [
    "BENCH",
    "bandwidth",
    "cases",
    "console",
    "crops",
    "cuda_report",
    "environment",
    "estimators",
    "gpu",
    "ops",
    "report",
    "rows",
    "sampling",
    "scaling",
    "selection",
    "shift",
    "tables",
    "throughput",
    "timing",
]
