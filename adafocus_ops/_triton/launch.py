"""The launch of kernels, and tensors of any strides as their arguments."""

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

THREADS = tl.constexpr(128)


class Strided(NamedTuple):
    """A tensor and its strides as an argument of a kernel, which knows those that are 1 or a multiple of 16."""

    data: Tensor
    strides: tuple[int, ...]

    @staticmethod
    def of(tensor: Tensor) -> "Strided":
        return Strided(tensor, tensor.stride())


def merge(sizes: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """(size, *strides) of dimensions, innermost first; dimensions that step on from one another are one.

    Args:
        strides: of every tensor that has these dimensions.
    """
    merged: list[tuple[int, ...]] = []
    for size, *steps in reversed(list(zip(sizes, *strides, strict=True))):
        if merged and all(step == merged[-1][0] * below for step, below in zip(steps, merged[-1][1:], strict=True)):
            merged[-1] = (merged[-1][0] * size, *merged[-1][1:])
        elif size != 1:
            merged.append((size, *steps))
    return merged or [(1, *(0 for _ in strides))]


def power_of_2(size: int, limit: int) -> int:
    """The least power of two that is no less than the size, up to the limit."""
    return min(triton.next_power_of_2(max(size, 1)), limit)


def blocks(*sizes_and_blocks: tuple[int, int]) -> int:
    """The number of blocks along all axes together, each given as (its size, a block's)."""
    return math.prod(triton.cdiv(size, block) for size, block in sizes_and_blocks)


def constants(values: Iterable) -> Iterable[tl.constexpr]:
    """Values as constants that a kernel is compiled for."""
    return map(tl.constexpr, values)


def launch(
    kernel: triton.JITFunction, programs: int, device: torch.device, *args, threads: int = THREADS.value
) -> None:
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        # Fusing products with sums would move positions; where it may be done, kernels say so.
        kernel[(programs,)](*args, num_warps=threads // 32, enable_fp_fusion=False)
