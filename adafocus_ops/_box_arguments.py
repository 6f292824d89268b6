"""The arguments that all converters of boxes have, and their checks."""

from numbers import Integral, Real

import torch
from torch import Tensor

from .checks import FLOAT_DTYPES, check_tensor, describe, plain_int, require

BOX_DTYPES = (
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *FLOAT_DTYPES,
)


def at_least_float32(boxes: Tensor) -> Tensor:
    """What is computed with, whatever dtype came."""
    return boxes if boxes.dtype == torch.float64 else boxes.to(torch.float32)


def unbind(name: str, boxes: Tensor) -> tuple[Tensor, ...]:
    """The four numbers of each box, to compute with."""
    check_tensor(name, boxes, BOX_DTYPES)
    require(
        boxes.ndim >= 1 and boxes.shape[-1] == 4, lambda: f"{name} must be a [..., 4] tensor, got {describe(boxes)}"
    )
    return at_least_float32(boxes).unbind(-1)


def number(name: str, value: object) -> float:
    """A number of Python's, which neither wraps nor rounds as numpy's small ones do."""
    if isinstance(value, torch.SymInt | torch.SymFloat):
        return value
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    require(is_number, lambda: f"{name} must be a number, got {describe(value)}", TypeError)
    return int(value) if isinstance(value, Integral) else float(value)


def size_of(name: str, size: object) -> tuple[float, float]:
    """(height, width) as positive numbers."""
    is_pair = hasattr(size, "__len__") and len(size) == 2
    require(is_pair, lambda: f"{name} must be a pair (height, width), got {size!r}", TypeError)
    height, width = (number(f"{name} {side}", value) for side, value in zip(("height", "width"), size, strict=True))
    require(height > 0 and width > 0, lambda: f"{name} must be positive, got {size!r}")
    return height, width


def whole_size(name: str, size: object) -> tuple[int, int]:
    """(height, width) as positive ints."""
    height, width = size_of(name, size)
    return plain_int(f"{name} height", height), plain_int(f"{name} width", width)
