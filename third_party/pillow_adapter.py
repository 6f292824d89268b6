"""Pillow's resize with this library's boxes: of bytes, always with antialias where it shrinks."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from adafocus_ops import boxes as box_ops


def images_of(frames: Tensor) -> list[Any]:
    """Pillow's images of frames [K, 3, H, W] uint8, in its own memory.

    Raises:
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        message = f"Pillow is not installed ({error}): pip install -r third_party/requirements-peers.txt"
        raise ImportError(message) from error
    return [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]


def resize(images: list[Any], boxes: Tensor, patch: int) -> Tensor:
    """Patches [K, 3, P, P] uint8, stored channels_last, of whole-pixel boxes [K, 4] (cy, cx, h, w), box k of image k.

    Cut out first: Image.resize with a box would read beside it.
    """
    out = np.empty((len(images), patch, patch, 3), np.uint8)
    for image, corners, result in zip(images, box_ops.to_xyxy(boxes).tolist(), out, strict=True):
        result[:] = np.asarray(image.crop(corners).resize((patch, patch), _bilinear()))
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _bilinear() -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR
