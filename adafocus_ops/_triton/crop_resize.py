"""crop_resize in Triton: the functions of _reference/crop_resize.py.

Forward: a program makes a strip of a patch. Gradient of the boxes: a program goes through a patch. Gradient of the
frames: a program gathers what a tile of a frame gets from the outputs that read it, box after box in their order.
So nothing is added in an order that depends on the run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layouts import empty_images
from .geometry import bilinear_offset, readers, sample, touches, weights
from .images import (
    SIZES,
    Images,
    Variant,
    along_channels,
    along_columns,
    along_rows,
    box_and_frame,
    image,
    load,
    load_affine,
    load_box,
    locate,
    next_box,
    num_frames,
    product,
    store,
    zero_block,
    zero_pixels,
)
from .launch import THREADS, launch

# So many programs fill a large GPU several times over; where there are more, each makes up to MAX_STEPS blocks.
MANY_PROGRAMS = 4096
MAX_STEPS = 8


# ----------------------------------------------------------------------------------------------------
# What outputs read


@triton.jit
def _samples(centre, extent, i, positions, size, valid, variant):
    """The samples of a block of outputs; those beyond the last, and all of a box that is not valid, read nothing."""
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
def _pixels(frames, frame, c, y, x, a, b, dtype: tl.constexpr, variant):
    """Pixel (a, b) of those that each output reads, whether there is one, and its weights along both axes."""
    r, in_y, w_y = _weights(y, a, variant)
    s, in_x, w_x = _weights(x, b, variant)
    value = load(frames, frame, c, r, s, in_y, in_x, dtype, variant)
    return value, along_rows(in_y, variant) & along_columns(in_x, variant), w_y, w_x


# ----------------------------------------------------------------------------------------------------
# Forward


@triton.jit
def _add(total, inside, frames, frame, c, y, x, a, b, variant):
    """Adds pixel (a, b) of those that each output reads, and the weights of pixels in the frame."""
    value, there, w_y, w_x = _pixels(frames, frame, c, y, x, a, b, total.dtype, variant)
    weight = product(w_y[0], w_x[0], variant)
    return tl.fma(value, weight, total), inside + tl.where(there, weight, 0.0)


@triton.jit(do_not_specialize=SIZES)
def _fwd(out, frames, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, strip, variant):
    k, c, first_row, column = locate(tl.program_id(0), out_h, out_w, strip, variant)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    cy, cx, h, w = box
    patch = image(out, k.to(tl.int64))
    if affine is not None:
        scale, shift = load_affine(affine, c, variant)
    j = column + tl.arange(0, variant.block_x)
    x = _samples(cx, w, j, out_w, width, valid, variant)
    for row in range(first_row, tl.minimum(first_row + strip, out_h), variant.block_y):
        i = row + tl.arange(0, variant.block_y)
        y = _samples(cy, h, i, out_h, height, valid, variant)
        total, inside = zero_block(variant, cy.dtype), zero_pixels(variant, cy.dtype)
        if variant.antialias:
            for a in range(_most(y)):
                for b in range(_most(x)):
                    total, inside = _add(total, inside, frames, frame, c, y, x, a, b, variant)
        else:
            for a in tl.static_range(2):
                for b in tl.static_range(2):
                    total, inside = _add(total, inside, frames, frame, c, y, x, a, b, variant)
        if affine is not None:  # pixels outside are zero after it: it counts for those in the frame
            total = tl.fma(total, along_channels(scale, variant), inside * along_channels(shift, variant))
        value = total + tl.where(valid, 0.0, float("nan"))
        store(out, patch, c, i, j, i < out_h, j < out_w, value, variant)


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
    channels, height, width = frames.shape[-3:]
    out = empty_images(frames, (boxes.shape[0], channels, out_h, out_w), out_dtype, channels_last)
    if out.numel() == 0:
        return out
    source, target = Images.of(frames), Images.of(out)
    variant = Variant.of(source, out_h, out_w, padding, antialias, target)
    block_y = variant.block_y.value
    strip = block_y * min(max(out.shape[0] * variant.blocks(out_h, out_w) // MANY_PROGRAMS, 1), MAX_STEPS)
    programs = out.shape[0] * variant.blocks(block_y * triton.cdiv(out_h, strip), out_w)
    sizes = (num_frames(frames), height, width, out_h, out_w, strip)
    launch(_fwd, programs, frames.device, target, source, boxes, frame_index, affine, *sizes, variant)
    return out


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
def _add_derivatives(by, g, of_shift, frames, frame, c, y, x, a, b, variant):
    """Adds what pixel (a, b) of those that each output reads contributes to the gradient by (cy, cx), or by all four
    numbers of the box if `by` has them.

    g: the gradient of the outputs, by the scale of the affine; of_shift: by its shift, which padding does not have.
    """
    value, there, w_y, w_x = _pixels(frames, frame, c, y, x, a, b, g.dtype, variant)
    value = _over_channels(g * value, variant)
    if of_shift is not None:
        value = tl.where(there, value + of_shift, 0.0)
    by_cy = tl.fma(value, product(w_y[1], w_x[0], variant), by[0])
    by_cx = tl.fma(value, product(w_y[0], w_x[1], variant), by[1])
    if len(by) == 2:
        return by_cy, by_cx
    else:
        by_h = tl.fma(value, product(w_y[2], w_x[0], variant), by[2])
        by_w = tl.fma(value, product(w_y[0], w_x[2], variant), by[3])
        return by_cy, by_cx, by_h, by_w


@triton.jit(do_not_specialize=SIZES)
def _bwd_boxes(d_boxes, grad, frames, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, variant):
    k = tl.program_id(0)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    cy, cx, h, w = box
    patch = image(grad, k.to(tl.int64))
    zero = _over_channels(zero_block(variant, cy.dtype), variant)
    by = (zero, zero, zero, zero)
    for channel in range(0, variant.channels, variant.block_c):
        c = channel + tl.arange(0, variant.block_c)
        if affine is not None:
            scale, shift = load_affine(affine, c, variant)
        for column in range(0, out_w, variant.block_x):
            j = column + tl.arange(0, variant.block_x)
            x = _samples(cx, w, j, out_w, width, valid, variant)
            for row in range(0, out_h, variant.block_y):
                i = row + tl.arange(0, variant.block_y)
                y = _samples(cy, h, i, out_h, height, valid, variant)
                g = load(grad, patch, c, i, j, i < out_h, j < out_w, cy.dtype, variant)
                if affine is not None:
                    of_shift = _over_channels(g * along_channels(shift, variant), variant)
                    g *= along_channels(scale, variant)
                else:
                    of_shift = None
                if variant.antialias:
                    for a in range(_most(y)):
                        for b in range(_most(x)):
                            by = _add_derivatives(by, g, of_shift, frames, frame, c, y, x, a, b, variant)
                else:
                    by_cy, by_cx = zero, zero
                    for a in tl.static_range(2):
                        for b in tl.static_range(2):
                            here = _add_derivatives((by_cy, by_cx), g, of_shift, frames, frame, c, y, x, a, b, variant)
                            by_cy, by_cx = here
                    by_h = tl.fma(by_cy, along_rows(bilinear_offset(y[2]), variant), by[2])
                    by_w = tl.fma(by_cx, along_columns(bilinear_offset(x[2]), variant), by[3])
                    by = (by[0] + by_cy, by[1] + by_cx, by_h, by_w)
    for number in tl.static_range(4):
        total = tl.where(valid, tl.sum(by[number]), 0.0)
        tl.store(d_boxes + 4 * k.to(tl.int64) + number, total)


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
def _weight_in(i, r, centre, extent, positions, size, variant):
    """The weight of pixel r in output i, and whether it is read."""
    begin, end, filter = sample(centre, extent, i, positions, size, variant)
    weight = weights(filter, r, variant)[0]
    there = (i < positions) & (begin <= r) & (r < end)
    if variant.antialias:
        there = there & (weight != 0)
    return weight, there


@triton.jit(do_not_specialize=SIZES)
def _bwd_frames(d_frames, grad, boxes, frame_index, affine, num_boxes, height, width, out_h, out_w, variant):
    n, c, row, column = locate(tl.program_id(0), height, width, variant.block_y, variant)
    r, s = row + tl.arange(0, variant.block_y), column + tl.arange(0, variant.block_x)
    total = zero_block(variant, boxes.dtype.element_ty)
    k = next_box(frame_index, n, n * 0, num_boxes)
    while k < num_boxes:
        box, finite = load_box(boxes, k)
        if finite & touches(box, out_h, out_w, height, width, row, column, variant):
            cy, cx, h, w = box
            patch = image(grad, k.to(tl.int64))
            i_first, i_last = readers(r, cy, h, out_h, height, variant)
            j_first, j_last = readers(s, cx, w, out_w, width, variant)
            for a in range(tl.max(i_last - i_first)):
                i = i_first + a
                w_y, in_y = _weight_in(i, r, cy, h, out_h, height, variant)
                for b in range(tl.max(j_last - j_first)):
                    j = j_first + b
                    w_x, in_x = _weight_in(j, s, cx, w, out_w, width, variant)
                    g = load(grad, patch, c, i, j, in_y, in_x, total.dtype, variant)
                    total = tl.fma(g, along_rows(w_y, variant) * along_columns(w_x, variant), total)
        k = next_box(frame_index, n, k + 1, num_boxes)
    if affine is not None:
        scale, _ = load_affine(affine, c, variant)
        total *= along_channels(scale, variant)
    store(d_frames, image(d_frames, n.to(tl.int64)), c, r, s, r < height, s < width, total, variant)


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
    variant = Variant.of(target, height, width, padding, antialias, patches, accesses=accesses)
    sizes = (boxes.shape[0], height, width, *grad.shape[-2:])
    arguments = (target, patches, boxes, frame_index, affine, *sizes, variant)
    launch(_bwd_frames, num_frames * variant.blocks(height, width), grad.device, *arguments)
    return d_frames
