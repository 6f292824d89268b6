"""depthwise_conv3d in Triton: the functions of _reference/depthwise_conv3d.py.

A block is [places, channels]: places of the result counted through (n, t, h, w), so that neighbouring threads use
neighbouring channels where these lie side by side, else neighbouring places.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._layouts import convolved_size, empty_clips
from .launch import Strided, blocks, constants, launch, power_of_2

BLOCK = 512  # elements: four for each thread
MAX_TAPS = 8  # along the width, as a power of two
MAX_SLICES = 256  # of the places, whose sums the gradient of the weight adds up
SIZES = ("clips", "t_from", "h_from", "w_from", "t_to", "h_to", "w_to")


class Axes(NamedTuple):
    """The constants of the axes (t, h, w), and the block that a kernel is compiled for."""

    kernel_t: tl.constexpr
    kernel_h: tl.constexpr
    kernel_w: tl.constexpr
    stride_t: tl.constexpr
    stride_h: tl.constexpr
    stride_w: tl.constexpr
    padding_t: tl.constexpr
    padding_h: tl.constexpr
    padding_w: tl.constexpr
    channels: tl.constexpr
    number: tl.constexpr  # the integers that number the places
    block_p: tl.constexpr
    block_c: tl.constexpr
    block_k: tl.constexpr  # of the taps along the width

    @staticmethod
    def of(kernel: tuple[int, ...], steps: tuple[int, ...], clips: Tensor, block_k: int = 1) -> "Axes":
        """For clips that are written, or are the gradient of what is; strides and paddings are in `steps`."""
        channels = clips.shape[1]
        block_c = power_of_2(channels, 32) if clips.stride(1) == 1 else 1
        number = tl.int64 if clips.numel() // channels + BLOCK * MAX_SLICES >= 2**31 else tl.int32
        return Axes(*constants((*kernel, *steps, channels, number, BLOCK // (block_c * block_k), block_c, block_k)))


class Places(NamedTuple):
    """Places of a clip."""

    n: tl.tensor
    t: tl.tensor
    h: tl.tensor
    w: tl.tensor


@triton.jit
def _places(p, t_size, h_size, w_size):
    """Number p as a place."""
    return Places(p // w_size // h_size // t_size, p // w_size // h_size % t_size, p // w_size % h_size, p % w_size)


@triton.jit
def _row(clips, n, t, h, c):
    """Pointers to the first place of rows, [places, channels]."""
    of_n, of_c, of_t, of_h, _ = clips.strides
    offset = n.to(tl.int64) * of_n + t.to(tl.int64) * of_t + h.to(tl.int64) * of_h
    return clips.data + (offset[:, None] + c.to(tl.int64)[None, :] * of_c)


@triton.jit
def _source(to, k: tl.constexpr, stride: tl.constexpr, padding: tl.constexpr, size, forward: tl.constexpr):
    """The place that tap k of place `to` reads on an axis, and whether there is one."""
    if forward:
        at = to * stride + k - padding
        return at, (at >= 0) & (at < size)
    else:
        ahead = to + padding - k
        at = ahead // stride
        return at, (ahead >= 0) & (ahead % stride == 0) & (at < size)


@triton.jit(do_not_specialize=SIZES)
def _sum_taps(
    target, source, weight, bias, clips, t_from, h_from, w_from, t_to, h_to, w_to, forward: tl.constexpr, axes
):
    c_tiles = tl.cdiv(axes.channels, axes.block_c)
    c = tl.program_id(0) % c_tiles * axes.block_c + tl.arange(0, axes.block_c)
    p = (tl.program_id(0) // c_tiles).to(axes.number) * axes.block_p + tl.arange(0, axes.block_p)
    at = _places(p, t_to, h_to, w_to)
    there, in_c = at.n < clips, c < axes.channels
    dtype: tl.constexpr = weight.dtype.element_ty
    total = tl.zeros([axes.block_p, axes.block_c], dtype)
    if bias is not None:
        total += tl.load(bias + c, in_c, other=0)[None, :]
    taps: tl.constexpr = axes.kernel_t * axes.kernel_h * axes.kernel_w
    for kt in tl.range(axes.kernel_t):
        t, in_t = _source(at.t, kt, axes.stride_t, axes.padding_t, t_from, forward)
        for kh in tl.range(axes.kernel_h):
            h, in_h = _source(at.h, kh, axes.stride_h, axes.padding_h, h_from, forward)
            row, in_row = _row(source, at.n, t, h, c), there & in_t & in_h
            of_row = weight + c * taps + (kt * axes.kernel_h + kh) * axes.kernel_w
            for kw in tl.static_range(axes.kernel_w):
                w, in_w = _source(at.w, kw, axes.stride_w, axes.padding_w, w_from, forward)
                inside = (in_row & in_w)[:, None] & in_c[None, :]
                value = tl.load(row + (w.to(tl.int64) * source.strides[4])[:, None], inside, other=0).to(dtype)
                of_tap = tl.load(of_row + kw, in_c, other=0)
                total = tl.fma(value, tl.broadcast_to(of_tap[None, :], total.shape), total)
    to = _row(target, at.n, at.t, at.h, c) + (at.w.to(tl.int64) * target.strides[4])[:, None]
    tl.store(to, total.to(target.data.dtype.element_ty), there[:, None] & in_c[None, :])


def _run(
    target: Tensor,
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    steps: tuple[int, ...],
    forward: bool,
) -> Tensor:
    if target.numel() == 0:
        return target
    axes = Axes.of(weight.shape[2:], steps, target)
    sizes = (target.shape[0], *source.shape[2:], *target.shape[2:])
    programs = blocks((target.numel() // target.shape[1], axes.block_p.value), (target.shape[1], axes.block_c.value))
    arguments = (Strided.of(target), Strided.of(source), weight, bias, *sizes, forward, axes)
    launch(_sum_taps, programs, target.device, *arguments)
    return target


def fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
    channels_last: bool,
) -> Tensor:
    steps = (stride_t, stride_h, stride_w, padding_t, padding_h, padding_w)
    size = convolved_size(x.shape[2:], weight.shape[2:], steps[:3], steps[3:])
    y = empty_clips(x, (*x.shape[:2], *size), x.dtype, channels_last)
    return _run(y, x, weight, bias, steps, forward=True)


def bwd_x(
    grad: Tensor,
    weight: Tensor,
    frames: int,
    height: int,
    width: int,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
    channels_last: bool,
) -> Tensor:
    steps = (stride_t, stride_h, stride_w, padding_t, padding_h, padding_w)
    d_x = empty_clips(grad, (*grad.shape[:2], frames, height, width), grad.dtype, channels_last)
    return _run(d_x, grad, weight, None, steps, forward=False)


@triton.jit(do_not_specialize=(*SIZES, "slices"))
def _sum_slice(partials, grad, x, clips, t_from, h_from, w_from, t_to, h_to, w_to, slices, axes):
    """partials [slices, C, taps]: a program sums a slice of the places, which begins after those of the slices before,
    for one row of taps (kt, kh) of some channels."""
    c_tiles = tl.cdiv(axes.channels, axes.block_c)
    c = tl.program_id(0) % c_tiles * axes.block_c + tl.arange(0, axes.block_c)
    row = tl.program_id(0) // c_tiles % (axes.kernel_t * axes.kernel_h)
    part = tl.program_id(0) // c_tiles // (axes.kernel_t * axes.kernel_h)
    kt, kh = row // axes.kernel_h, row % axes.kernel_h
    places = tl.cast(clips, axes.number) * t_to * h_to * w_to
    steps = tl.cdiv(tl.cdiv(places, slices), axes.block_p)
    in_c = c < axes.channels
    dtype: tl.constexpr = partials.dtype.element_ty
    taps: tl.constexpr = axes.kernel_t * axes.kernel_h * axes.kernel_w
    kw = tl.arange(0, axes.block_k)
    total = tl.zeros([axes.block_p, axes.block_c, axes.block_k], dtype)
    for step in range(steps):
        p = (part.to(axes.number) * steps + step) * axes.block_p + tl.arange(0, axes.block_p)
        at = _places(p, t_to, h_to, w_to)
        t, in_t = _source(at.t, kt, axes.stride_t, axes.padding_t, t_from, True)
        h, in_h = _source(at.h, kh, axes.stride_h, axes.padding_h, h_from, True)
        w = at.w[:, None] * axes.stride_w + kw[None, :] - axes.padding_w
        in_w = (w >= 0) & (w < w_from) & (kw[None, :] < axes.kernel_w)
        inside = ((at.n < clips) & in_t & in_h)[:, None] & in_c[None, :]
        g = _row(grad, at.n, at.t, at.h, c) + (at.w.to(tl.int64) * grad.strides[4])[:, None]
        value = _row(x, at.n, t, h, c)[:, :, None] + (w.to(tl.int64) * x.strides[4])[:, None, :]
        value = tl.load(value, inside[:, :, None] & in_w[:, None, :], other=0).to(dtype)
        g = tl.load(g, inside, other=0).to(dtype)
        total = tl.fma(tl.broadcast_to(g[:, :, None], total.shape), value, total)
    to = partials + (part.to(tl.int64) * axes.channels + c) * taps + row * axes.kernel_w
    tl.store(to[:, None] + kw[None, :], tl.sum(total, 0), in_c[:, None] & (kw < axes.kernel_w)[None, :])


@triton.jit(do_not_specialize=("count", "slices"))
def _add_slices(d_weight, partials, count, slices, block: tl.constexpr):
    """d_weight [count]: the sums of all slices, in their order."""
    i = tl.program_id(0) * block + tl.arange(0, block)
    total = tl.zeros([block], d_weight.dtype.element_ty)
    at = partials + i
    for _ in range(slices):
        total += tl.load(at, i < count, other=0)
        at += count
    tl.store(d_weight + i, total, i < count)


def bwd_weight(
    grad: Tensor,
    x: Tensor,
    kernel_t: int,
    kernel_h: int,
    kernel_w: int,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
) -> Tensor:
    channels, kernel = x.shape[1], (kernel_t, kernel_h, kernel_w)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    d_weight = torch.empty((channels, 1, *kernel), dtype=compute, device=x.device)
    if d_weight.numel() == 0:
        return d_weight
    steps = (stride_t, stride_h, stride_w, padding_t, padding_h, padding_w)
    axes = Axes.of(kernel, steps, grad, power_of_2(kernel_w, MAX_TAPS))
    places, block_p = grad.numel() // channels, axes.block_p.value
    slices = min(triton.cdiv(places, 4 * block_p), MAX_SLICES)
    partials = torch.empty((slices, channels, kernel_t * kernel_h * kernel_w), dtype=compute, device=x.device)
    if slices > 0:
        sizes = (grad.shape[0], *x.shape[2:], *grad.shape[2:], slices)
        programs = slices * kernel_t * kernel_h * blocks((channels, axes.block_c.value))
        launch(_sum_slice, programs, x.device, partials, Strided.of(grad), Strided.of(x), *sizes, axes)
    block = power_of_2(d_weight.numel(), BLOCK)
    programs = blocks((d_weight.numel(), block))
    launch(_add_slices, programs, x.device, d_weight, partials, d_weight.numel(), slices, block)
    return d_weight
