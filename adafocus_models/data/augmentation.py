"""What training sees of a video: a random box of its frames, mirrored or not, resized, in one pass over the pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import adafocus_ops
from adafocus_ops.checks import check_bool, check_positive_ints, require

from .clips import centre_offset

# Sides of the boxes, in short sides of the frame, from the largest.
SCALES = (1, 0.875, 0.75, 0.66)
# By how many places in SCALES the two sides of a box may differ.
MAX_DISTORT = 1
# A side that is so close to the output's is taken as equal, and needs no resizing then.
SNAPS_WITHIN = 3  # pixels, exclusive
# Where boxes begin (y, x), in quarters of what they leave free: corners, centre, middles of sides, quarter points.
PLACES = (
    *((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)),
    *((2, 0), (2, 4), (4, 2), (0, 2)),
    *((1, 1), (1, 3), (3, 1), (3, 3)),
)


def training_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    size: int,
    scales: Sequence[float] = SCALES,
    flip: bool,
) -> Tensor:
    """A random box of the published training transform (random scaling and cropping, then a flip).

    A side is floor(scale * min(height, width)) for one of the scales, or `size` if that is less than 3 pixels away; all
    pairs of sides whose scales are neighbours or the same are as likely. The box begins at one of 13 places: a multiple
    0 to 4 of floor((height - h) / 4) from the top, and so from the left: corners, centre, middles, quarter points.

    Args:
        height, width: of the frames in pixels; published with 256 as the shorter, for a size of 224.
        rng: what is drawn with.
        size: S of the square that the box will be resized to, in pixels; at most the short side.
        scales: from the largest, each above 0 and at most 1.
        flip: mirror every second box, on average. False where labels have sides ("pushing from left to right"); all
            else is drawn the same.

    Returns:
        [4] float32 (cy, cx, h, w) in pixels, whole pixels inside the frame; w is negative if it is mirrored, as
        `crop_resize` has it.

    Raises:
        TypeError, ValueError: sizes or scales that do not fit.

    Source: TSM's GroupMultiScaleCrop and GroupRandomHorizontalFlip, which Uni-AdaFocus trains with.
    """
    _check_fits(height, width, size)
    check_bool("flip", flip)
    require(
        len(scales) > 0 and all(0 < scale <= 1 for scale in scales),
        lambda: f"scales must be numbers above 0 and at most 1, got {scales!r}",
    )
    sides = [_side(scale, min(height, width), size) for scale in scales]
    near = [(i, j) for i in range(len(sides)) for j in range(len(sides)) if abs(i - j) <= MAX_DISTORT]
    h, w = (sides[i] for i in near[rng.integers(len(near))])
    down, right = PLACES[rng.integers(len(PLACES))]
    mirrored = rng.random() < 0.5 and flip  # drawn in any case
    return _box(down * ((height - h) // 4), right * ((width - w) // 4), h, w, mirrored)


def centre_box(height: int, width: int, size: int) -> Tensor:
    """[4] float32 (cy, cx, h, w): the size x size pixels that `read_clip` cuts out of the centre of a frame.

    Raises:
        TypeError, ValueError: sizes that do not fit.
    """
    _check_fits(height, width, size)
    return _box(centre_offset(height, size), centre_offset(width, size), size, size, False)


def read_augmented(
    frames: Tensor,
    box: Tensor,
    size: int,
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    dtype: torch.dtype | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """One box of all frames of a video, resized to a square and normalised (or kept as bytes), in one pass.

    As the published chain (cut, resize with PIL's BILINEAR, flip, divide by 255, normalise), but for one thing: PIL
    rounds to bytes, after the rows and again after the columns, and here nothing is rounded before the dtype. So they
    differ by up to 1 of 255 (1.003 was seen; 0.503 where one axis is resized, 3e-5 where none is). As PIL, it
    averages along an axis that shrinks, and reads nothing outside of a box of whole pixels.

    Args:
        frames: [N, 3, H, W] uint8, any strides.
        box: [4] floating point (cy, cx, h, w) in pixels, on any device; w negative mirrors.
        size: S.
        mean, std: of each channel, for frames in [0, 1]; None leaves them as they are.
        dtype: of the result; default that of out, or float32, or without mean and std that of the frames.
        out: [N, 3, S, S], contiguous or channels_last, on the device of the frames: the result is written there.

    Returns:
        [N, 3, S, S] of dtype in the memory format of the frames: `out` if it is given.

    Raises:
        TypeError, ValueError: as `adafocus_ops.crop_resize`.
    """
    require(box.shape == (4,), lambda: f"box must be [4], got {tuple(box.shape)}")
    boxes = box.to(frames.device, non_blocking=True).expand(frames.shape[0], 4)
    return adafocus_ops.crop_resize(frames, boxes, size, mean=mean, std=std, antialias=True, out_dtype=dtype, out=out)


def _check_fits(height: int, width: int, size: int) -> None:
    check_positive_ints(height=height, width=width, size=size)
    require(
        size <= min(height, width),
        lambda: f"size must be at most the short side of frames of {height} x {width} pixels, got {size}",
    )


def _side(scale: float, short_side: int, size: int) -> int:
    """A side of a box in pixels."""
    side = int(short_side * scale)
    return size if abs(side - size) < SNAPS_WITHIN else max(side, 1)


def _box(top: int, left: int, h: int, w: int, mirrored: bool) -> Tensor:
    return torch.tensor([top + h / 2, left + w / 2, h, -w if mirrored else w], dtype=torch.float32)
