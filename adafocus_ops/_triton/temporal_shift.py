"""temporal_shift in Triton: _reference/temporal_shift.py.

Frames are rows of memory; every element of one comes from the same place of its frame or of a neighbour.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layouts import memory_format_of
from .launch import launch
from .rows import Rows, Variant, element, locate


@triton.jit(do_not_specialize=("frames", "num_frames", "fold"))
def _fwd(
    target,
    source,
    frames,
    num_frames,
    fold,
    elements,
    unit: tl.constexpr,
    period: tl.constexpr,
    inverse: tl.constexpr,
    variant,
):
    """The first `fold` units of every `period` elements (of all if it is 0) move one way and the next the other."""
    n, e = locate(elements, variant)
    fold = tl.cast(fold, variant.offset) * unit
    place = e % period if period else e
    later: tl.constexpr = -1 if inverse else 1
    step = tl.where(place < fold, later, tl.where(place < 2 * fold, -later, 0))
    t = n % num_frames + step
    there = (n < frames) & (e < elements)
    at = source.data + (n + step) * source.row_stride + element(source, e)
    value = tl.load(at, there & (t >= 0) & (t < num_frames), other=0)
    tl.store(target.data + n * target.row_stride + element(target, e), value, there)


def fwd(x: Tensor, num_frames: int, fold: int, inverse: bool) -> Tensor:
    memory_format = memory_format_of(x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format)
    if out.numel() == 0:
        return out
    frames, channels, height, width = x.shape
    # In memory a frame is a block of channels for each pixel, or the pixels of one channel after the other.
    period = channels if memory_format == torch.channels_last else 0
    moved = fold if period else fold * height * width
    source, target = Rows.pair(x, out)
    elements = math.prod(x.shape[1:])
    variant = Variant.of(target, frames, elements)
    unit = math.gcd(moved, 16)  # elements that move together, as the kernel knows
    arguments = (target, source, frames, num_frames, moved // unit, elements, unit, period, inverse, variant)
    launch(_fwd, variant.blocks(frames, elements), x.device, *arguments)
    return out
