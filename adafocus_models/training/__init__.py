"""Learning where, when and how long to look: the paper's objectives, recipes, and the loop."""

from .losses import Losses
from .objective import objective
from .recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Losses", "Recipe", "objective"]
