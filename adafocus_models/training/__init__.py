"""Learning where, when and how long to look: the paper's objectives and recipes; `training.loop` trains by them."""

from .adafocus_v1 import v1_objective, v1_tsm_objective
from .adafocus_v2 import v2_objective, v2_tsm_objective
from .losses import Losses
from .objective import objective
from .recipes import RATES, RECIPES, Recipe, changed, rates_of
from .uni_adafocus import uni_objective

__all__ = [
    "RATES",
    "RECIPES",
    "Losses",
    "Recipe",
    "changed",
    "objective",
    "rates_of",
    "uni_objective",
    "v1_objective",
    "v1_tsm_objective",
    "v2_objective",
    "v2_tsm_objective",
]
