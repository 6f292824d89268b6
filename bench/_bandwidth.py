"""Bytes: how many a crop must touch, and how fast the memory moves them."""

import torch
from torch import Tensor

from _timing import interleave, stats

SECTOR = 32  # bytes: the least that a GPU reads from its memory
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}  # several times any cache


def copy_gb_per_s(device: torch.device) -> float:
    """Billions of bytes a second, read and written, that a large copy within the device's memory moves."""
    source = torch.randint(256, (COPIED_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = interleave({"copy": lambda: target.copy_(source)}, device, runs=10)
    return 2 * source.nbytes / stats(times["copy"])["p50_ms"] / 1e6


def touched_bytes(frames: Tensor, boxes: Tensor, patch: int, antialias: bool = False) -> int:
    """Bytes of the frames that crops of side `patch` must read, in whole sectors; box k reads frame k.

    Every row counts as beginning at a sector, which holds for rows of a multiple of 32 bytes; shorter ones
    share sectors, so no box counts for more than a frame.

    Args:
        frames: [K, C, H, W], contiguous or channels_last.
        boxes: [K, 4] (cy, cx, h, w), h and w positive.
    """
    _, channels, height, width = frames.shape
    cy, cx, h, w = boxes.detach().double().unbind(1)
    rows = _pixels_read(cy, h, patch, height, antialias)
    columns = _pixels_read(cx, w, patch, width, antialias)
    planes = 1 if frames.stride(1) == 1 else channels
    pixel = frames.element_size() * channels // planes
    row = columns.repeat_interleave(pixel, 1)  # [K, bytes]
    row = torch.nn.functional.pad(row, (0, -row.shape[1] % SECTOR))
    sectors = row.unflatten(1, (-1, SECTOR)).any(2).sum(1)  # [K]
    touched = rows.sum(1) * planes * sectors * SECTOR
    return int(touched.clamp(max=frames[0].nbytes).sum())


def _pixels_read(centre: Tensor, extent: Tensor, patch: int, size: int, antialias: bool) -> Tensor:
    """[K, size] bool: the pixels of an axis that have a weight in any of the samples."""
    centre, extent = centre[:, None], extent[:, None]
    pixel = torch.arange(size, device=centre.device) + 0.5
    step = extent / patch
    nearest = ((pixel - centre) / step + (patch - 1) / 2).round().clamp(0, patch - 1)
    distance = (pixel - centre - step * (nearest - (patch - 1) / 2)).abs()
    if not antialias:
        return distance < 1
    return (distance < step.clamp(min=1)) & ((pixel - centre).abs() < extent.clamp(min=1) / 2 + 0.5)
