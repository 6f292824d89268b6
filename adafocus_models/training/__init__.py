"""Learning where, when and how long to look: the paper's objectives and recipes; `training.loop` trains by them."""

from .losses import Losses
from .objective import objective
from .recipes import RATES, RECIPES, Recipe, changed, rates_of

__all__ = ["RATES", "RECIPES", "Losses", "Recipe", "changed", "objective", "rates_of"]
