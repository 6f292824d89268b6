"""quantile_frames in Triton: _reference/quantile_frames.py.

A program has some rows and goes through their bins in order, so that the cumulative sums are those of a loop. Bit for
bit what every backend gives: no product is fused with a sum, and divisions are correctly rounded.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import clamp_to, divide
from .launch import THREADS, Strided, blocks, constants, launch, power_of_2
from .philox import JITTER, random_words, row_number, uniform
from .race import load_weights


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    dtype: tl.constexpr  # the type of the arithmetic
    rows: tl.constexpr  # rows of a block
    frames: tl.constexpr  # frames of a row, of the k, in a block

    @staticmethod
    def of(weights: Tensor, k: int) -> "Variant":
        dtype = tl.float64 if weights.dtype == torch.float64 else tl.float32
        frames = max(power_of_2(k, THREADS.value), 4)  # Philox makes words by fours
        return Variant(*constants((dtype, power_of_2(weights.shape[0], THREADS.value // frames), frames)))


@triton.jit
def _jitter(jitter, seed, row_id, b, first, rows, k, variant):
    """The jitter of frames from `first` on, [rows, frames]; 1/2 without any."""
    i = first + tl.arange(0, variant.frames)[None, :]
    if jitter is not None:
        there = (b < rows) & (i < k)
        value = tl.load(jitter.data + b * jitter.strides[0] + i.to(tl.int64) * jitter.strides[1], there, other=0)
        value = value.to(tl.float64 if value.dtype == tl.float64 else tl.float32)
        return clamp_to(tl.where(value == value, value, 0.5), 0.0, 1.0).to(variant.dtype)
    elif seed is not None:
        row = row_number(row_id, tl.where(b < rows, b, 0))
        word = random_words(seed, row, JITTER, tl.zeros_like(b).to(tl.int32), first, variant.frames)
        return (1.0 - uniform(word)).to(variant.dtype)
    else:
        return tl.full([1, 1], 0.5, variant.dtype)


@triton.jit
def _frame_at(quantile, bin_, low, high, bins, num_frames):
    """The frame at which the distribution reaches a quantile: frame_at of quantile_frames.h."""
    some = high > low
    inside = tl.where(some, divide(quantile - low, tl.where(some, high - low, 1.0)), 0.0)
    frames_of_bin = tl.cast(num_frames, tl.float64) / tl.cast(bins, tl.float64)
    return (frames_of_bin.to(quantile.dtype) * (bin_.to(quantile.dtype) + clamp_to(inside, 0.0, 1.0))).to(tl.int64)


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b)


@triton.jit(do_not_specialize=("rows", "bins", "num_frames", "k"))
def _fwd(out, weights, jitter, seed, row_id, rows, bins, num_frames, k, variant):
    b = (tl.program_id(0).to(tl.int64) * variant.rows + tl.arange(0, variant.rows))[:, None]
    at_least = tl.full([variant.rows, 1], -(2**62), tl.int64)  # index i is this + i, at least
    for first in range(0, k, variant.frames):
        i = first + tl.arange(0, variant.frames)[None, :]
        shift = _jitter(jitter, seed, row_id, b, first, rows, k, variant)
        quantile = divide(i.to(variant.dtype) + shift, k) + tl.zeros([variant.rows, variant.frames], variant.dtype)
        total = tl.zeros([variant.rows, 1], tl.float64)
        low, high = tl.zeros_like(quantile), tl.full(quantile.shape, 1.0, variant.dtype)  # c_0 = 0, c_T = 1
        bin_ = tl.zeros(quantile.shape, tl.int32)
        for t in range(bins - 1):
            total += load_weights(weights, b, tl.cast(t, tl.int64), b < rows).to(tl.float64)
            end = total.to(variant.dtype)  # c_{t + 1}
            below = end < quantile
            high = tl.where(below | (bin_ < t), high, end)
            low = tl.where(below, end, low)
            bin_ += below.to(tl.int32)
        index = _frame_at(quantile, bin_, low, high, bins, num_frames)
        # index_i = max(index_i, index_{i-1} + 1) from left to right is a running maximum of index_i - i.
        ahead = tl.maximum(tl.associative_scan(index - i, 1, _larger), at_least)
        at_least = tl.max(ahead, 1, keep_dims=True)
        index = tl.minimum(ahead, num_frames - k) + i
        tl.store(out + (b * k + i), index, (b < rows) & (i < k))


def fwd(
    weights: Tensor, num_frames: int, k: int, jitter: Tensor | None, seed: Tensor | None, row_id: Tensor | None
) -> Tensor:
    rows, bins = weights.shape
    out = torch.empty((rows, k), dtype=torch.int64, device=weights.device)
    if out.numel() == 0:
        return out
    variant = Variant.of(weights, k)
    tensors = (out, Strided.of(weights), None if jitter is None else Strided.of(jitter), seed, row_id)
    programs = blocks((rows, variant.rows.value))
    launch(_fwd, programs, weights.device, *tensors, rows, bins, num_frames, k, variant)
    return out
