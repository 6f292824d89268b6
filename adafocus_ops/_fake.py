"""Fake kernels of the raw ops: the shapes, dtypes and strides of their results, for tracing."""

import torch
from torch import Tensor

from . import _schema


def _images(
    like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype, channels_last: bool
) -> Tensor:  # [n, c, h, w]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((n, c, h, w), dtype=dtype, device=like.device, memory_format=memory_format)


def _crop_resize_fwd(
    frames, boxes, frame_index, affine, out_h, out_w, padding, antialias, out_dtype, channels_last
) -> Tensor:
    return _images(frames, boxes.shape[0], frames.shape[-3], out_h, out_w, out_dtype, channels_last)


def _crop_mean_fwd(frames, boxes, frame_index, affine, out_h, out_w, padding, out_dtype) -> Tensor:
    return frames.new_empty((boxes.shape[0], frames.shape[-3]), dtype=out_dtype)


def _bwd_boxes(grad, frames, boxes, *rest) -> Tensor:
    return torch.empty_like(boxes)


def _bwd_frames(grad, boxes, frame_index, affine, num_frames, height, width, *rest) -> Tensor:
    frames_dtype, channels_last = rest[-2:]
    return _images(grad, num_frames, grad.shape[1], height, width, frames_dtype, channels_last)


_FAKES = {
    "_crop_resize_fwd": _crop_resize_fwd,
    "_crop_resize_bwd_boxes": _bwd_boxes,
    "_crop_resize_bwd_frames": _bwd_frames,
    "_crop_mean_fwd": _crop_mean_fwd,
    "_crop_mean_bwd_boxes": _bwd_boxes,
    "_crop_mean_bwd_frames": _bwd_frames,
}


def register(op: torch._ops.OpOverload) -> None:
    """Registers the fake kernel of a raw op or of an overload of it."""
    torch.library.register_fake(op, _FAKES[op._schema.name.removeprefix("adafocus::")])


for _name in _schema.SCHEMAS:
    register(getattr(torch.ops.adafocus, _name).default)
