"""Engine: a model made fast on this machine, its choices, and what it reports."""

from .choices import Choice, Choices
from .engine import Engine
from .layers import Layer
from .onnx_files import write_onnx
from .portable import portable
from .predictor import VideoPredictor
from .report import Report
from .runtimes import RUNTIMES, Runtime
from .sources import read_clips
from .stages import stage_ms
from .stats import Stats
from .streams import Result

__all__ = [
    "RUNTIMES",
    "Choice",
    "Choices",
    "Engine",
    "Layer",
    "Report",
    "Result",
    "Runtime",
    "Stats",
    "VideoPredictor",
    "portable",
    "read_clips",
    "stage_ms",
    "write_onnx",
]
