"""crop_resize in Triton: the functions of _reference/crop_resize.py.

Forward: a program makes a strip of a patch. Gradient of the boxes: a program goes through a patch. Gradient of the
frames: a program gathers what a tile of a frame gets from the outputs that read it, box after box in their order.
So nothing is added in an order that depends on the run.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layouts import empty_images
from .geometry import Dual, Footprint, footprint_of, readers_of, touches, weight_of
from .images import (
    SIZES,
    Box,
    Images,
    Variant,
    along_c,
    along_x,
    along_y,
    axes_of,
    both,
    box_and_frame,
    image,
    load,
    load_affine,
    load_box,
    locate,
    next_box,
    num_frames,
    planes_of,
    product,
    store,
    store_box_gradient,
    zero_block,
    zero_pixels,
)
from .launch import THREADS, launch

# A program makes one block while there are few blocks; where they would fill a large GPU several times over, it makes a
# strip of several.
PROGRAMS_THAT_FILL_A_GPU = 4096
MAX_BLOCKS_PER_PROGRAM = 8


# ----------------------------------------------------------------------------------------------------
# Pixels that outputs read: number a along y and b along x of an output's footprints


class Read(NamedTuple):
    """One pixel of each footprint of a block of outputs along an axis."""

    pixel: tl.tensor
    there: tl.tensor  # whether the footprint has such a pixel
    weight: Dual


@triton.jit
def _footprints(axis, i, valid, variant):
    """The footprints of a block of outputs; those beyond the last, and all of a box that is not valid, read nothing."""
    begin, end, formula = footprint_of(axis, i, variant)
    return Footprint(begin, tl.where(i < tl.where(valid, axis.positions, 0), end, begin), formula)


@triton.jit
def _longest(footprints):
    """The number of pixels that the longest footprint of a block reads."""
    return tl.max(footprints.end - footprints.begin)


@triton.jit
def _read(footprints, a, variant):
    """Pixel a of each footprint."""
    pixel = footprints.begin + a
    weight = weight_of(footprints, pixel, variant)
    there = pixel < footprints.end
    if variant.antialias:  # a triangle may end before its last pixel
        there = there & (weight.value != 0)
    return Read(pixel, there, weight)


@triton.jit
def _load(planes, y, x, dtype: tl.constexpr, variant):
    """The pixels that are read along both axes, zero where there are none, and whether there are."""
    value = load(planes, y.pixel, x.pixel, y.there, x.there, dtype, variant)
    return value, both(y.there, x.there, variant)


# ----------------------------------------------------------------------------------------------------
# Forward


@triton.jit
def _add(total, inside, planes, y, x, variant):
    """Adds pixels with their weights, and the weights of pixels in the frame."""
    value, there = _load(planes, y, x, total.dtype, variant)
    weight = product(y.weight.value, x.weight.value, variant)
    return tl.fma(value, weight, total), inside + tl.where(there, weight, 0.0)


@triton.jit
def _sum(planes, y, x, dtype: tl.constexpr, variant):
    """The weighted sum of all pixels that outputs with footprints y and x read, and of the weights in the frame."""
    total, inside = zero_block(variant, dtype), zero_pixels(variant, dtype)
    if variant.antialias:
        for a in range(_longest(y)):
            for b in range(_longest(x)):
                total, inside = _add(total, inside, planes, _read(y, a, variant), _read(x, b, variant), variant)
    else:
        for a in tl.static_range(2):
            for b in tl.static_range(2):
                total, inside = _add(total, inside, planes, _read(y, a, variant), _read(x, b, variant), variant)
    return total, inside


@triton.jit(do_not_specialize=SIZES)
def _fwd(out, frames, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, strip, variant):
    k, c, top, left = locate(tl.program_id(0), out_h, out_w, strip, variant)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
    patch = image(out, k.to(tl.int64))
    if affine is not None:
        scale, shift = load_affine(affine, c, variant)
    j = left + tl.arange(0, variant.block_x)
    x = _footprints(x_axis, j, valid, variant)
    for i0 in range(top, tl.minimum(top + strip, out_h), variant.block_y):
        i = i0 + tl.arange(0, variant.block_y)
        y = _footprints(y_axis, i, valid, variant)
        total, inside = _sum(planes_of(frames, frame, c, variant), y, x, box.cy.dtype, variant)
        if affine is not None:  # pixels outside are zero after it: it counts for those in the frame
            total = tl.fma(total, along_c(scale, variant), inside * along_c(shift, variant))
        value = total + tl.where(valid, 0.0, float("nan"))
        store(planes_of(out, patch, c, variant), i, j, i < out_h, j < out_w, value, variant)


def fwd(
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
    antialias: bool,
    out_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    out = empty_images(frames, (boxes.shape[0], frames.shape[-3], out_h, out_w), out_dtype, channels_last)
    fwd_out(out, frames, boxes, frame_index, affine, padding, antialias)
    return out


def fwd_out(
    out: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    padding: str,
    antialias: bool,
) -> None:
    if out.numel() == 0:
        return
    (height, width), (out_h, out_w) = frames.shape[-2:], out.shape[-2:]
    source, target = Images.of(frames), Images.of(out)
    variant = Variant.of(source, out_h, out_w, padding, antialias, target)
    block_y = variant.block_y.value
    all_blocks = out.shape[0] * variant.blocks(out_h, out_w)
    strip = block_y * min(max(all_blocks // PROGRAMS_THAT_FILL_A_GPU, 1), MAX_BLOCKS_PER_PROGRAM)
    programs = out.shape[0] * variant.blocks(block_y * triton.cdiv(out_h, strip), out_w)
    sizes = (num_frames(frames), height, width, out_h, out_w, strip)
    launch(_fwd, programs, frames.device, target, source, boxes, frame_index, affine, *sizes, variant)


# ----------------------------------------------------------------------------------------------------
# Gradient of the boxes


@triton.jit
def _over_channels(x, variant):
    """The sum over the channels of a block if one thread has them all, else nothing is done."""
    if not variant.interleaved and variant.block_y * variant.block_x >= THREADS:
        return tl.sum(x, 0, keep_dims=True)
    else:
        return x


@triton.jit
def _by_weight(g, of_shift, planes, y, x, variant):
    """The gradient of the weights (y times x) of pixels.

    g: the gradient of the outputs, by the scale of the affine; of_shift: by its shift, which padding does not have.
    """
    value, there = _load(planes, y, x, g.dtype, variant)
    value = _over_channels(g * value, variant)
    if of_shift is not None:
        value = tl.where(there, value + of_shift, 0.0)
    return value


@triton.jit
def _add_by_centre(by_weight, y, x, by_cy, by_cx, variant):
    """Adds what the gradient of weights contributes to that of the centre."""
    by_cy = tl.fma(by_weight, product(y.weight.by_centre, x.weight.value, variant), by_cy)
    by_cx = tl.fma(by_weight, product(y.weight.value, x.weight.by_centre, variant), by_cx)
    return by_cy, by_cx


@triton.jit
def _add_by_extent(by_weight, y, x, by_h, by_w, variant):
    """Adds what the gradient of weights contributes to that of the extent."""
    by_h = tl.fma(by_weight, product(y.weight.by_extent, x.weight.value, variant), by_h)
    by_w = tl.fma(by_weight, product(y.weight.value, x.weight.by_extent, variant), by_w)
    return by_h, by_w


@triton.jit
def _add_bilinear(by, zero, g, of_shift, planes, y, x, variant):
    """Adds the gradient of a block of outputs by its box.

    Their gradient by the extent is the taps' offset times that by the centre.
    """
    by_cy, by_cx = zero, zero
    for a in tl.static_range(2):
        for b in tl.static_range(2):
            at_y, at_x = _read(y, a, variant), _read(x, b, variant)
            by_weight = _by_weight(g, of_shift, planes, at_y, at_x, variant)
            by_cy, by_cx = _add_by_centre(by_weight, at_y, at_x, by_cy, by_cx, variant)
    by_h = tl.fma(by_cy, along_y(y.formula.offset, variant), by.h)
    by_w = tl.fma(by_cx, along_x(x.formula.offset, variant), by.w)
    return Box(by.cy + by_cy, by.cx + by_cx, by_h, by_w)


@triton.jit
def _add_antialiased(by, g, of_shift, planes, y, x, variant):
    """Adds the gradient of a block of outputs by its box."""
    for a in range(_longest(y)):
        for b in range(_longest(x)):
            at_y, at_x = _read(y, a, variant), _read(x, b, variant)
            by_weight = _by_weight(g, of_shift, planes, at_y, at_x, variant)
            by_cy, by_cx = _add_by_centre(by_weight, at_y, at_x, by.cy, by.cx, variant)
            by_h, by_w = _add_by_extent(by_weight, at_y, at_x, by.h, by.w, variant)
            by = Box(by_cy, by_cx, by_h, by_w)
    return by


@triton.jit(do_not_specialize=SIZES)
def _bwd_boxes(d_boxes, grad, frames, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, variant):
    k = tl.program_id(0)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
    dtype: tl.constexpr = box.cy.dtype
    patch = image(grad, k.to(tl.int64))
    zero = _over_channels(zero_block(variant, dtype), variant)
    by = Box(zero, zero, zero, zero)
    for channel in range(0, variant.channels, variant.block_c):
        c = channel + tl.arange(0, variant.block_c)
        if affine is not None:
            scale, shift = load_affine(affine, c, variant)
        for j0 in range(0, out_w, variant.block_x):
            j = j0 + tl.arange(0, variant.block_x)
            x = _footprints(x_axis, j, valid, variant)
            for i0 in range(0, out_h, variant.block_y):
                i = i0 + tl.arange(0, variant.block_y)
                y = _footprints(y_axis, i, valid, variant)
                g = load(planes_of(grad, patch, c, variant), i, j, i < out_h, j < out_w, dtype, variant)
                if affine is not None:
                    of_shift = _over_channels(g * along_c(shift, variant), variant)
                    g *= along_c(scale, variant)
                else:
                    of_shift = None
                planes = planes_of(frames, frame, c, variant)
                if variant.antialias:
                    by = _add_antialiased(by, g, of_shift, planes, y, x, variant)
                else:
                    by = _add_bilinear(by, zero, g, of_shift, planes, y, x, variant)
    store_box_gradient(d_boxes, k, by, valid)


def bwd_boxes(
    grad: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    padding: str,
    antialias: bool,
) -> Tensor:
    d_boxes = torch.empty_like(boxes)
    if boxes.shape[0] == 0:
        return d_boxes
    source, patches = Images.of(frames), Images.of(grad)
    size, out_size = frames.shape[-2:], grad.shape[-2:]
    variant = Variant.of(source, *out_size, padding, antialias, patches)
    sizes = (num_frames(frames), *size, *out_size)
    arguments = (d_boxes, patches, source, boxes, frame_index, affine, *sizes, variant)
    launch(_bwd_boxes, boxes.shape[0], frames.device, *arguments)
    return d_boxes


# ----------------------------------------------------------------------------------------------------
# Gradient of the frames


@triton.jit
def _weight_in(i, r, axis, variant):
    """The weight of pixel r in output i, and whether it is read."""
    footprint = footprint_of(axis, i, variant)
    weight = weight_of(footprint, r, variant).value
    there = (i < axis.positions) & (footprint.begin <= r) & (r < footprint.end)
    if variant.antialias:
        there = there & (weight != 0)
    return weight, there


@triton.jit
def _add_readers(total, patch, r, s, y_axis, x_axis, variant):
    """Adds to pixels (r, s) their part of the gradient of the outputs of a box that read them."""
    i_first, i_last = readers_of(r, y_axis, variant)
    j_first, j_last = readers_of(s, x_axis, variant)
    for a in range(tl.max(i_last - i_first)):
        i = i_first + a
        w_y, in_y = _weight_in(i, r, y_axis, variant)
        for b in range(tl.max(j_last - j_first)):
            j = j_first + b
            w_x, in_x = _weight_in(j, s, x_axis, variant)
            g = load(patch, i, j, in_y, in_x, total.dtype, variant)
            total = tl.fma(g, product(w_y, w_x, variant), total)
    return total


@triton.jit(do_not_specialize=SIZES)
def _bwd_frames(d_frames, grad, boxes, frame_index, affine, num_boxes, height, width, out_h, out_w, variant):
    n, c, top, left = locate(tl.program_id(0), height, width, variant.block_y, variant)
    r, s = top + tl.arange(0, variant.block_y), left + tl.arange(0, variant.block_x)
    total = zero_block(variant, boxes.dtype.element_ty)
    k = next_box(frame_index, n, n * 0, num_boxes)
    while k < num_boxes:
        box, finite = load_box(boxes, k)
        y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
        if finite & touches(y_axis, x_axis, top, left, variant):
            patch = planes_of(grad, image(grad, k.to(tl.int64)), c, variant)
            total = _add_readers(total, patch, r, s, y_axis, x_axis, variant)
        k = next_box(frame_index, n, k + 1, num_boxes)
    if affine is not None:
        scale, _ = load_affine(affine, c, variant)
        total *= along_c(scale, variant)
    planes = planes_of(d_frames, image(d_frames, n.to(tl.int64)), c, variant)
    store(planes, r, s, r < height, s < width, total, variant)


def bwd_frames(
    grad: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    num_frames: int,
    height: int,
    width: int,
    padding: str,
    antialias: bool,
    frames_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    d_frames = empty_images(grad, (num_frames, grad.shape[1], height, width), frames_dtype, channels_last)
    if d_frames.numel() == 0:
        return d_frames
    target, patches = Images.of(d_frames), Images.of(grad)
    accesses = 2 if antialias else 4  # a triangle takes many registers
    variant = Variant.of(target, height, width, padding, antialias, patches, accesses_per_thread=accesses)
    sizes = (boxes.shape[0], height, width, *grad.shape[-2:])
    arguments = (target, patches, boxes, frame_index, affine, *sizes, variant)
    launch(_bwd_frames, num_frames * variant.blocks(height, width), grad.device, *arguments)
    return d_frames
