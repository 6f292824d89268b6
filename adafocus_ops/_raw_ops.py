"""Every op, declared once: what it is made of, and what each part takes and returns.

An op has parts: its forward, "fwd", the same into memory that is given, "fwd_out", if it has that, and those of its
gradients that have kernels. The part `part` of the op `op` is the
raw op torch.ops.adafocus._{op}_{part}; shapes, dtypes and meanings of its arguments are those of the function with the
same name in `_reference/{op}.py`. Raw ops are not differentiable by themselves.

All else follows from this table: `_registration` defines the raw ops and their overloads, `backends` finds the kernels
of each (the extension's, `_triton/{op}.py`, `_reference/{op}.py`), and tests/test_ops_are_complete.py tells what an op
that stands here lacks elsewhere.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import _vmap
from ._layouts import convolved_size, empty_clips, empty_images, memory_format_of


class Part(NamedTuple):
    """One function of an op."""

    schema: str
    fake: Callable  # the fake kernel: an empty result of the shape, dtype and strides, for tracing


class RawOp(NamedTuple):
    """An op as torch knows it."""

    parts: Mapping[str, Part]
    vmap: Callable  # the rule that folds a mapped dimension into the batch


# ----------------------------------------------------------------------------------------------------
# Fake kernels


def _crop_resize_fwd(
    frames, boxes, frame_index, affine, out_h, out_w, padding, antialias, out_dtype, channels_last
) -> Tensor:
    return empty_images(frames, (boxes.shape[0], frames.shape[-3], out_h, out_w), out_dtype, channels_last)


def _crop_resize_fwd_out(out, *rest) -> None:
    return None


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


def _depthwise_conv3d_fwd(x, weight, bias, *rest) -> Tensor:
    *strides_and_paddings, channels_last = rest
    stride, padding = strides_and_paddings[:3], strides_and_paddings[3:]
    size = convolved_size(x.shape[2:], weight.shape[2:], stride, padding)
    return empty_clips(x, (*x.shape[:2], *size), x.dtype, channels_last)


def _depthwise_conv3d_bwd_x(grad, weight, frames, height, width, *rest) -> Tensor:
    return empty_clips(grad, (*grad.shape[:2], frames, height, width), grad.dtype, rest[-1])


def _depthwise_conv3d_bwd_weight(grad, x, kernel_t, kernel_h, kernel_w, *rest) -> Tensor:
    compute = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty((x.shape[1], 1, kernel_t, kernel_h, kernel_w), dtype=compute)


# ----------------------------------------------------------------------------------------------------
# The ops

_CONV3D_GEOMETRY = (
    "SymInt stride_t, SymInt stride_h, SymInt stride_w, SymInt padding_t, SymInt padding_h, SymInt padding_w"
)

RAW_OPS: Mapping[str, RawOp] = {
    "crop_resize": RawOp(
        {
            "fwd": Part(
                "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h, SymInt out_w,"
                " str padding, bool antialias, ScalarType out_dtype, bool channels_last) -> Tensor",
                _crop_resize_fwd,
            ),
            "fwd_out": Part(
                "(Tensor(a!) out, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, str padding,"
                " bool antialias) -> ()",
                _crop_resize_fwd_out,
            ),
            "bwd_boxes": Part(
                "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, str padding,"
                " bool antialias) -> Tensor",
                _bwd_boxes,
            ),
            "bwd_frames": Part(
                "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames, SymInt height,"
                " SymInt width, str padding, bool antialias, ScalarType frames_dtype, bool channels_last) -> Tensor",
                _bwd_frames,
            ),
        },
        _vmap.fold_crops,
    ),
    "crop_mean": RawOp(
        {
            "fwd": Part(
                "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h, SymInt out_w,"
                " str padding, ScalarType out_dtype) -> Tensor",
                _crop_mean_fwd,
            ),
            "bwd_boxes": Part(
                "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h,"
                " SymInt out_w, str padding) -> Tensor",
                _bwd_boxes,
            ),
            "bwd_frames": Part(
                "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames, SymInt height,"
                " SymInt width, SymInt out_h, SymInt out_w, str padding, ScalarType frames_dtype, bool channels_last)"
                " -> Tensor",
                _bwd_frames,
            ),
        },
        _vmap.fold_crops,
    ),
    "weighted_sample": RawOp(
        {
            "fwd": Part(
                "(Tensor weights, SymInt k, SymInt num_samples, Tensor seed, Tensor? row_id) -> Tensor",
                _weighted_sample_fwd,
            ),
        },
        _vmap.fold_rows,
    ),
    "expected_value": RawOp(
        {
            "fwd": Part(
                "(Tensor values, Tensor weights, SymInt k, SymInt num_samples, Tensor? seed, Tensor? row_id)"
                " -> (Tensor out, Tensor coefficients)",
                _expected_value_fwd,
            ),
            "bwd_values": Part(
                "(Tensor grad, Tensor weights, Tensor coefficients, ScalarType dtype) -> Tensor",
                _expected_value_bwd_values,
            ),
            "bwd_weights": Part(
                "(Tensor grad, Tensor values, Tensor weights, Tensor coefficients, SymInt k, SymInt num_samples,"
                " Tensor? seed, Tensor? row_id, bool normaliser_grad) -> Tensor",
                _expected_value_bwd_weights,
            ),
        },
        _vmap.fold_rows,
    ),
    "quantile_frames": RawOp(
        {
            "fwd": Part(
                "(Tensor weights, SymInt num_frames, SymInt k, Tensor? jitter, Tensor? seed, Tensor? row_id) -> Tensor",
                _quantile_frames_fwd,
            ),
        },
        _vmap.fold_rows,
    ),
    "exit_gate": RawOp(
        {
            "fwd": Part(
                "(Tensor logits, Tensor? threshold, float bound, str criterion, Tensor? active, SymInt capacity)"
                " -> (Tensor score, Tensor exited, Tensor keep, Tensor leave, Tensor counts)",
                _exit_gate_fwd,
            ),
        },
        _vmap.one_by_one,
    ),
    "gather_rows": RawOp(
        {"fwd": Part("(Tensor x, Tensor index, Tensor? count) -> Tensor", _gather_rows_fwd)}, _vmap.fold_numbers
    ),
    "scatter_rows": RawOp(
        {"fwd": Part("(Tensor(a!) out, Tensor index, Tensor rows, Tensor? count) -> ()", _scatter_rows_fwd)},
        _vmap.one_by_one,
    ),
    "temporal_shift": RawOp(
        {"fwd": Part("(Tensor x, SymInt num_frames, SymInt fold, bool inverse) -> Tensor", _temporal_shift_fwd)},
        _vmap.fold_rows,
    ),
    "depthwise_conv3d": RawOp(
        {
            "fwd": Part(
                f"(Tensor x, Tensor weight, Tensor? bias, {_CONV3D_GEOMETRY}, bool channels_last) -> Tensor",
                _depthwise_conv3d_fwd,
            ),
            "bwd_x": Part(
                "(Tensor grad, Tensor weight, SymInt frames, SymInt height, SymInt width,"
                f" {_CONV3D_GEOMETRY}, bool channels_last) -> Tensor",
                _depthwise_conv3d_bwd_x,
            ),
            "bwd_weight": Part(
                "(Tensor grad, Tensor x, SymInt kernel_t, SymInt kernel_h, SymInt kernel_w,"
                f" {_CONV3D_GEOMETRY}) -> Tensor",
                _depthwise_conv3d_bwd_weight,
            ),
        },
        _vmap.fold_clips,
    ),
}
