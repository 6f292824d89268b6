"""Predictions out: which frames and boxes a model looked at, as one picture or as a video.

Needs PyAV and Pillow: pip install "adafocus[video]".
"""

from .contact_sheets import contact_sheet
from .marked_videos import write_video

__all__ = ["contact_sheet", "write_video"]
