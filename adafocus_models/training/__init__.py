"""Learning where, when and how long to look: the paper's objectives."""

from .losses import Losses
from .objective import objective

__all__ = ["Losses", "objective"]
