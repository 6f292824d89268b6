"""The arguments that all crops have, and their checks."""

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ._layouts import MAX_FRAME_DIMS, is_channels_last, is_dense
from .checks import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    check_choice,
    check_in_range,
    check_same_device,
    check_tensor,
    checks_values,
    describe,
    positive_int,
    require,
)

FRAME_DTYPES = (torch.uint8, *FLOAT_DTYPES)
PADDINGS = ("zeros", "border")
LAYOUTS = (torch.contiguous_format, torch.channels_last)  # of a result
LIKE_ANOTHER = (None, torch.preserve_format)  # a memory format that is left to the frames, or to `out`


def check_arguments(frames: Tensor, boxes: Tensor, frame_index: Tensor | None, padding: str) -> None:
    """The arguments that all crops have."""
    check_tensor("frames", frames, FRAME_DTYPES)
    require(
        4 <= frames.ndim <= MAX_FRAME_DIMS,
        lambda: f"frames must be [..., C, H, W] with 4 to {MAX_FRAME_DIMS} dimensions, got {describe(frames)}",
    )
    check_tensor("boxes", boxes, FLOAT_DTYPES)
    require(boxes.ndim == 2 and boxes.shape[1] == 4, lambda: _explain_boxes(boxes))
    check_same_device("boxes", boxes, "frames", frames)
    check_choice("padding", padding, PADDINGS)
    _check_frame_index(frames, boxes, frame_index)
    if checks_values(frames):
        _check_values(frames, boxes, frame_index)


# What users of frames [B, N, C, H, W] meet first.
_OF_VIDEOS = (
    "of picks [B, K] from videos, adafocus_ops.boxes.for_frames makes the boxes [B * K, 4] and the frame_index [B * K]"
    " into the flattened frames"
)


def _explain_boxes(boxes: Tensor) -> str:
    what = f"boxes must be [K, 4], got {describe(boxes)}"
    if boxes.ndim < 3 or boxes.shape[-1] != 4:
        return what
    return f"{what}: boxes.flatten(0, -2) if there is one for each of the flattened frames; {_OF_VIDEOS}"


def check_output_size(output_size: Any) -> tuple[int, int]:
    """(P_h, P_w) of either form."""
    if not isinstance(output_size, Sequence):
        output_size = (output_size, output_size)
    require(len(output_size) == 2, lambda: f"output_size must be P or (P_h, P_w), got {output_size!r}")
    height, width = output_size
    return positive_int("output_size height", height), positive_int("output_size width", width)


def _check_frame_index(frames: Tensor, boxes: Tensor, frame_index: Tensor | None) -> None:
    boxes_count, frames_count = boxes.shape[0], prod(frames.shape[:-3])
    if frame_index is None:
        require(
            boxes_count == frames_count,
            lambda: (
                f"boxes must be [K, 4] with K == N == {frames_count} (frames) unless frame_index is given,"
                f" got {describe(boxes)} beside frames [..., C, H, W] of {describe(frames)}"
            ),
        )
        return
    check_tensor("frame_index", frame_index, INDEX_DTYPES)
    require(
        frame_index.ndim == 1 and frame_index.shape[0] == boxes_count,
        lambda: (
            f"frame_index must be [K] with K={boxes_count} (boxes), got {describe(frame_index)}"
            + (f"; {_OF_VIDEOS}" if frame_index.ndim == 2 else "")
        ),
    )
    check_same_device("frame_index", frame_index, "frames", frames)


def _check_values(frames: Tensor, boxes: Tensor, frame_index: Tensor | None) -> None:
    """Debug mode: what the kernels define without looking at it first."""
    finite = boxes.isfinite().all(1)
    require(
        bool(finite.all()),
        lambda: f"boxes must be finite; the first that is not is box {int((~finite).int().argmax())}",
    )
    if frame_index is not None:
        check_in_range("frame_index", frame_index, prod(frames.shape[:-3]), "frames")


def wants_channels_last(frames: Tensor, memory_format: torch.memory_format | None) -> bool:
    """Tells if the result is channels_last: as asked, else like the frames."""
    _check_memory_format(memory_format)
    return is_channels_last(frames) if memory_format in LIKE_ANOTHER else memory_format == torch.channels_last


def _check_memory_format(memory_format: torch.memory_format | None) -> None:
    require(
        memory_format in (*LIKE_ANOTHER, *LAYOUTS),
        lambda: f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format}",
    )


def check_out(
    out: Tensor,
    frames: Tensor,
    shape: tuple[int, ...],
    out_dtype: torch.dtype | None,
    memory_format: torch.memory_format | None,
) -> None:
    """`out` must be as a result would be that is made for this call: of its shape, device, dtype and layout."""
    check_tensor("out", out, FRAME_DTYPES if out_dtype is None else (out_dtype,))
    require(tuple(out.shape) == shape, lambda: f"out must be [K, C, P_h, P_w] = {shape}, got {describe(out)}")
    check_same_device("out", out, "frames", frames)
    _check_memory_format(memory_format)
    layouts = LAYOUTS if memory_format in LIKE_ANOTHER else (memory_format,)
    require(
        any(is_dense(out, layout) for layout in layouts),
        lambda: f"out must be {' or '.join(map(str, layouts))} without gaps, got strides {out.stride()}",
    )
