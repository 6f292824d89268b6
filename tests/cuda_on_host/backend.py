"""The backend "cuda-host": the source of the CUDA kernels, run on the host for CPU tensors."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adafocus_ops import backends

from . import build
from .harness import Harness, memory

NAME = "cuda-host"


def _untouched(tensor: Tensor) -> Tensor:
    """Fills a result with the bytes 0xff, NaN in the floating-point types: what no kernel has written shows."""
    memory(tensor).fill_(255)
    return tensor


def _images(n: int, c: int, h: int, w: int, dtype: torch.dtype, channels_last: bool) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return _untouched(torch.empty((n, c, h, w), dtype=dtype, memory_format=memory_format))


class CropResize:
    """The parts of crop_resize, with the signatures of its raw ops.

    Args:
        edits: files of csrc/cuda and texts to compile in place of theirs.
    """

    def __init__(self, edits: Mapping[Path, str] | None = None):
        self.harness = Harness("crop_resize", edits)

    def fwd(
        self, frames, boxes, frame_index, affine, out_h, out_w, padding, antialias, out_dtype, channels_last
    ) -> Tensor:
        out = _images(boxes.shape[0], frames.shape[-3], out_h, out_w, out_dtype, channels_last)
        self.harness.call("crop_resize_fwd", out, frames, boxes, frame_index, affine, padding, antialias)
        return out

    def bwd_boxes(self, grad, frames, boxes, frame_index, affine, padding, antialias) -> Tensor:
        out = _untouched(torch.empty_like(boxes))
        self.harness.call("crop_resize_bwd_boxes", out, grad, frames, boxes, frame_index, affine, padding, antialias)
        return out

    def bwd_frames(
        self, grad, boxes, frame_index, affine, num_frames, height, width, padding, antialias, dtype, channels_last
    ) -> Tensor:
        out = _images(num_frames, grad.shape[1], height, width, dtype, channels_last)
        self.harness.call("crop_resize_bwd_frames", out, grad, boxes, frame_index, affine, padding, antialias)
        return out


class CropMean:
    """The parts of crop_mean, in the same way."""

    def __init__(self, edits: Mapping[Path, str] | None = None):
        self.harness = Harness("crop_mean", edits)

    def fwd(self, frames, boxes, frame_index, affine, out_h, out_w, padding, out_dtype) -> Tensor:
        out = _untouched(torch.empty((boxes.shape[0], frames.shape[-3]), dtype=out_dtype))
        self.harness.call("crop_mean_fwd", out, frames, boxes, frame_index, affine, out_h, out_w, padding)
        return out

    def bwd_boxes(self, grad, frames, boxes, frame_index, affine, out_h, out_w, padding) -> Tensor:
        out = _untouched(torch.empty_like(boxes))
        call = (grad.contiguous(), frames, boxes, frame_index, affine, out_h, out_w, padding)
        self.harness.call("crop_mean_bwd_boxes", out, *call)
        return out

    def bwd_frames(
        self, grad, boxes, frame_index, affine, num_frames, height, width, out_h, out_w, padding, dtype, channels_last
    ) -> Tensor:
        out = _images(num_frames, grad.shape[1], height, width, dtype, channels_last)
        call = (grad.contiguous(), boxes, frame_index, affine, out_h, out_w, padding)
        self.harness.call("crop_mean_bwd_frames", out, *call)
        return out


def install() -> None:
    """Adds the backend."""
    ops = {"crop_resize": CropResize(), "crop_mean": CropMean()}
    kernels = {name: (op.fwd, op.bwd_boxes, op.bwd_frames) for name, op in ops.items()}
    backends.extend(NAME, "cpu", kernels, build.why_not())
