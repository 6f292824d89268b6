"""Frames, as the readers of files and of folders give them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image


class Frame(NamedTuple):
    """One frame, resized and cropped."""

    pixels: np.ndarray  # [S, S, 3] uint8
    time: float  # seconds after the video's first frame; NaN where the source has no times


Wanted = Callable[[int], set[int]]  # number of frames in the video -> numbers of those to keep
Prepare = Callable[[Image.Image], np.ndarray]  # RGB image of any size -> pixels [S, S, 3]
Frames = tuple[int, dict[int, Frame]]  # number of frames in the video; number -> frame, of those kept
