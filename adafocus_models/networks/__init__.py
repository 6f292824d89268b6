"""The paper's networks, their weights in files, and what they cost."""

from .adafocus_v1 import AdaFocusV1
from .adafocus_v1_tsm import AdaFocusV1TSM
from .adafocus_v2 import AdaFocusV2
from .adafocus_v2_tsm import AdaFocusV2TSM
from .checkpoints import load_backbone
from .costs import exit_costs, multiply_adds
from .folding import fold_batch_norm
from .tsm import TSM
from .tsm_plus import TSMPlus
from .uni_adafocus import UniAdaFocus
from .uni_adafocus_tsm import UniAdaFocusTSM
from .uni_adafocus_x3d import UniAdaFocusX3D
from .video_model import STAGES, Configuration, Decision, Output, PaperFigures, VideoModel
from .x3d import X3DL, X3DM, X3DS

__all__ = [
    "STAGES",
    "TSM",
    "X3DL",
    "X3DM",
    "X3DS",
    "AdaFocusV1",
    "AdaFocusV1TSM",
    "AdaFocusV2",
    "AdaFocusV2TSM",
    "Configuration",
    "Decision",
    "Output",
    "PaperFigures",
    "TSMPlus",
    "UniAdaFocus",
    "UniAdaFocusTSM",
    "UniAdaFocusX3D",
    "VideoModel",
    "exit_costs",
    "fold_batch_norm",
    "load_backbone",
    "multiply_adds",
]
