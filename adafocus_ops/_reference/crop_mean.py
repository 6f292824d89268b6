"""crop_mean in plain PyTorch: the mean of the crop."""

import torch
from torch import Tensor

from . import crop_resize


def fwd(
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
    out_dtype: torch.dtype,
) -> Tensor:
    """The means [K, C] of out_dtype; arguments as crop_resize's."""
    crops = crop_resize.fwd(frames, boxes, frame_index, affine, out_h, out_w, padding, False, boxes.dtype, False)
    return crops.mean((2, 3)).to(out_dtype)


def bwd_boxes(
    grad: Tensor,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    out_h: int,
    out_w: int,
    padding: str,
) -> Tensor:
    """Gradient of the boxes, [K, 4] of the boxes' dtype, from grad [K, C]."""
    return crop_resize.bwd_boxes(
        _of_crops(grad, boxes, out_h, out_w), frames, boxes, frame_index, affine, padding, False
    )


def bwd_frames(
    grad: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    affine: Tensor | None,
    num_frames: int,
    height: int,
    width: int,
    out_h: int,
    out_w: int,
    padding: str,
    frames_dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    """Gradient of the flattened frames, [num_frames, C, height, width] of frames_dtype."""
    grad = _of_crops(grad, boxes, out_h, out_w)
    frames = (num_frames, height, width)
    return crop_resize.bwd_frames(
        grad, boxes, frame_index, affine, *frames, padding, False, frames_dtype, channels_last
    )


def _of_crops(grad: Tensor, boxes: Tensor, out_h: int, out_w: int) -> Tensor:
    """The gradient of the crops, [K, C, P_h, P_w], from that of their means."""
    return (grad.to(boxes.dtype) / (out_h * out_w))[:, :, None, None].expand(-1, -1, out_h, out_w)
