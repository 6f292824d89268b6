"""kornia's crop_and_resize with this library's boxes."""

import torch
from torch import Tensor

from adafocus_ops import boxes as box_ops


def crop_resize(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """Crops [K, C, P, P] of boxes [K, 4] (cy, cx, h, w), box k from frame k of [K, C, H, W].

    kornia's corners are the positions of the first and the last sample, as indices of pixels: half a
    pixel and half a sample inside the box.

    Raises:
        ImportError: kornia is not installed.
    """
    try:
        from kornia.geometry.transform import crop_and_resize
    except ImportError as error:
        message = f"kornia is not installed ({error}): pip install -r third_party/requirements-peers.txt"
        raise ImportError(message) from error
    cy, cx, h, w = boxes.unbind(1)
    inner = torch.stack([cy, cx, h * (1 - 1 / patch), w * (1 - 1 / patch)], 1)
    left, top, right, bottom = (box_ops.to_xyxy(inner) - 0.5).unbind(1)
    corners = torch.stack([left, top, right, top, right, bottom, left, bottom], 1).view(-1, 4, 2)
    return crop_and_resize(frames, corners, (patch, patch))
