"""Bytes: how many of some images must be touched, and how fast the memory moves them."""

import torch
from torch import Tensor

from bench.harness.timing import interleave, stats

SECTOR = 32  # bytes: the least that a GPU reads from its memory
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}  # several times any cache


def copy_gb_per_s(device: torch.device) -> float:
    """Billions of bytes a second, read and written, that a large copy within the device's memory moves."""
    source = torch.randint(256, (COPIED_BYTES[device.type],), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = interleave({"copy": lambda: target.copy_(source)}, device, runs=10)
    return 2 * source.nbytes / stats(times["copy"])["p50_ms"] / 1e6


def gmac_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of multiply-adds a second of a product of two large matrices."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    times = interleave({"product": lambda: a @ b}, device, runs=10)
    return side**3 / min(times["product"]) / 1e6


def sector_bytes(images: Tensor, scanlines: Tensor, columns: Tensor) -> int:
    """Bytes of the images that reading some of their pixels touches, in whole sectors.

    Every scanline counts as beginning at a sector, which holds for scanlines of a multiple of 32 bytes; shorter ones
    share sectors, so no image counts for more than all its bytes.

    Args:
        images: [K, C, H, W], contiguous or channels_last.
        scanlines: [K, H] bool, those of which pixels are read.
        columns: [K, W] bool, the pixels that are read of each of these.
    """
    channels = images.shape[1]
    planes = 1 if images.stride(1) == 1 else channels
    pixel = images.element_size() * channels // planes
    scanline = columns.repeat_interleave(pixel, 1)  # [K, bytes]
    scanline = torch.nn.functional.pad(scanline, (0, -scanline.shape[1] % SECTOR))  # [K, whole sectors]
    sectors = scanline.unflatten(1, (-1, SECTOR)).any(2).sum(1)  # [K]
    touched = scanlines.sum(1) * planes * sectors * SECTOR  # [K]
    return int(touched.clamp(max=images[0].nbytes).sum())
