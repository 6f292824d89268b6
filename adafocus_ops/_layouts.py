"""Layouts of images in memory: a result has that of what it was made from."""

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_FRAME_DIMS = 8  # of [..., C, H, W]


def memory_format_of(x: Tensor) -> torch.memory_format:
    """The memory format that a result like x has: channels_last(_3d) where x is that and not contiguous."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if last is not None and x.is_contiguous(memory_format=last) and not x.is_contiguous():
        return last
    return torch.contiguous_format


def is_channels_last(images: Tensor) -> bool:
    """Tells if a result like images [..., C, H, W] keeps the channels of a pixel together: where those of images,
    which need not be dense, lie together and the images are not contiguous."""
    return not images.is_contiguous() and images.stride(-3) == 1 and images.shape[-3] > 1


def is_dense(images: Tensor, memory_format: torch.memory_format) -> bool:
    """Tells if images [N, C, H, W] lie without gaps in a memory format. (Tensor.is_contiguous says the same, but not of
    channels_last under vmap.)"""
    inwards = (0, 2, 3, 1) if memory_format == torch.channels_last else (0, 1, 2, 3)
    step = 1
    for dim in reversed(inwards):
        if images.shape[dim] != 1 and images.stride(dim) != step and images.numel():
            return False
        step *= images.shape[dim]
    return True


def empty_images(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Uninitialised images [N, C, H, W] on the device of `like`."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=memory_format)


def is_clip_channels_last(clips: Tensor) -> bool:
    """Tells if a result like clips [N, C, T, H, W] keeps the channels of a place together: as for images."""
    return not clips.is_contiguous() and clips.stride(1) == 1 and clips.shape[1] > 1


def empty_clips(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Uninitialised clips [N, C, T, H, W] on the device of `like`."""
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=memory_format)


def convolved_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """The places that a convolution has on each axis."""
    return [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True)]
