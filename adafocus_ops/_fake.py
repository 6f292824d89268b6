"""Fake kernels of the raw ops: the shapes, dtypes and strides of their results, for tracing."""

import torch
from torch import Tensor

from . import _schema  # noqa: F401  (declares the ops named here)


def _images(
    like: Tensor, n: int, c: int, h: int, w: int, dtype: torch.dtype, channels_last: bool
) -> Tensor:  # [n, c, h, w]
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((n, c, h, w), dtype=dtype, device=like.device, memory_format=memory_format)


@torch.library.register_fake("adafocus::_crop_resize_fwd")
def _(frames, boxes, frame_index, affine, out_h, out_w, padding, out_dtype, channels_last):
    return _images(frames, boxes.shape[0], frames.shape[-3], out_h, out_w, out_dtype, channels_last)


@torch.library.register_fake("adafocus::_crop_resize_bwd_boxes")
def _(grad, frames, boxes, frame_index, affine, padding):
    return torch.empty_like(boxes)


@torch.library.register_fake("adafocus::_crop_resize_bwd_frames")
def _(grad, boxes, frame_index, affine, num_frames, height, width, padding, frames_dtype, channels_last):
    return _images(grad, num_frames, grad.shape[1], height, width, frames_dtype, channels_last)
