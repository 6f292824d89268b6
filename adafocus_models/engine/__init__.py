"""Engine: a model made fast on this machine, its choices, and what it reports."""

from .choices import Choice, Choices
from .engine import Engine
from .layers import Layer
from .onnx_files import write_onnx
from .portable import portable
from .report import Report
from .runtimes import RUNTIMES, Runtime
from .stages import stage_ms

__all__ = [
    "RUNTIMES",
    "Choice",
    "Choices",
    "Engine",
    "Layer",
    "Report",
    "Runtime",
    "portable",
    "stage_ms",
    "write_onnx",
]
