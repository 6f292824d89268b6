"""Engine: a model made fast on this machine, its choices, and what it reports."""

from .choices import Choice, Choices
from .engine import Engine
from .layers import Layer
from .report import Report
from .runtimes import RUNTIMES, Runtime

__all__ = ["RUNTIMES", "Choice", "Choices", "Engine", "Layer", "Report", "Runtime"]
