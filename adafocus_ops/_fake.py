"""Fake kernels of the raw ops: the shapes, dtypes and strides of their results, for tracing."""

import torch
from torch import Tensor

from . import _schema
from ._layouts import empty_images, memory_format_of


def _crop_resize_fwd(
    frames, boxes, frame_index, affine, out_h, out_w, padding, antialias, out_dtype, channels_last
) -> Tensor:
    return empty_images(frames, (boxes.shape[0], frames.shape[-3], out_h, out_w), out_dtype, channels_last)


def _crop_mean_fwd(frames, boxes, frame_index, affine, out_h, out_w, padding, out_dtype) -> Tensor:
    return frames.new_empty((boxes.shape[0], frames.shape[-3]), dtype=out_dtype)


def _bwd_boxes(grad, frames, boxes, *rest) -> Tensor:
    return torch.empty_like(boxes)


def _bwd_frames(grad, boxes, frame_index, affine, num_frames, height, width, *rest) -> Tensor:
    frames_dtype, channels_last = rest[-2:]
    return empty_images(grad, (num_frames, grad.shape[1], height, width), frames_dtype, channels_last)


def _weighted_sample_fwd(weights, k, num_samples, seed, row_id) -> Tensor:
    return weights.new_empty((weights.shape[0], num_samples, k), dtype=torch.int64)


def _expected_value_fwd(values, weights, k, num_samples, seed, row_id) -> tuple[Tensor, Tensor]:
    compute = torch.float64 if torch.float64 in (values.dtype, weights.dtype) else torch.float32
    return values.new_empty((values.shape[0], values.shape[2])), weights.new_empty(weights.shape, dtype=compute)


def _expected_value_bwd_values(grad, weights, coefficients, dtype) -> Tensor:
    return grad.new_empty((*weights.shape, grad.shape[1]), dtype=dtype)


def _expected_value_bwd_weights(grad, values, weights, *rest) -> Tensor:
    return weights.new_empty(weights.shape)


def _quantile_frames_fwd(weights, num_frames, k, jitter, seed, row_id) -> Tensor:
    return weights.new_empty((weights.shape[0], k), dtype=torch.int64)


def _exit_gate_fwd(logits, threshold, bound, criterion, active, capacity) -> tuple[Tensor, ...]:
    rows = logits.shape[0]
    score = logits.new_empty(rows, dtype=torch.promote_types(logits.dtype, torch.float32))
    keep, leave, counts = (logits.new_empty(size, dtype=torch.int64) for size in (capacity, capacity, 2))
    return score, logits.new_empty(rows, dtype=torch.bool), keep, leave, counts


def _gather_rows_fwd(x, index, count) -> Tensor:
    shape = (index.shape[0], *x.shape[1:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


def _scatter_rows_fwd(out, index, rows, count) -> None:
    return None


def _temporal_shift_fwd(x, num_frames, fold, inverse) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))


_FAKES = {
    "_crop_resize_fwd": _crop_resize_fwd,
    "_crop_resize_bwd_boxes": _bwd_boxes,
    "_crop_resize_bwd_frames": _bwd_frames,
    "_crop_mean_fwd": _crop_mean_fwd,
    "_crop_mean_bwd_boxes": _bwd_boxes,
    "_crop_mean_bwd_frames": _bwd_frames,
    "_weighted_sample_fwd": _weighted_sample_fwd,
    "_expected_value_fwd": _expected_value_fwd,
    "_expected_value_bwd_values": _expected_value_bwd_values,
    "_expected_value_bwd_weights": _expected_value_bwd_weights,
    "_quantile_frames_fwd": _quantile_frames_fwd,
    "_exit_gate_fwd": _exit_gate_fwd,
    "_gather_rows_fwd": _gather_rows_fwd,
    "_scatter_rows_fwd": _scatter_rows_fwd,
    "_temporal_shift_fwd": _temporal_shift_fwd,
}


def register(op: torch._ops.OpOverload) -> None:
    """Registers the fake kernel of a raw op or of an overload of it."""
    torch.library.register_fake(op, _FAKES[op._schema.name.removeprefix("adafocus::")])


for _op in _schema.SCHEMAS:
    for _raw in _schema.compiled(_op):
        register(_raw)
