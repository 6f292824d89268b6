"""crop_mean in Triton: the functions of _reference/crop_mean.py, which are those of crop_resize's mean.

A crop is A_y v A_x^T; its mean is w_y v w_x^T with the means of their columns, w_y [H] and w_x [W]. A program makes
the blocks of both that it needs: of the rows and columns that its box touches, or of its tile of a frame.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import readers, sample, touched, weights
from .images import (
    SIZES,
    Images,
    Variant,
    along_channels,
    along_columns,
    along_rows,
    box_and_frame,
    empty_images,
    image,
    launch,
    load,
    load_affine,
    load_box,
    next_box,
    num_frames,
    store,
    zero_block,
)


@triton.jit
def _mean_weights(r, centre, extent, positions, size, variant):
    """The mean over all outputs of the weight of pixels r, with its derivatives, and which pixels are read at all."""
    first, last = readers(r, centre, extent, positions, size, variant)
    value = (r * 0).to(centre.dtype)
    by_centre, by_extent, read = value, value, r < 0
    for a in range(tl.max(last - first)):
        begin, end, filter = sample(centre, extent, first + a, positions, size, variant)
        weight = weights(filter, r, variant)
        there = (first + a < last) & (begin <= r) & (r < end)
        value += tl.where(there, weight[0], 0.0)
        by_centre += tl.where(there, weight[1], 0.0)
        by_extent += tl.where(there, weight[2], 0.0)
        read = read | there
    share = 1.0 / tl.cast(positions, centre.dtype)
    return (value * share, by_centre * share, by_extent * share), read & (r < size)
