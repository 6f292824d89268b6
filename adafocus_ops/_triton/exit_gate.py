"""exit_gate in Triton: _reference/exit_gate.py.

Two launches: the scores, and one program that lists who stays and who leaves.
"""

import struct
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import divide, inverse
from .launch import THREADS, Strided, blocks, constants, launch, power_of_2
from .race import LARGEST_DOUBLE, LARGEST_FLOAT

BLOCK = tl.constexpr(1024)  # rows, or entries of a list, that are looked at together


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    dtype: tl.constexpr  # the type of the arithmetic
    confidence: tl.constexpr  # whether the score is the confidence, else the entropy
    rows: tl.constexpr  # rows of a block
    classes: tl.constexpr  # classes of a block

    @staticmethod
    def of(logits: Tensor, criterion: str) -> "Variant":
        dtype = tl.float64 if logits.dtype == torch.float64 else tl.float32
        classes = power_of_2(logits.shape[1], 2048)
        rows = power_of_2(logits.shape[0], min(max(1024 // classes, 1), THREADS.value))
        return Variant(*constants((dtype, criterion == "confidence", rows, classes)))


@triton.jit
def _scores(logits, n, rows, classes, variant):
    """The entropy or the confidence of the softmax of rows n [rows, 1], in one pass."""
    # Not minus infinity: a block without any class must give nothing, only a row without any NaN.
    lowest: tl.constexpr = -LARGEST_DOUBLE if variant.dtype == tl.float64 else -LARGEST_FLOAT
    least: tl.constexpr = -708.0 if variant.dtype == tl.float64 else -87.0  # below the maximum; less counts nothing
    top = tl.full([variant.rows, 1], lowest, variant.dtype)
    total = tl.zeros([variant.rows, 1], variant.dtype)  # Z = sum exp x with x = z - top
    weighed = tl.zeros([variant.rows, 1], variant.dtype)  # S = sum x exp x
    for first in range(0, classes, variant.classes):
        c = first + tl.arange(0, variant.classes)[None, :]
        at = logits.data + n * logits.strides[0] + c.to(tl.int64) * logits.strides[1]
        z = tl.load(at, (n < rows) & (c < classes), other=float("-inf")).to(variant.dtype)
        higher = tl.maximum(top, tl.max(z, 1, keep_dims=True))
        down = tl.maximum(top - higher, least)
        scale = tl.where(down == least, 0.0, tl.exp(down))
        x = z - higher
        p = tl.where(x <= least, 0.0, tl.exp(x))
        weighed = scale * (weighed + down * total) + tl.sum(tl.where(p == 0, p, x * p), 1, keep_dims=True)
        total = scale * total + tl.sum(p, 1, keep_dims=True)
        top = higher
    if variant.confidence:
        return tl.where(total > 0, inverse(total, total.dtype), float("nan"))
    else:
        return tl.log(total) - divide(weighed, total)


@triton.jit
def _is_running(active, n, num_active, variant):
    """Rows n that run, [rows, 1] bool: those that a mask or a list names."""
    if active is None:
        return n >= 0
    elif active.dtype.element_ty == tl.int1:
        return tl.load(active + n, n < num_active, other=0) != 0
    else:
        block: tl.constexpr = 4096 // variant.rows
        found = n < 0
        for first in range(0, num_active, block):
            at = first + tl.arange(0, block)[None, :]
            row = tl.load(active + at, at < num_active, other=-1).to(tl.int64)
            found = found | (tl.max((row == n).to(tl.int32), 1, keep_dims=True) > 0)
        return found


@triton.jit(do_not_specialize=("bound", "rows", "num_active"))
def _decide(score, exited, running, logits, threshold, bound, active, rows, classes, num_active, variant):
    n = (tl.program_id(0).to(tl.int64) * variant.rows + tl.arange(0, variant.rows))[:, None]
    value = _scores(logits, n, rows, classes, variant)
    if threshold is None:
        limit = tl.cast(bound, tl.int64).to(tl.float64, bitcast=True).to(variant.dtype)
    else:
        limit = tl.load(threshold).to(variant.dtype)
    certain = value >= limit if variant.confidence else value <= limit  # NaN is neither
    runs = _is_running(active, n, num_active, variant)
    there = n < rows
    tl.store(score + n, value, there)
    tl.store(running + n, runs, there)
    tl.store(exited + n, runs & certain, there)


@triton.jit
def _append(entries, count, n, there, capacity):
    """Appends the numbers n that are there to `count` entries, as far as there is room; returns the new count."""
    slot = count + tl.cumsum(there.to(tl.int32)) - 1
    tl.store(entries + slot, n, there & (slot < capacity))
    return count + tl.sum(there.to(tl.int32))


@triton.jit(do_not_specialize=("rows", "capacity"))
def _compact(keep, leave, counts, exited, running, rows, capacity):
    stay, left = tl.zeros([], tl.int64), tl.zeros([], tl.int64)
    for first in range(0, rows, BLOCK):
        n = first + tl.arange(0, BLOCK)
        runs = tl.load(running + n, n < rows, other=0) != 0
        leaves = tl.load(exited + n, n < rows, other=0) != 0
        stay = _append(keep, stay, n.to(tl.int64), runs & (leaves == 0), capacity)
        left = _append(leave, left, n.to(tl.int64), leaves, capacity)
    tl.store(counts, stay)
    tl.store(counts + 1, left)
    for first in range(0, capacity, BLOCK):
        slot = first + tl.arange(0, BLOCK)
        nothing = tl.full([BLOCK], -1, tl.int64)
        tl.store(keep + slot, nothing, (slot >= stay) & (slot < capacity))
        tl.store(leave + slot, nothing, (slot >= left) & (slot < capacity))


def fwd(
    logits: Tensor, threshold: Tensor | None, bound: float, criterion: str, active: Tensor | None, capacity: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (rows, classes), device = logits.shape, logits.device
    compute = torch.float64 if logits.dtype == torch.float64 else torch.float32
    score = torch.empty(rows, dtype=compute, device=device)
    exited, running = (torch.empty(rows, dtype=torch.bool, device=device) for _ in range(2))
    keep, leave, counts = (torch.empty(size, dtype=torch.int64, device=device) for size in (capacity, capacity, 2))
    if rows:
        variant = Variant.of(logits, criterion)
        (bits,) = struct.unpack("q", struct.pack("d", bound))  # a number of double precision is no argument of a kernel
        limit = (threshold, bits, active)
        sizes = (rows, classes, 0 if active is None else active.numel())
        programs = blocks((rows, variant.rows.value))
        launch(_decide, programs, device, score, exited, running, Strided.of(logits), *limit, *sizes, variant)
    launch(_compact, 1, device, keep, leave, counts, exited, running, rows, capacity)
    return score, exited, keep, leave, counts
