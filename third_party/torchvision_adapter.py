"""torchvision's roi_align with this library's boxes."""

import torch
from torch import Tensor

from adafocus_ops import boxes as box_ops


def crop_resize(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """Crops [K, C, P, P] of boxes [K, 4] (cy, cx, h, w), box k from frame k of [K, C, H, W].

    One sample a bin at half-pixel positions is bilinear crop-and-resize. Samples up to one pixel outside
    the frame read its edge; with boxes inside the frame that concerns its border only.

    Raises:
        ImportError: torchvision is not installed.
        NotImplementedError: the boxes require a gradient.
    """
    try:
        from torchvision.ops import roi_align
    except ImportError as error:
        message = f"torchvision is not installed ({error}): pip install -r third_party/requirements-peers.txt"
        raise ImportError(message) from error
    if boxes.requires_grad:
        raise NotImplementedError("torchvision's roi_align has no gradient for boxes")
    frame = torch.arange(len(boxes), device=boxes.device)[:, None]
    rois = torch.cat([frame, box_ops.to_xyxy(boxes)], 1).to(frames.dtype)  # [K, 5]
    return roi_align(frames, rois, patch, sampling_ratio=1, aligned=True)
