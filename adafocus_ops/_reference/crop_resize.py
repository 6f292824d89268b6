"""crop_resize in plain PyTorch: its formulas, one array operation each.

A crop is v resampled along both axes, with the weights of axis.py,

    out[c, i, j] = sum over r, s of A_y[i, r] A_x[j, s] v[c, r, s]

Bilinear weights have two non-zeros a row, whose pixels are gathered; antialiased ones multiply as matrices.
All arithmetic is in the dtype of the boxes.
"""

from math import prod

import torch
from torch import Tensor

from . import axis


def valid_boxes(boxes: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """[K] bool: boxes whose four numbers are finite and whose frame exists."""
    return boxes.isfinite().all(1) & (frame >= 0) & (frame < num_frames)


def frame_of_box(frame_index: Tensor | None, boxes: Tensor) -> Tensor:
    """[K] int64: the frame that each box is cut from; box k is cut from frame k without an index."""
    if frame_index is None:
        return torch.arange(boxes.shape[0], device=boxes.device)
    return frame_index.long()


def _frame_position(frame: Tensor, lead: torch.Size) -> list[Tensor]:
    """The index of each box's frame in each leading dimension, [K]; the nearest frame's where there is none."""
    frame = frame.clamp(0, max(prod(lead) - 1, 0))
    where: list[Tensor] = []
    for size in reversed(lead):
        where.insert(0, frame % size)
        frame = frame // size
    return where


def _filters(
    boxes: Tensor, height: int, width: int, out_h: int, out_w: int, padding: str
) -> tuple[axis.Weights, axis.Weights]:
    """The antialiased weights of both axes, [K, P_h, H] and [K, P_w, W]."""
    cy, cx, h, w = boxes.unbind(1)
    return axis.antialiased(cy, h, out_h, height, padding), axis.antialiased(cx, w, out_w, width, padding)


def _resample(a_y: Tensor, a_x: Tensor, pixels: Tensor) -> Tensor:
    """A_y v A_x^T for all boxes, [K, C, P_h, P_w]; NaN where it reads a pixel that is not finite, and only there."""
    bad = (~pixels.isfinite()).to(pixels)
    bad = torch.einsum("kir,kcrs,kjs->kcij", (a_y != 0).to(pixels), bad, (a_x != 0).to(pixels)) > 0
    out = torch.einsum("kir,kcrs,kjs->kcij", a_y, pixels.nan_to_num(0, 0, 0), a_x)
    return torch.where(bad, float("nan"), out)


def _frame_of_each_box(
    frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The normalised frame of each box, [K, C, H, W], and which boxes are valid [K]."""
    lead = frames.shape[:-3]
    frame = frame_of_box(frame_index, boxes)
    pixels = frames[tuple(_frame_position(frame, lead))].to(boxes.dtype)
    if affine is not None:
        pixels = pixels * affine[0][:, None, None] + affine[1][:, None, None]
    return pixels, valid_boxes(boxes, frame, prod(lead))


def _corners(
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
) -> tuple[axis.Taps, axis.Taps, list[list[Tensor]], Tensor]:
    """The taps of both axes, the normalised pixel v[k, :, floor(y) + a, floor(x) + b] as corner[a][b] [K, C, P_h, P_w]
    (0 outside the frame), and which boxes are valid [K]."""
    lead = frames.shape[:-3]
    frame = frame_of_box(frame_index, boxes)
    valid = valid_boxes(boxes, frame, prod(lead))
    where = [index[:, None, None] for index in _frame_position(frame, lead)]
    cy, cx, h, w = boxes.unbind(1)
    y = axis.taps(cy, h, out_h, frames.shape[-2], padding)
    x = axis.taps(cx, w, out_w, frames.shape[-1], padding)

    def corner(a: int, b: int) -> Tensor:
        r, s = y.index[a][:, :, None], x.index[b][:, None, :]
        pixel = frames.movedim(-3, -1)[(*where, r, s)].to(boxes.dtype)  # [K, P_h, P_w, C]
        if affine is not None:
            pixel = pixel * affine[0] + affine[1]
        inside = y.inside[a][:, :, None] & x.inside[b][:, None, :]
        return torch.where(inside[..., None], pixel, 0).permute(0, 3, 1, 2)

    return y, x, [[corner(a, b) for b in (0, 1)] for a in (0, 1)], valid


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
    """The crops, [K, C, out_h, out_w] of out_dtype.

    Args:
        frames: [..., C, H, W], leading dimensions flattened to N.
        boxes: [K, 4] float32 or float64, (cy, cx, h, w) in pixels; its dtype is that of all arithmetic.
        frame_index: [K] int32 or int64, or None for box k of frame k.
        affine: [2, C] of the boxes' dtype, scale and shift of each channel's pixels, or None.
    """
    if boxes.shape[0] == 0 or frames.numel() == 0:
        out = frames.new_full((boxes.shape[0], frames.shape[-3], out_h, out_w), float("nan"), dtype=boxes.dtype)
        return _store(out, out_dtype, channels_last)
    if antialias:
        pixels, valid = _frame_of_each_box(frames, boxes, frame_index, affine)
        y, x = _filters(boxes, *frames.shape[-2:], out_h, out_w, padding)
        out = _resample(y.value, x.value, pixels)
    else:
        y, x, corner, valid = _corners(frames, boxes, frame_index, affine, out_h, out_w, padding)
        out = 0
        for a in (0, 1):
            for b in (0, 1):
                out = out + y.weight[a][:, None, :, None] * x.weight[b][:, None, None, :] * corner[a][b]
    out = torch.where(valid[:, None, None, None], out, float("nan"))
    return _store(out, out_dtype, channels_last)


def fwd_out(
    out: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    padding: str,
    antialias: bool,
) -> None:
    """The crops in `out` [K, C, P_h, P_w], whose size and dtype they have."""
    out_h, out_w = out.shape[2:]
    out.copy_(fwd(frames, boxes, frame_index, affine, out_h, out_w, padding, antialias, out.dtype, False))


def _store(out: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Converts to the output's dtype (integers: rounded, saturated, NaN to 0) and memory format."""
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        out = out.nan_to_num(0).round().clamp(limits.min, limits.max)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return out.to(dtype).contiguous(memory_format=memory_format)


def bwd_boxes(
    grad: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    padding: str,
    antialias: bool,
) -> Tensor:
    """Gradient of the boxes, [K, 4] of the boxes' dtype, from grad [K, C, P_h, P_w].

    A position exactly on a pixel takes the derivative on the side of larger coordinates.
    """
    if boxes.shape[0] == 0 or frames.numel() == 0:
        return torch.zeros_like(boxes)
    out_h, out_w = grad.shape[2:]
    if antialias:
        pixels, valid = _frame_of_each_box(frames, boxes, frame_index, affine)
        grad = torch.where(valid[:, None, None, None], grad.to(boxes.dtype), 0)
        y, x = _filters(boxes, *frames.shape[-2:], out_h, out_w, padding)
        by_box = ((y.by_centre, x.value), (y.value, x.by_centre), (y.by_extent, x.value), (y.value, x.by_extent))
        gradient = [(grad * _resample(a_y, a_x, pixels)).sum((1, 2, 3)) for a_y, a_x in by_box]
        return torch.where(valid[:, None], torch.stack(gradient, 1), 0)
    y, x, corner, valid = _corners(frames, boxes, frame_index, affine, out_h, out_w, padding)
    grad = torch.where(valid[:, None, None, None], grad.to(boxes.dtype), 0)
    d_y = sum(x.weight[b][:, None, None, :] * (corner[1][b] - corner[0][b]) for b in (0, 1))
    d_x = sum(y.weight[a][:, None, :, None] * (corner[a][1] - corner[a][0]) for a in (0, 1))
    by_y, by_x = (grad * d_y).sum((1, 3)), (grad * d_x).sum((1, 2))  # [K, P_h], [K, P_w]
    gradient = [by_y.sum(1), by_x.sum(1), (by_y * y.offset).sum(1), (by_x * x.offset).sum(1)]
    return torch.where(valid[:, None], torch.stack(gradient, 1), 0)


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
    """Gradient of the flattened frames, [num_frames, C, height, width] of frames_dtype: each output's gradient, in
    parts, to the pixels that it read."""
    frame = frame_of_box(frame_index, boxes)
    valid = valid_boxes(boxes, frame, num_frames)
    grad = torch.where(valid[:, None, None, None], grad.to(boxes.dtype), 0)
    if affine is not None:
        grad = grad * affine[0][:, None, None]
    frame = frame.clamp(0, max(num_frames - 1, 0))
    if antialias:
        y, x = _filters(boxes, height, width, *grad.shape[2:], padding)
        share = _resample(y.value.mT, x.value.mT, grad)
        share = torch.where(valid[:, None, None, None], share, 0)
        total = grad.new_zeros(num_frames, *share.shape[1:])
        return _store(_add_in_order(total, frame, share), frames_dtype, channels_last)
    cy, cx, h, w = boxes.unbind(1)
    y = axis.taps(cy, h, grad.shape[2], height, padding)
    x = axis.taps(cx, w, grad.shape[3], width, padding)
    grad = grad.permute(0, 2, 3, 1)  # [K, P_h, P_w, C]
    total = grad.new_zeros(num_frames * height * width, grad.shape[3])
    for a in (0, 1):
        for b in (0, 1):
            r, s = y.index[a][:, :, None], x.index[b][:, None, :]
            inside = (y.inside[a][:, :, None] & x.inside[b][:, None, :])[..., None]
            weight = (y.weight[a][:, :, None] * x.weight[b][:, None, :])[..., None]
            pixel = (frame[:, None, None] * height + r) * width + s
            share = torch.where(inside & valid[:, None, None, None], weight * grad, 0)
            total = _add_in_order(total, pixel.flatten(), share.flatten(0, 2))
    return _store(total.unflatten(0, (num_frames, height, width)).permute(0, 3, 1, 2), frames_dtype, channels_last)


def _add_in_order(total: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """total[index] += share along the first dimension, in the order of the index: the form without atomics."""
    if total.device.type == "cpu":
        return total.index_add(0, index, share)
    return total.index_put((index,), share, accumulate=True)
