"""crop_resize in plain PyTorch: its formulas, one array operation each.

With pixel (r, c) centred at coordinate (r, c), output pixel (i, j) of box (cy, cx, h, w) samples

    y_i = cy + ((i + 1/2) / P_h - 1/2) h - 1/2,      x_j = cx + ((j + 1/2) / P_w - 1/2) w - 1/2
    out[c, i, j] = sum over a, b in {0, 1} of u_a(y_i) u_b(x_j) v[c, floor(y_i) + a, floor(x_j) + b]

with u_1(z) = z - floor(z), u_0 = 1 - u_1, and v = 0 (padding "zeros") or the nearest edge pixel
(padding "border") outside the frame. All arithmetic is in the dtype of the boxes.
"""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor


class Axis(NamedTuple):
    """Sampling of one axis by all boxes; P output positions on an axis of `size` pixels."""

    index: Tensor  # [2, K, P] int64, the two neighbours, clamped into the axis
    inside: Tensor  # [2, K, P] bool, whether the neighbour holds a pixel (always, for padding "border")
    weight: Tensor  # [2, K, P] u_0 and u_1
    offset: Tensor  # [P] (i + 1/2) / P - 1/2, the derivative of the position by the extent


def sample_axis(centre: Tensor, extent: Tensor, positions: int, size: int, padding: str) -> Axis:
    """Neighbours and weights of `positions` samples along an axis; centre and extent are [K]."""
    steps = torch.arange(positions, device=centre.device, dtype=centre.dtype)
    offset = (steps + 0.5) / positions - 0.5
    # Written so that a box of whole pixels and of the output's size has whole positions, without rounding.
    position = (centre - extent / 2)[:, None] + (extent / positions)[:, None] * (steps + 0.5) - 0.5
    # A position two pixels outside reads padding only, so clamping there changes nothing but
    # keeps the conversion to an index defined for any finite box.
    position = position.clamp(-2.0, float(size)).nan_to_num(-2.0)
    first = position.floor()
    index = torch.stack([first, first + 1]).long()
    inside = (index >= 0) & (index < size)
    if padding == "border":
        inside = torch.ones_like(inside)
    upper = position - first
    return Axis(index.clamp(0, size - 1), inside, torch.stack([1 - upper, upper]), offset)


def valid_boxes(boxes: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """[K] bool: boxes whose four numbers are finite and whose frame exists."""
    return boxes.isfinite().all(1) & (frame >= 0) & (frame < num_frames)


def frame_of_box(frame_index: Tensor | None, boxes: Tensor) -> Tensor:
    """[K] int64: the frame that each box is cut from; box k is cut from frame k without an index."""
    if frame_index is None:
        return torch.arange(boxes.shape[0], device=boxes.device)
    return frame_index.long()


def _corners(
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
) -> tuple[Axis, Axis, list[list[Tensor]], Tensor]:
    """Both axes, the normalised pixel v[k, :, floor(y) + a, floor(x) + b] as corner[a][b] [K, C, P_h, P_w]
    (0 outside the frame), and which boxes are valid [K]."""
    lead = frames.shape[:-3]
    frame = frame_of_box(frame_index, boxes)
    valid = valid_boxes(boxes, frame, prod(lead))
    frame = frame.clamp(0, max(prod(lead) - 1, 0))
    where = []  # the frame's index in each leading dimension, [K, 1, 1]
    for size in reversed(lead):
        where.insert(0, (frame % size)[:, None, None])
        frame = frame // size
    cy, cx, h, w = boxes.unbind(1)
    y = sample_axis(cy, h, out_h, frames.shape[-2], padding)
    x = sample_axis(cx, w, out_w, frames.shape[-1], padding)

    def corner(a: int, b: int) -> Tensor:
        rows, columns = y.index[a][:, :, None], x.index[b][:, None, :]
        pixel = frames.movedim(-3, -1)[(*where, rows, columns)].to(boxes.dtype)  # [K, P_h, P_w, C]
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
    y, x, corner, valid = _corners(frames, boxes, frame_index, affine, out_h, out_w, padding)
    out = 0
    for a in (0, 1):
        for b in (0, 1):
            out = out + y.weight[a][:, None, :, None] * x.weight[b][:, None, None, :] * corner[a][b]
    out = torch.where(valid[:, None, None, None], out, float("nan"))
    return _store(out, out_dtype, channels_last)


def _store(out: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Converts to the output's dtype (integers: rounded, saturated, NaN to 0) and memory format."""
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        out = out.nan_to_num(0).round().clamp(limits.min, limits.max)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return out.to(dtype).contiguous(memory_format=memory_format)


def bwd_boxes(
    grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None, padding: str
) -> Tensor:
    """Gradient of the boxes, [K, 4] of the boxes' dtype, from grad [K, C, P_h, P_w].

    A sample that lies exactly on a pixel takes the derivative on the side of larger coordinates.
    """
    if boxes.shape[0] == 0 or frames.numel() == 0:
        return torch.zeros_like(boxes)
    y, x, corner, valid = _corners(frames, boxes, frame_index, affine, grad.shape[2], grad.shape[3], padding)
    grad = torch.where(valid[:, None, None, None], grad.to(boxes.dtype), 0)
    d_y = sum(x.weight[b][:, None, None, :] * (corner[1][b] - corner[0][b]) for b in (0, 1))
    d_x = sum(y.weight[a][:, None, :, None] * (corner[a][1] - corner[a][0]) for a in (0, 1))
    by_row, by_column = (grad * d_y).sum((1, 3)), (grad * d_x).sum((1, 2))  # [K, P_h], [K, P_w]
    gradient = [by_row.sum(1), by_column.sum(1), (by_row * y.offset).sum(1), (by_column * x.offset).sum(1)]
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
    frames_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Gradient of the flattened frames, [num_frames, C, height, width] of frames_dtype: each sample's gradient, in
    parts, to the pixels that it read."""
    frame = frame_of_box(frame_index, boxes)
    valid = valid_boxes(boxes, frame, num_frames)
    grad = torch.where(valid[:, None, None, None], grad.to(boxes.dtype), 0)
    if affine is not None:
        grad = grad * affine[0][:, None, None]
    cy, cx, h, w = boxes.unbind(1)
    y = sample_axis(cy, h, grad.shape[2], height, padding)
    x = sample_axis(cx, w, grad.shape[3], width, padding)
    frame = frame.clamp(0, max(num_frames - 1, 0))
    grad = grad.permute(0, 2, 3, 1)  # [K, P_h, P_w, C]
    total = grad.new_zeros(num_frames * height * width, grad.shape[3])
    for a in (0, 1):
        for b in (0, 1):
            rows, columns = y.index[a][:, :, None], x.index[b][:, None, :]
            inside = (y.inside[a][:, :, None] & x.inside[b][:, None, :])[..., None]
            weight = (y.weight[a][:, :, None] * x.weight[b][:, None, :])[..., None]
            pixel = (frame[:, None, None] * height + rows) * width + columns
            share = torch.where(inside & valid[:, None, None, None], weight * grad, 0)
            total = _add_in_order(total, pixel.flatten(), share.flatten(0, 2))
    return _store(total.unflatten(0, (num_frames, height, width)).permute(0, 3, 1, 2), frames_dtype, channels_last)


def _add_in_order(total: Tensor, index: Tensor, share: Tensor) -> Tensor:
    """total[index] += share [M, C], in the order of the index: the form that does so without atomics."""
    if total.device.type == "cpu":
        return total.index_add(0, index, share)
    return total.index_put((index,), share, accumulate=True)
