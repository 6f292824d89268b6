"""Frames, as the readers of files and of folders give them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image


class Frame(NamedTuple):
    """One frame, resized, and cropped where it is to be."""

    pixels: np.ndarray  # [H, W, 3] uint8
    time: float  # seconds after the video's first frame; NaN where the source has no times


Times = Sequence[float]  # of all frames of a video, as Frame.time
# Numbers of the frames to keep. A reader may ask more than once, with times that turned out wrong before: equal times
# must give an equal answer.
Wanted = Callable[[Times], set[int]]
Prepare = Callable[[Image.Image], np.ndarray]  # RGB image of any size -> pixels [H, W, 3]
Frames = tuple[Times, dict[int, Frame]]  # times of all frames of the video; number -> frame, of those kept
