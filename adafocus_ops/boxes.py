"""Converters to and from the one box convention of this library.

A box is (cy, cx, h, w): centre row, centre column, height, width, continuous, in pixels of the frame
that it is cut from; pixel (r, c) covers [r, r+1) x [c, c+1) and the frame's top left corner is (0, 0).
Every function takes and returns [..., 4] tensors, keeps the dtype and is differentiable.
"""

import torch
from torch import Tensor

from .checks import describe, positive_int, require


def _unbind(name: str, boxes: Tensor) -> tuple[Tensor, ...]:
    ok = isinstance(boxes, Tensor) and boxes.ndim >= 1 and boxes.shape[-1] == 4
    require(ok, lambda: f"{name} must be a [..., 4] tensor, got {describe(boxes)}")
    return boxes.unbind(-1)


def from_xyxy(xyxy: Tensor) -> Tensor:
    """Boxes from corners (x0, y0, x1, y1) in pixels, x1 and y1 exclusive (as in torchvision)."""
    x0, y0, x1, y1 = _unbind("xyxy", xyxy)
    return torch.stack([(y0 + y1) / 2, (x0 + x1) / 2, y1 - y0, x1 - x0], -1)


def to_xyxy(boxes: Tensor) -> Tensor:
    """Corners (x0, y0, x1, y1) in pixels of boxes: the inverse of from_xyxy."""
    cy, cx, h, w = _unbind("boxes", boxes)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)


def from_normalised(boxes: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Boxes in pixels from (cy, cx, h, w) as fractions of a frame of frame_size (H, W)."""
    return scale(boxes, (1, 1), frame_size)


def to_normalised(boxes: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """(cy, cx, h, w) as fractions of a frame of frame_size (H, W): the inverse of from_normalised."""
    return scale(boxes, frame_size, (1, 1))


def scale(boxes: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """The same boxes on another sampling of the frame, for example its feature map.

    Args:
        boxes: [..., 4] in pixels of a frame of from_size (H, W).
        to_size: (H, W) of the other sampling, which covers the same area.
    """
    cy, cx, h, w = _unbind("boxes", boxes)
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return torch.stack([cy * y, cx * x, h * y, w * x], -1)


def from_action(action: Tensor, frame_size: tuple[int, int], min_side: float, max_side: float) -> Tensor:
    """Boxes from the policy's output: position of the top left corner inside its admissible range, and size.

        h = S + a_h (L - S),  w = S + a_w (L - S),  top = a_y (H - h),  left = a_x (W - w)

    so that a box with sides of at most H and W never leaves the frame.

    Args:
        action: [..., 4], (a_y, a_x, a_h, a_w) in [0, 1].
        frame_size: (H, W) in pixels.
        min_side, max_side: S and L in pixels (96 and 224 for frames of 224 pixels).

    Source: Uni-AdaFocus, Section 4.1.2, in the published implementation's form.
    """
    a_y, a_x, a_h, a_w = _unbind("action", action)
    h = min_side + a_h * (max_side - min_side)
    w = min_side + a_w * (max_side - min_side)
    return torch.stack([a_y * (frame_size[0] - h) + h / 2, a_x * (frame_size[1] - w) + w / 2, h, w], -1)


def clamp(boxes: Tensor, frame_size: tuple[int, int]) -> Tensor:
    """Boxes moved, and where they are larger than the frame shrunk, so that they lie inside it."""
    cy, cx, h, w = _unbind("boxes", boxes)
    h, w = h.clamp(0, frame_size[0]), w.clamp(0, frame_size[1])
    cy = torch.minimum(torch.maximum(cy, h / 2), frame_size[0] - h / 2)
    cx = torch.minimum(torch.maximum(cx, w / 2), frame_size[1] - w / 2)
    return torch.stack([cy, cx, h, w], -1)


def full_frame(count: int, frame_size: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """[count, 4] float32: boxes that cover a whole frame of frame_size (H, W)."""
    height, width = frame_size
    values = (height / 2, width / 2, height, width)
    # Filled on the device: a copy from the host would wait for it.
    return torch.stack([torch.full((), float(value), device=device) for value in values]).expand(count, 4)


def grid(rows: int, columns: int, box_size: tuple[int, int], frame_size: tuple[int, int]) -> Tensor:
    """[rows * columns, 4] float32: boxes of one size at equally spaced positions, row by row.

    The first box touches the top left corner, the last the bottom right one; corners are rounded down
    to whole pixels, as AdaFocus V1's fixed candidates are.

    Args:
        rows, columns: how many positions each way (7 x 7 in AdaFocus V1).
        box_size, frame_size: (height, width) in pixels.
    """
    for name, value in (("rows", rows), ("columns", columns)):
        positive_int(name, value)
    (h, w), (height, width) = box_size, frame_size
    top = (torch.linspace(0, 1, rows) * (height - h)).floor() + h / 2
    left = (torch.linspace(0, 1, columns) * (width - w)).floor() + w / 2
    cy, cx = torch.meshgrid(top, left, indexing="ij")
    return torch.stack([cy, cx, torch.full_like(cy, h), torch.full_like(cx, w)], -1).flatten(0, 1)
