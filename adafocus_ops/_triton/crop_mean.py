"""crop_mean in Triton: the functions of _reference/crop_mean.py.

A crop is A_y v A_x^T; its mean is w_y v w_x^T with the means of their rows, w_y [H] and w_x [W]. A program makes the
blocks of both that it needs: of the pixels that its box touches, or of its tile of a frame.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layouts import empty_images
from .geometry import Dual, add, footprint_of, inverse, pixels_of, readers_of, touches, weight_of
from .images import (
    SIZES,
    Box,
    Images,
    Variant,
    along_c,
    axes_of,
    both,
    box_and_frame,
    convert,
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
from .launch import launch

# Whole feature maps of some channels, or large tiles of frames: the weights of a block are made once for its channels.
BLOCK = {"accesses_per_thread": 4, "accesses_per_pixel": 8}


@triton.jit
def _mean_weights(r, axis, variant):
    """The mean over all outputs of the weight of pixels r, and which pixels are read at all."""
    first, last = readers_of(r, axis, variant)
    zero = (r * 0).to(axis.centre.dtype)
    total, times = Dual(zero, zero, zero), r * 0
    for a in range(tl.max(last - first)):
        footprint = footprint_of(axis, first + a, variant)
        weight = weight_of(footprint, r, variant)
        there = (first + a < last) & (footprint.begin <= r) & (r < footprint.end)
        total = add(total, there, weight)
        times += tl.where(there, 1, 0)
    share = inverse(axis.positions, zero.dtype)
    mean = Dual(total.value * share, total.by_centre * share, total.by_extent * share)
    return mean, (times > 0) & (r < axis.size)


@triton.jit
def _over_pixels(block, variant):
    """The sum of a block over its pixels."""
    pixels: tl.constexpr = variant.block_y * variant.block_x
    if variant.interleaved:
        return tl.sum(tl.reshape(block, [pixels, variant.block_c]), 0)
    else:
        return tl.sum(tl.reshape(block, [variant.block_c, pixels]), 1)


@triton.jit(do_not_specialize=SIZES)
def _fwd(means, frames, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, variant):
    k, c, _, _ = locate(tl.program_id(0), 1, 1, 1, variant)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
    dtype: tl.constexpr = box.cy.dtype
    top, bottom = pixels_of(y_axis, variant)
    left, right = pixels_of(x_axis, variant)
    total = zero_block(variant, dtype)
    inside_y, inside_x = tl.zeros([variant.block_y], dtype), tl.zeros([variant.block_x], dtype)
    for r0 in range(top, tl.where(valid, bottom, top), variant.block_y):
        r = r0 + tl.arange(0, variant.block_y)
        w_y, in_y = _mean_weights(r, y_axis, variant)
        inside_y += tl.where(in_y, w_y.value, 0.0)
        inside_x *= 0.0
        for s0 in range(left, right, variant.block_x):
            s = s0 + tl.arange(0, variant.block_x)
            w_x, in_x = _mean_weights(s, x_axis, variant)
            inside_x += tl.where(in_x, w_x.value, 0.0)
            value = load(planes_of(frames, frame, c, variant), r, s, in_y, in_x, dtype, variant)
            total = tl.fma(value, product(w_y.value, w_x.value, variant), total)
    mean = _over_pixels(total, variant)
    if affine is not None:
        scale, shift = load_affine(affine, c, variant)
        mean = tl.fma(mean, scale, tl.sum(inside_y) * tl.sum(inside_x) * shift)
    mean += tl.where(valid, 0.0, float("nan"))
    out = means + k.to(tl.int64) * variant.channels + c
    tl.store(out, convert(mean, means.dtype.element_ty), c < variant.channels)


def fwd(
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
    out_dtype: torch.dtype,
) -> Tensor:
    channels, height, width = frames.shape[-3:]
    means = torch.empty((boxes.shape[0], channels), dtype=out_dtype, device=frames.device)
    if means.numel() == 0:
        return means
    source = Images.of(frames)
    variant = Variant.of(source, height, width, padding, False, **BLOCK)
    sizes = (num_frames(frames), height, width, out_h, out_w)
    arguments = (means, source, boxes, frame_index, affine, *sizes, variant)
    launch(_fwd, means.shape[0] * variant.blocks(1, 1), frames.device, *arguments)
    return means


@triton.jit(do_not_specialize=(*SIZES, "stride_k", "stride_c"))
def _bwd_boxes(
    d_boxes,
    grad,
    stride_k,
    stride_c,
    frames,
    boxes,
    frame_index,
    affine,
    num_frames,
    height,
    width,
    out_h,
    out_w,
    variant,
):
    k = tl.program_id(0)
    box, frame, valid = box_and_frame(frames, boxes, frame_index, num_frames, k)
    y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
    dtype: tl.constexpr = box.cy.dtype
    grad += k.to(tl.int64) * stride_k
    top, bottom = pixels_of(y_axis, variant)
    left, right = pixels_of(x_axis, variant)
    zero = zero_pixels(variant, dtype)
    by = Box(zero, zero, zero, zero)
    for r0 in range(top, tl.where(valid, bottom, top), variant.block_y):
        r = r0 + tl.arange(0, variant.block_y)
        w_y, in_y = _mean_weights(r, y_axis, variant)
        for s0 in range(left, right, variant.block_x):
            s = s0 + tl.arange(0, variant.block_x)
            w_x, in_x = _mean_weights(s, x_axis, variant)
            there = both(in_y, in_x, variant)
            weighed = zero_block(variant, dtype)
            for channel in range(0, variant.channels, variant.block_c):
                c = channel + tl.arange(0, variant.block_c)
                value = load(planes_of(frames, frame, c, variant), r, s, in_y, in_x, dtype, variant)
                if affine is not None:
                    scale, shift = load_affine(affine, c, variant)
                    value = tl.fma(value, along_c(scale, variant), along_c(shift, variant))
                    value = tl.where(there, value, 0.0)
                g = tl.load(grad + c * stride_c, c < variant.channels, other=0).to(dtype)
                weighed = tl.fma(value, along_c(g, variant), weighed)
            weighed = tl.sum(weighed, 2 if variant.interleaved else 0, keep_dims=True)
            by = Box(
                by.cy + weighed * product(w_y.by_centre, w_x.value, variant),
                by.cx + weighed * product(w_y.value, w_x.by_centre, variant),
                by.h + weighed * product(w_y.by_extent, w_x.value, variant),
                by.w + weighed * product(w_y.value, w_x.by_extent, variant),
            )
    store_box_gradient(d_boxes, k, by, valid)


def bwd_boxes(
    grad: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
) -> Tensor:
    d_boxes = torch.empty_like(boxes)
    if boxes.shape[0] == 0:
        return d_boxes
    height, width = frames.shape[-2:]
    source = Images.of(frames)
    variant = Variant.of(source, height, width, padding, False, **BLOCK)
    sizes = (num_frames(frames), height, width, out_h, out_w)
    arguments = (d_boxes, grad, *grad.stride(), source, boxes, frame_index, affine, *sizes, variant)
    launch(_bwd_boxes, boxes.shape[0], frames.device, *arguments)
    return d_boxes


@triton.jit(do_not_specialize=(*SIZES, "stride_k", "stride_c"))
def _bwd_frames(
    d_frames,
    grad,
    stride_k,
    stride_c,
    boxes,
    frame_index,
    affine,
    num_boxes,
    height,
    width,
    out_h,
    out_w,
    variant,
):
    n, c, top, left = locate(tl.program_id(0), height, width, variant.block_y, variant)
    r, s = top + tl.arange(0, variant.block_y), left + tl.arange(0, variant.block_x)
    total = zero_block(variant, boxes.dtype.element_ty)
    k = next_box(frame_index, n, n * 0, num_boxes)
    while k < num_boxes:
        box, finite = load_box(boxes, k)
        y_axis, x_axis = axes_of(box, out_h, out_w, height, width)
        if finite & touches(y_axis, x_axis, top, left, variant):
            w_y, in_y = _mean_weights(r, y_axis, variant)
            w_x, in_x = _mean_weights(s, x_axis, variant)
            g = tl.load(grad + k.to(tl.int64) * stride_k + c * stride_c, c < variant.channels, other=0)
            share = along_c(g.to(total.dtype), variant) * product(w_y.value, w_x.value, variant)
            total += tl.where(both(in_y, in_x, variant), share, 0.0)
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
    out_h: int,
    out_w: int,
    padding: str,
    frames_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    d_frames = empty_images(grad, (num_frames, grad.shape[1], height, width), frames_dtype, channels_last)
    if d_frames.numel() == 0:
        return d_frames
    target = Images.of(d_frames)
    variant = Variant.of(target, height, width, padding, False, **BLOCK)
    sizes = (boxes.shape[0], height, width, out_h, out_w)
    arguments = (target, grad, *grad.stride(), boxes, frame_index, affine, *sizes, variant)
    launch(_bwd_frames, num_frames * variant.blocks(height, width), grad.device, *arguments)
    return d_frames
