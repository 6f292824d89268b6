"""Predictions out: which frames and boxes a model looked at, as one picture or as a video; and plots of early exits.

Needs PyAV and Pillow: pip install "adafocus[video]"; plots, matplotlib: pip install "adafocus[bench]".
"""

from .contact_sheets import contact_sheet
from .curves import plot_curve, plot_exits
from .marked_videos import write_video

__all__ = ["contact_sheet", "plot_curve", "plot_exits", "write_video"]
