"""When to stop: from the logits of every exit to who leaves where, what it costs and how good it is."""

from .curve import Curve, exit_curve, load_thresholds
from .evaluate import Evaluation, evaluate_thresholds
from .loop import Decider, ExitLoop, Gate, decide
from .metrics import average_precision, mean_average_precision, top_k_accuracy
from .scores import exit_score
from .solve import solve_thresholds
from .stored_logits import StoredLogits
from .thresholds import Thresholds

__all__ = [
    "Curve",
    "Decider",
    "Evaluation",
    "ExitLoop",
    "Gate",
    "StoredLogits",
    "Thresholds",
    "average_precision",
    "decide",
    "evaluate_thresholds",
    "exit_curve",
    "exit_score",
    "load_thresholds",
    "mean_average_precision",
    "solve_thresholds",
    "top_k_accuracy",
]
