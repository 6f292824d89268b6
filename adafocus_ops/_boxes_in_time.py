"""Boxes of glance frames at the frames that were picked, as crop_resize takes them."""

import torch
from torch import Tensor

from ._box_arguments import BOX_DTYPES, at_least_float32
from ._overridable import overridable
from .checks import (
    INDEX_DTYPES,
    check_choice,
    check_in_range,
    check_same_device,
    check_tensor,
    describe,
    positive_int,
    require,
)

INTERPOLATIONS = ("linear", "nearest")  # in time


@overridable
def for_frames(
    boxes: Tensor,
    frame_index: Tensor,
    num_frames: int,
    *,
    interpolation: str = "linear",
    videos: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The boxes and the frame_index that crop_resize takes, for picked frames of a batch of videos.

        boxes, flat_index = for_frames(boxes, frame_index, N)
        crop_resize(frames, boxes, P, frame_index=flat_index)  # frames [B, N, C, H, W] -> [B * K, C, P, P]

    T glance frames share a video's N frames evenly: frame n lies at the position (n + 1/2) T / N - 1/2 among
    them. Between two glance frames "linear" interpolates, beyond the first and the last it holds their values;
    "nearest" takes the glance frame whose part of the video, [t N / T, (t + 1) N / T), has the centre of frame n.

    Args:
        boxes: [B, T, 4] of the glance frames, or [B, 4], the same in all frames of a video. Actions are as
            welcome, to be made boxes afterwards; since an action's place and size multiply, interpolated actions
            are not quite interpolated boxes. The published networks interpolate actions.
        frame_index: [B, K] int32 or int64, the frames picked from each video, as `quantile_frames` gives them.
        num_frames: N, the frames of each video.
        interpolation: "linear" or "nearest", in time.
        videos: [B] int32 or int64, the place of each row's video in the batch of frames; None for 0, 1, 2, ...

    Returns:
        boxes [B * K, 4], float32 (float64 for float64), and the index [B * K] int64 into the flattened frames
        [videos * N]. A frame_index outside [0, N) becomes -1, which crop_resize answers by a patch of NaN.

    Gradients: to boxes. Determinism: bitwise reproducible.

    Raises:
        TypeError, ValueError: a dtype, shape, device or choice that is not listed; under set_debug(True) also a
            frame_index outside [0, N).

    Source: Uni-AdaFocus, Appendix H.1; the published implementation's interpolation in time.
    """
    check_tensor("boxes", boxes, BOX_DTYPES)
    check_tensor("frame_index", frame_index, INDEX_DTYPES)
    require(frame_index.ndim == 2, lambda: f"frame_index must be [B, K], got {describe(frame_index)}")
    rows, picked = frame_index.shape
    require(
        boxes.ndim in (2, 3) and boxes.shape[0] == rows and boxes.shape[-1] == 4 and 0 not in boxes.shape[1:],
        lambda: f"boxes must be [B, T, 4] or [B, 4] with B={rows} (frame_index), got {describe(boxes)}",
    )
    check_same_device("boxes", boxes, "frame_index", frame_index)
    num_frames = positive_int("num_frames", num_frames)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    check_in_range("frame_index", frame_index, num_frames, "num_frames")
    frame_index, boxes = frame_index.long(), at_least_float32(boxes)
    if boxes.ndim == 2:
        # A copy always: of one video alone, reshape would give a view of stride 0, which a program that torch.export
        # made with several videos, whose copies are contiguous, hands to the kernels as it is.
        each = boxes[:, None].expand(rows, picked, 4).clone(memory_format=torch.contiguous_format)
    else:
        weights = _weights_in_time(frame_index, num_frames, boxes.shape[1], interpolation, boxes.dtype)
        # A sum over all glance frames, for a gradient without atomics; infinite boxes stay those of their frames.
        part = torch.where(weights[..., None] > 0, weights[..., None] * boxes[:, None], 0)  # [B, K, T, 4]
        each = part.sum(2)
    return each.reshape(-1, 4), _flat_index(frame_index, num_frames, videos)


def _weights_in_time(
    frame_index: Tensor, num_frames: int, num_glance: int, interpolation: str, dtype: torch.dtype
) -> Tensor:
    """[B, K, T] of sum 1: how much of each glance frame is in each picked one."""
    unit = 2 * num_frames  # one glance frame, in which all positions are whole
    centre = (2 * frame_index.clamp(0, num_frames - 1) + 1) * num_glance  # from the start of glance frame 0
    if interpolation == "nearest":
        position = centre.div(unit, rounding_mode="floor") * unit
    else:
        position = (centre - num_frames).clamp(0, unit * (num_glance - 1))
    knots = unit * torch.arange(num_glance, device=frame_index.device)  # [T]
    distance = (position[..., None] - knots).abs()
    return (unit - distance).clamp(min=0).to(dtype) / unit


def _flat_index(frame_index: Tensor, num_frames: int, videos: Tensor | None) -> Tensor:
    """[B * K] int64 into the flattened frames, -1 where an index is outside its video."""
    if videos is None:
        videos = torch.arange(frame_index.shape[0], device=frame_index.device)
    else:
        check_tensor("videos", videos, INDEX_DTYPES)
        require(
            tuple(videos.shape) == tuple(frame_index.shape[:1]),
            lambda: f"videos must be [B] with B={frame_index.shape[0]} (frame_index), got {describe(videos)}",
        )
        check_same_device("videos", videos, "frame_index", frame_index)
    inside = (frame_index >= 0) & (frame_index < num_frames)
    return torch.where(inside, videos.long()[:, None] * num_frames + frame_index, -1).flatten()
