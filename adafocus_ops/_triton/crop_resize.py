"""crop_resize in Triton: the functions of _reference/crop_resize.py.

Forward: a program makes a strip of a patch. Gradient of the boxes: a program goes through a patch. Gradient of the
frames: a program gathers what a tile of a frame gets from the outputs that read it, box after box in their order.
So nothing is added in an order that depends on the run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import bilinear_offset, readers, sample, touches, weights
from .images import (
    SIZES,
    Images,
    Variant,
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

# So many programs fill a large GPU several times over; where there are more, each makes up to MAX_STEPS blocks.
MANY_PROGRAMS = 4096
MAX_STEPS = 8


@triton.jit
def _samples(centre, extent, i, positions, size, valid, variant):
    """The samples of a block of outputs; those beyond the last output, and of boxes that are not valid, read nothing."""
    begin, end, filter = sample(centre, extent, i, positions, size, variant)
    return begin, tl.where(i < tl.where(valid, positions, 0), end, begin), filter


@triton.jit
def _most(samples):
    """How many pixels the longest sample of a block reads."""
    return tl.max(samples[1] - samples[0])


@triton.jit
def _weights(samples, a, variant):
    """Pixel a of those that each sample reads, whether there is one, and its weight with derivatives."""
    begin, end, filter = samples
    pixel = begin + a
    weight = weights(filter, pixel, variant)
    there = pixel < end
    if variant.antialias:  # a triangle may end before its last pixel
        there = there & (weight[0] != 0)
    return pixel, there, weight


@triton.jit
def _resample(frames, frame, c, y, x, dy: tl.constexpr, dx: tl.constexpr, dtype: tl.constexpr, variant):
    """What outputs read: the weighted sum of pixels, and of their weights if the pixel is in the frame.

    dy, dx: 0 for the weight along the axis, 1 for its derivative by the box's centre, 2 by the extent.
    """
    total = zero_block(variant, dtype), along_rows(tl.zeros_like(y[0]).to(dtype), variant)
    if variant.antialias:
        for a in range(_most(y)):
            for b in range(_most(x)):
                total = _add(total, frames, frame, c, y, x, a, b, dy, dx, variant)
    else:
        for a in tl.static_range(2):
            for b in tl.static_range(2):
                total = _add(total, frames, frame, c, y, x, a, b, dy, dx, variant)
    return total
