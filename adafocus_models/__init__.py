"""The paper's models on the public ops: `create_model` first, then call what it returns on frames."""

from .checkpoints import load_backbone
from .costs import multiply_adds
from .folding import fold_batch_norm
from .mobilenet_v2 import MobileNetV2
from .registry import create_model, list_models
from .resnet import ResNet50
from .tsm_plus import TSMPlus
from .uni_adafocus_tsm import UniAdaFocusTSM
from .video_model import STAGES, Output, VideoModel

__all__ = [
    "STAGES",
    "MobileNetV2",
    "Output",
    "ResNet50",
    "TSMPlus",
    "UniAdaFocusTSM",
    "VideoModel",
    "create_model",
    "fold_batch_norm",
    "list_models",
    "load_backbone",
    "multiply_adds",
]
