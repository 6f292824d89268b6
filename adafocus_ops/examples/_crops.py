"""Examples of both crops."""

import torch

from .record import Example
from .tensors import corners, empty, positions, random_images, smooth_boxes

INDEX = torch.tensor([2, 0, 0, 1, 2])


def crop_example(name, shape, out, count, index=None, *, dtype, layout, **kwargs) -> Example:
    """One call on frames of a shape, with `count` boxes."""
    boxes_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    kinks = corners if kwargs.get("antialias") else positions
    boxes = smooth_boxes(count, out, shape[-2:], seed=len(name), kinks=kinks).to(boxes_dtype)
    frames = random_images(shape, dtype, layout, seed=len(name))
    if index is not None:
        kwargs["frame_index"] = index
    # A position carries a rounding error in proportion to itself, which the slope of noise turns into a value's.
    return Example(name, (frames, boxes, out), kwargs, conditioning=8 + max(shape[-2:]))


def crop_of_any_size(count: int) -> Example:
    """So many boxes on three frames of noise."""
    size = (12, 10)
    frames = random_images((3, 3, 40, 50), torch.float32, "contiguous", seed=1)
    boxes = smooth_boxes(count, size, frames.shape[-2:], seed=2).float()
    return Example(f"{count} boxes", (frames, boxes, size), {"frame_index": torch.arange(count) * 2 % 3})


def crop_of_real_size(
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    channels_last: bool,
    out: tuple[int, int],
    *,
    index: bool = False,
    **kwargs,
) -> Example:
    """A box for each frame of a shape."""
    *lead, channels, height, width = shape
    count = torch.Size(lead).numel()
    frames = empty(count, channels, height, width, dtype=dtype, channels_last=channels_last).unflatten(0, lead)
    boxes = empty(count, 4, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    if index:
        kwargs["frame_index"] = empty(count, dtype=torch.int64)
    return Example(name, (frames, boxes, out), kwargs)
