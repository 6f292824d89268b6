"""The modules of bench/, which is a folder of scripts, not a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

import _environment as environment
import _rows as rows
import _tables as tables
import _timing as timing
import ops
import report
import throughput

BENCH = Path(ops.__file__).parent

__all__ = ["BENCH", "environment", "ops", "report", "rows", "tables", "throughput", "timing"]
