"""Fused kernels for adaptive video recognition: see `crop_resize` first.

Every op runs on the backends reference, cpu, triton and cuda as far as they are built;
`python -m adafocus_ops` prints what is available here and why the rest is not.
"""

from . import backends, boxes
from ._crop_mean import crop_mean
from ._crop_resize import crop_resize
from ._depthwise_conv3d import depthwise_conv3d
from ._exit_gate import ExitGate, confidence, entropy, exit_gate
from ._expected_value import expected_value
from ._gather_rows import gather_rows
from ._quantile_frames import quantile_frames
from ._scatter_rows import scatter_rows
from ._temporal_shift import temporal_shift
from ._version import __version__
from ._weighted_sample import weighted_sample
from .backends import use_backend
from .checks import set_debug

__all__ = [
    "ExitGate",
    "__version__",
    "backends",
    "boxes",
    "confidence",
    "crop_mean",
    "crop_resize",
    "depthwise_conv3d",
    "entropy",
    "exit_gate",
    "expected_value",
    "gather_rows",
    "quantile_frames",
    "scatter_rows",
    "set_debug",
    "temporal_shift",
    "use_backend",
    "weighted_sample",
]
