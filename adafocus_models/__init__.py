"""The paper's models on the public ops: `create_model` first, then call what it returns on frames."""

from .backbones import MobileNetV2, ResNet50
from .exits import (
    Curve,
    Evaluation,
    ExitLoop,
    Thresholds,
    average_precision,
    evaluate_thresholds,
    exit_curve,
    exit_score,
    mean_average_precision,
    solve_thresholds,
    top_k_accuracy,
)
from .networks import (
    STAGES,
    Configuration,
    Output,
    PaperFigures,
    TSMPlus,
    UniAdaFocusTSM,
    VideoModel,
    fold_batch_norm,
    load_backbone,
    multiply_adds,
)
from .registry import architectures, configurations, create_model, list_models

__all__ = [
    "STAGES",
    "Configuration",
    "Curve",
    "Evaluation",
    "ExitLoop",
    "MobileNetV2",
    "Output",
    "PaperFigures",
    "ResNet50",
    "TSMPlus",
    "Thresholds",
    "UniAdaFocusTSM",
    "VideoModel",
    "architectures",
    "average_precision",
    "configurations",
    "create_model",
    "evaluate_thresholds",
    "exit_curve",
    "exit_score",
    "fold_batch_norm",
    "list_models",
    "load_backbone",
    "mean_average_precision",
    "multiply_adds",
    "solve_thresholds",
    "top_k_accuracy",
]
