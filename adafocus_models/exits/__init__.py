"""When to stop: from the logits of every exit to who leaves where, what it costs and how good it is."""

from .curve import Curve, exit_curve
from .evaluate import Evaluation, evaluate_thresholds
from .loop import ExitLoop, Gate
from .metrics import average_precision, mean_average_precision, top_k_accuracy
from .scores import exit_score
from .solve import solve_thresholds
from .thresholds import Thresholds

__all__ = [
    "Curve",
    "Evaluation",
    "ExitLoop",
    "Gate",
    "Thresholds",
    "average_precision",
    "evaluate_thresholds",
    "exit_curve",
    "exit_score",
    "mean_average_precision",
    "solve_thresholds",
    "top_k_accuracy",
]
