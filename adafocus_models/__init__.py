"""The paper's models on the public ops: `create_model` first, then call what it returns on frames."""

from .checkpoints import load_backbone
from .costs import multiply_adds
from .folding import fold_batch_norm
from .metrics import average_precision, mean_average_precision, top_k_accuracy
from .mobilenet_v2 import MobileNetV2
from .registry import create_model, list_models
from .resnet import ResNet50
from .thresholds import Curve, Evaluation, Thresholds, evaluate_thresholds, exit_curve, exit_score, solve_thresholds
from .tsm_plus import TSMPlus
from .uni_adafocus_tsm import UniAdaFocusTSM
from .video_model import STAGES, Output, VideoModel

__all__ = [
    "STAGES",
    "Curve",
    "Evaluation",
    "MobileNetV2",
    "Output",
    "ResNet50",
    "TSMPlus",
    "Thresholds",
    "UniAdaFocusTSM",
    "VideoModel",
    "average_precision",
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
