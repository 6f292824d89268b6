"""Converters to and from the one box convention of this library.

A box is (cy, cx, h, w): centre row, centre column, height, width, continuous, in pixels of the frame
that it is cut from; pixel (r, c) covers [r, r+1) x [c, c+1) and the frame's top left corner is (0, 0).

Every converter takes a [..., 4] tensor of any integer or floating-point dtype, computes in float32 and gives
float32 (float64 for float64), inside autocast too, and is differentiable: half precision would round a place
beyond 2048 pixels to whole ones, and integers would wrap. Sizes are pairs (height, width) of numbers. Bad
arguments raise TypeError or ValueError, with what arrived.
"""

import torch
from torch import Tensor

from ._box_arguments import number, size_of, unbind, whole_size
from ._boxes_in_time import for_frames
from ._overridable import overridable
from .checks import plain_int, positive_int, require

__all__ = [
    "clamp",
    "for_frames",
    "from_action",
    "from_centre_action",
    "from_normalised",
    "from_xyxy",
    "full_frame",
    "grid",
    "scale",
    "to_normalised",
    "to_xyxy",
]


def __dir__() -> list[str]:
    return __all__


# ----------------------------------------------------------------------------------------------------
# Between conventions


@overridable
def from_xyxy(xyxy: Tensor) -> Tensor:
    """Boxes from corners (x0, y0, x1, y1) in pixels, x1 and y1 exclusive (as in torchvision)."""
    x0, y0, x1, y1 = unbind("xyxy", xyxy)
    return torch.stack([(y0 + y1) / 2, (x0 + x1) / 2, y1 - y0, x1 - x0], -1)


@overridable
def to_xyxy(boxes: Tensor) -> Tensor:
    """Corners (x0, y0, x1, y1) in pixels of boxes: the inverse of from_xyxy."""
    cy, cx, h, w = unbind("boxes", boxes)
    return torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)


@overridable
def from_normalised(boxes: Tensor, frame_size: tuple[float, float]) -> Tensor:
    """Boxes in pixels from (cy, cx, h, w) as fractions of a frame of frame_size (H, W)."""
    return _scale(boxes, (1, 1), size_of("frame_size", frame_size))


@overridable
def to_normalised(boxes: Tensor, frame_size: tuple[float, float]) -> Tensor:
    """(cy, cx, h, w) as fractions of a frame of frame_size (H, W): the inverse of from_normalised."""
    return _scale(boxes, size_of("frame_size", frame_size), (1, 1))


@overridable
def scale(boxes: Tensor, from_size: tuple[float, float], to_size: tuple[float, float]) -> Tensor:
    """The same boxes on another sampling of the frame, for example its feature map.

    Args:
        boxes: [..., 4] in pixels of a frame of from_size (H, W).
        to_size: (H, W) of the other sampling, which covers the same area.
    """
    return _scale(boxes, size_of("from_size", from_size), size_of("to_size", to_size))


def _scale(boxes: Tensor, from_size: tuple[float, float], to_size: tuple[float, float]) -> Tensor:
    cy, cx, h, w = unbind("boxes", boxes)
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return torch.stack([cy * y, cx * x, h * y, w * x], -1)


@overridable
def clamp(boxes: Tensor, frame_size: tuple[float, float]) -> Tensor:
    """Boxes moved, and where they are larger than the frame shrunk, so that they lie inside it."""
    cy, cx, h, w = unbind("boxes", boxes)
    height, width = size_of("frame_size", frame_size)
    h, w = h.clamp(0, height), w.clamp(0, width)
    cy = torch.minimum(torch.maximum(cy, h / 2), height - h / 2)
    cx = torch.minimum(torch.maximum(cx, w / 2), width - w / 2)
    return torch.stack([cy, cx, h, w], -1)


# ----------------------------------------------------------------------------------------------------
# From a policy


@overridable
def from_action(action: Tensor, frame_size: tuple[float, float], min_side: float, max_side: float) -> Tensor:
    """Boxes from the policy's output: position of the top left corner inside its admissible range, and size.

        h = S + a_h (L - S),  w = S + a_w (L - S),  top = a_y (H - h),  left = a_x (W - w)

    so that a box with sides of at most H and W never leaves the frame.

    The place is a fraction of what the size leaves. So the gradient of the place shrinks as the box grows
    (d cy / d a_y = H - h: a box of the frame's height has none), and a size moves the centre
    (d cy / d h = 1/2 - a_y). Boxes that have grown to the frame stay there: keep sizes off the largest while a
    policy starts to learn, or let `from_centre_action` keep place and size apart.

    Args:
        action: [..., 4], (a_y, a_x, a_h, a_w) in [0, 1].
        frame_size: (H, W) in pixels.
        min_side, max_side: S and L in pixels (96 and 224 for frames of 224 pixels).

    Source: Uni-AdaFocus, Section 4.1.2, in the published implementation's form.
    """
    a_y, a_x, h, w = _places_and_sides(action, min_side, max_side)
    height, width = size_of("frame_size", frame_size)
    return torch.stack([a_y * (height - h) + h / 2, a_x * (width - w) + w / 2, h, w], -1)


@overridable
def from_centre_action(action: Tensor, frame_size: tuple[float, float], min_side: float, max_side: float) -> Tensor:
    """Boxes from a policy's output: position of the centre in the frame, and size; each moves without the other.

        h = S + a_h (L - S),  w = S + a_w (L - S),  cy = a_y H,  cx = a_x W

    The twin of `from_action` for a place that keeps its gradient (d cy / d a_y = H) whatever the size. A box may
    leave the frame by half of it, and reads padding there; `clamp` moves it inside, and where it does, the place
    has no gradient and the size moves the centre.

    Args:
        action: [..., 4], (a_y, a_x, a_h, a_w) in [0, 1].
        frame_size: (H, W) in pixels.
        min_side, max_side: S and L in pixels.
    """
    a_y, a_x, h, w = _places_and_sides(action, min_side, max_side)
    height, width = size_of("frame_size", frame_size)
    return torch.stack([a_y * height, a_x * width, h, w], -1)


def _places_and_sides(action: Tensor, min_side: float, max_side: float) -> tuple[Tensor, ...]:
    """a_y, a_x, h and w."""
    a_y, a_x, a_h, a_w = unbind("action", action)
    smallest, largest = number("min_side", min_side), number("max_side", max_side)
    return a_y, a_x, smallest + a_h * (largest - smallest), smallest + a_w * (largest - smallest)


# ----------------------------------------------------------------------------------------------------
# Fixed boxes


def full_frame(count: int, frame_size: tuple[float, float], device: torch.device | str | None = None) -> Tensor:
    """[count, 4] float32 in memory of its own: boxes that cover a whole frame of frame_size (H, W)."""
    count = plain_int("count", count)
    require(count >= 0, lambda: f"count must be at least 0, got {count}")
    height, width = size_of("frame_size", frame_size)
    values = (height / 2, width / 2, height, width)
    # Filled on the device: a copy from the host would wait for it.
    return torch.stack([torch.full((count,), value, dtype=torch.float32, device=device) for value in values], -1)


def grid(
    rows: int,
    columns: int,
    box_size: tuple[int, int],
    frame_size: tuple[int, int],
    device: torch.device | str | None = None,
) -> Tensor:
    """[rows * columns, 4] float32: boxes of one size at equally spaced positions, row by row.

    The first box touches the top left corner, the last the bottom right one; corners are rounded down
    to whole pixels, exactly: top of row i = floor(i (H - h) / (rows - 1)).

    Args:
        rows, columns: how many positions each way (7 x 7 in AdaFocus V1).
        box_size, frame_size: (height, width) in whole pixels.
    """
    rows, columns = positive_int("rows", rows), positive_int("columns", columns)
    (h, w), (height, width) = whole_size("box_size", box_size), whole_size("frame_size", frame_size)
    cy = _corners(rows, height - h, device) + h / 2
    cx = _corners(columns, width - w, device) + w / 2
    cy, cx = torch.meshgrid(cy, cx, indexing="ij")
    return torch.stack([cy, cx, torch.full_like(cy, h), torch.full_like(cx, w)], -1).flatten(0, 1)


def _corners(count: int, span: int, device: torch.device | str | None) -> Tensor:
    """[count] float32: whole positions from 0 to span, equally spaced and rounded down."""
    steps = torch.arange(count, device=device)
    return (steps * span).div(max(count - 1, 1), rounding_mode="floor").to(torch.float32)
