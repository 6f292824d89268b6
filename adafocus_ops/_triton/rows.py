"""Rows of memory as Triton kernels move them: numbers of their size, whatever they mean.

A block is [rows, elements]. The elements of a row are counted in the order in which the result has them in memory.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import blocks, constants, launch, merge, power_of_2

BYTES_PER_BLOCK = 8192  # bytes of a block of dense rows: four accesses of 16 for each thread
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Rows(NamedTuple):
    """[rows, ...] as an argument of a kernel, its dimensions merged as far as those of another tensor allow."""

    data: Tensor
    sizes: tuple[int, ...]  # sizes of a row, innermost first, without the outermost
    strides: tuple[int, ...]  # strides of a row, innermost first, with the outermost
    row_stride: int  # from one row to the next

    @staticmethod
    def pair(source: Tensor, target: Tensor) -> "tuple[Rows, Rows]":
        """Tensors with rows of one shape, whose elements are counted as the target has them in memory."""
        source, target = _as_integers(source), _as_integers(target)
        order = sorted(range(1, target.ndim), key=target.stride, reverse=True)
        shape = [target.shape[d] for d in order]
        dims = merge(shape, [source.stride(d) for d in order], [target.stride(d) for d in order])
        sizes, *strides = zip(*dims, strict=True)
        return tuple(
            Rows(tensor, sizes[:-1], steps, tensor.stride(0))
            for tensor, steps in zip((source, target), strides, strict=True)
        )


def _as_integers(x: Tensor) -> Tensor:
    """The same memory, as integers."""
    if x.itemsize == 16:
        x = torch.view_as_real(x)
    return x.view(INTEGERS[x.itemsize])


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    offset: tl.constexpr  # the integers that count the elements of a row
    rows: tl.constexpr  # rows of a block
    elements: tl.constexpr  # elements of a row in a block

    @staticmethod
    def of(target: Rows, rows: int, elements: int) -> "Variant":
        size = BYTES_PER_BLOCK // target.data.itemsize // (8 if target.sizes else 1)  # finding elements takes registers
        block = power_of_2(elements, size)
        offset = tl.int64 if elements + block >= 2**31 else tl.int32
        return Variant(*constants((offset, power_of_2(rows, size // block), block)))

    def blocks(self, rows: int, elements: int) -> int:
        return blocks((rows, self.rows.value), (elements, self.elements.value))


@triton.jit
def locate(elements, variant):
    """Rows [rows, 1] (int64) and elements [1, elements] that a program works on."""
    tiles = tl.cdiv(elements, variant.elements)
    first = (tl.program_id(0) % tiles).to(variant.offset) * variant.elements
    row = (tl.program_id(0) // tiles).to(tl.int64) * variant.rows + tl.arange(0, variant.rows)
    return row[:, None], (first + tl.arange(0, variant.elements))[None, :]


@triton.jit
def element(rows, e):
    """The distance of element e of a row from its first, in memory."""
    offset = tl.zeros_like(e).to(tl.int64)
    for d in tl.static_range(len(rows.sizes)):
        above = e // rows.sizes[d]
        offset += (e - above * rows.sizes[d]).to(tl.int64) * rows.strides[d]
        e = above
    return offset + e.to(tl.int64) * rows.strides[len(rows.sizes)]


@triton.jit(do_not_specialize=("num_rows", "num_index"))
def _copy(target, source, index, count, num_rows, num_index, elements, scatter: tl.constexpr, variant):
    """Row index[j] of the source becomes row j of the target, or zeros where there is none; or, to scatter, row j of
    the source becomes row index[j] of the target, if there is one."""
    j, e = locate(elements, variant)
    n = tl.load(index + j, j < num_index, other=-1).to(tl.int64)
    valid = (n >= 0) & (n < num_rows)
    if count is not None:
        valid = valid & (j < tl.load(count))
    from_row, to_row = (j, n) if scatter else (n, j)
    in_row = e < elements
    value = tl.load(source.data + from_row * source.row_stride + element(source, e), valid & in_row, other=0)
    stored = valid if scatter else j < num_index
    tl.store(target.data + to_row * target.row_stride + element(target, e), value, stored & in_row)


def copy(source: Tensor, target: Tensor, index: Tensor, count: Tensor | None, scatter: bool) -> None:
    """gather_rows or scatter_rows."""
    rows, num_rows = index.shape[0], (target if scatter else source).shape[0]
    source, target = Rows.pair(source, target)
    elements = math.prod(target.data.shape[1:])
    if rows * elements == 0:
        return
    variant = Variant.of(target, rows, elements)
    arguments = (target, source, index, count, num_rows, rows, elements, scatter, variant)
    launch(_copy, variant.blocks(rows, elements), index.device, *arguments)
