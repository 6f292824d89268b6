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


def _like_reference(op: str, *arguments) -> Tensor:
    """A tensor with the shape, dtype and strides of an op's result."""
    fwd = backends.kernels(op, "reference")[0]
    return torch.empty_like(fwd(*arguments))


class HostOp:
    """The parts of an op, with the signatures of its raw ops.

    Args:
        edits: files of csrc/cuda and texts to compile in place of theirs.
    """

    op: str

    def __init__(self, edits: Mapping[Path, str] | None = None):
        self.harness = Harness(self.op, edits)


class CropResize(HostOp):
    op = "crop_resize"

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


class CropMean(HostOp):
    op = "crop_mean"

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


class WeightedSample(HostOp):
    op = "weighted_sample"

    def fwd(self, weights, k, num_samples, seed, row_id) -> Tensor:
        out = _untouched(torch.empty((weights.shape[0], num_samples, k), dtype=torch.int64))
        self.harness.call("weighted_sample_fwd", out, weights, seed, row_id)
        return out


class ExpectedValue(HostOp):
    op = "expected_value"

    def fwd(self, values, weights, k, num_samples, seed, row_id) -> tuple[Tensor, Tensor]:
        double = torch.float64 in (values.dtype, weights.dtype)
        out = _untouched(torch.empty((values.shape[0], values.shape[2]), dtype=values.dtype))
        coefficients = _untouched(torch.empty(weights.shape, dtype=torch.float64 if double else torch.float32))
        draws = (k, num_samples, seed, row_id)
        self.harness.call("expected_value_fwd", (out, coefficients), values, weights, *draws)
        return out, coefficients

    def bwd_values(self, grad, weights, coefficients, dtype) -> Tensor:
        out = _untouched(torch.empty((*weights.shape, grad.shape[1]), dtype=dtype))
        self.harness.call("expected_value_bwd_values", out, grad, weights, coefficients)
        return out

    def bwd_weights(self, grad, values, weights, coefficients, k, num_samples, seed, row_id, normaliser_grad) -> Tensor:
        out = _untouched(torch.empty(weights.shape, dtype=weights.dtype))
        call = (grad, values, weights, coefficients, k, num_samples, seed, row_id, normaliser_grad)
        self.harness.call("expected_value_bwd_weights", out, *call)
        return out


class QuantileFrames(HostOp):
    op = "quantile_frames"

    def fwd(self, weights, num_frames, k, jitter, seed, row_id) -> Tensor:
        out = _untouched(torch.empty((weights.shape[0], k), dtype=torch.int64))
        self.harness.call("quantile_frames_fwd", out, weights, num_frames, jitter, seed, row_id)
        return out


class ExitGate(HostOp):
    op = "exit_gate"

    def fwd(self, logits, threshold, bound, criterion, active, capacity) -> tuple[Tensor, ...]:
        rows, score_dtype = logits.shape[0], torch.promote_types(logits.dtype, torch.float32)
        shapes = [(rows, score_dtype), (rows, torch.bool), *((size, torch.int64) for size in (capacity, capacity, 2))]
        out = tuple(_untouched(torch.empty(size, dtype=dtype)) for size, dtype in shapes)
        self.harness.call("exit_gate_fwd", out, logits, threshold, bound, criterion, active)
        return out


class GatherRows(HostOp):
    op = "gather_rows"

    def fwd(self, x, index, count) -> Tensor:
        out = _untouched(_like_reference("gather_rows", x, index, count))
        self.harness.call("gather_rows_fwd", out, x, index, count, x.element_size())
        return out


class ScatterRows(HostOp):
    op = "scatter_rows"

    def fwd(self, out, index, rows, count) -> None:
        self.harness.call("scatter_rows_fwd", out, index, rows, count, out.element_size())


class TemporalShift(HostOp):
    op = "temporal_shift"

    def fwd(self, x, num_frames, fold, inverse) -> Tensor:
        out = _untouched(_like_reference("temporal_shift", x, num_frames, fold, inverse))
        self.harness.call("temporal_shift_fwd", out, x, num_frames, fold, inverse)
        return out


OPS = {
    kind.op: kind
    for kind in (
        CropResize,
        CropMean,
        WeightedSample,
        ExpectedValue,
        QuantileFrames,
        ExitGate,
        GatherRows,
        ScatterRows,
        TemporalShift,
    )
}


def install() -> None:
    """Adds the backend."""
    ops = {name: op() for name, op in OPS.items()}
    kernels = {name: tuple(getattr(op, part) for part in backends.parts(name)) for name, op in ops.items()}
    backends.extend(NAME, "cpu", kernels, build.why_not())
