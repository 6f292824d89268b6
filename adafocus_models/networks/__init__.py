"""The paper's networks, their weights in files, and what they cost."""

from .checkpoints import load_backbone
from .costs import multiply_adds
from .folding import fold_batch_norm
from .tsm_plus import TSMPlus
from .uni_adafocus_tsm import UniAdaFocusTSM
from .video_model import STAGES, Configuration, Output, PaperFigures, VideoModel

__all__ = [
    "STAGES",
    "Configuration",
    "Output",
    "PaperFigures",
    "TSMPlus",
    "UniAdaFocusTSM",
    "VideoModel",
    "fold_batch_norm",
    "load_backbone",
    "multiply_adds",
]
