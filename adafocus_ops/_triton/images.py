"""Images, boxes and blocks as Triton kernels see them.

A block is [channels, rows, columns], or [rows, columns, channels] where channels are accessed together, so that
neighbouring threads use neighbouring addresses.
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .launch import THREADS, blocks, constants, merge, power_of_2

# Sizes, which tell nothing of alignment: no kernel is compiled anew because one is 1 or a multiple of 16.
SIZES = ("num_boxes", "num_frames", "height", "width", "out_h", "out_w", "strip")


# ----------------------------------------------------------------------------------------------------
# On the host


class Images(NamedTuple):
    """[..., C, H, W] as an argument of a kernel.

    Where channels are contiguous and everything else is a multiple of them, `vector` neighbouring channels are one
    access: strides are in units of them, so that kernels know it. That is all they should know: told that columns are
    contiguous, the compiler would give neighbouring columns to one thread, and gathers would be scattered; and a
    kernel is compiled anew for whatever it knows. So a stride s is passed as 2 s + 1, which tells nothing.
    """

    data: Tensor
    sizes: tuple[int, ...]  # of the leading dimensions, merged, innermost first, without the outermost
    lead: tuple[int, ...]  # their strides, with the outermost
    stride_c: int
    stride_y: int
    stride_x: int
    vector: tl.constexpr

    @staticmethod
    def of(images: Tensor) -> "Images":
        sizes, strides = zip(*merge(images.shape[:-3], images.stride()[:-3]), strict=True)
        vector = _vector(images, strides)
        lead, last = ([2 * (stride // vector) + 1 for stride in some] for some in (strides, images.stride()[-3:]))
        return Images(images, sizes[:-1], tuple(lead), *last, tl.constexpr(vector))

    def span(self) -> int:
        """How far the last element of an image is from its first."""
        shape, strides = self.data.shape[-3:], self.data.stride()[-3:]
        return sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _vector(images: Tensor, lead_strides: tuple[int, ...]) -> int:
    """How many channels are contiguous and aligned in every pixel, up to 16 bytes."""
    channels, height, width = images.shape[-3:]
    stride_c, stride_y, stride_x = images.stride()[-3:]
    if stride_c != 1 or images.data_ptr() % 16:
        return 1
    steps = [stride for stride, size in ((stride_y, height), (stride_x, width)) if size > 1]
    return math.gcd(16 // images.itemsize, channels, *steps, *lead_strides)


class Variant(NamedTuple):
    """What a kernel is compiled for."""

    channels: tl.constexpr
    border: tl.constexpr
    antialias: tl.constexpr
    offset: tl.constexpr  # the integers that hold any offset inside an image
    interleaved: tl.constexpr  # which order the dimensions of a block have
    block_c: tl.constexpr
    block_y: tl.constexpr
    block_x: tl.constexpr

    @staticmethod
    def of(
        images: Images,
        rows: int,
        columns: int,
        padding: str,
        antialias: bool,
        *others: Images,
        accesses: int = 1,
        to_pixel: int = 32,
    ) -> "Variant":
        """A block of so many accesses to `images` for each thread.

        Where channels are accessed together, it has up to `to_pixel` accesses to a pixel, else all of few channels.
        It has no more columns than waste little at the end of a row.

        Args:
            rows, columns: what is divided into blocks.
            others: the other images that the kernel uses.
        """
        channels, vector = images.data.shape[-3], images.vector.value
        size = THREADS.value * vector * accesses
        block_c = power_of_2(channels, to_pixel * vector) if vector > 1 else 1
        block_x = power_of_2(columns, min(32, size // block_c))
        block_y = power_of_2(rows, size // (block_c * block_x))
        if vector == 1:
            block_c = power_of_2(channels, 4 * size // (block_y * block_x))
        offset = tl.int64 if max(each.span() for each in (images, *others)) >= 2**31 else tl.int32
        values = (channels, padding == "border", antialias, offset, vector > 1, block_c, block_y, block_x)
        return Variant(*constants(values))

    def blocks(self, rows: int, columns: int) -> int:
        """How many blocks all channels of so many rows and columns are."""
        c, y, x = self.block_c.value, self.block_y.value, self.block_x.value
        return blocks((self.channels.value, c), (rows, y), (columns, x))


def num_frames(frames: Tensor) -> int:
    """How many frames there are to cut from: none if they have no pixels."""
    return math.prod(frames.shape[:-3]) if frames.numel() else 0


# ----------------------------------------------------------------------------------------------------
# Images and boxes


@triton.jit
def image(images, n):
    """Where image n starts, counted through the leading dimensions."""
    offset = n * 0
    for d in tl.static_range(len(images.sizes)):
        offset += n % images.sizes[d] * (images.lead[d] >> 1)
        n = n // images.sizes[d]
    offset += n * (images.lead[len(images.sizes)] >> 1)
    return images.data + offset * images.vector


@triton.jit
def load_box(boxes, k):
    """(cy, cx, h, w) of box k, and whether they are finite."""
    box = boxes + 4 * k.to(tl.int64)
    cy, cx, h, w = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    infinity = float("inf")
    finite = (tl.abs(cy) < infinity) & (tl.abs(cx) < infinity) & (tl.abs(h) < infinity) & (tl.abs(w) < infinity)
    return (cy, cx, h, w), finite


@triton.jit
def box_and_frame(frames, boxes, frame_index, num_frames, k):
    """Box k, where its frame starts, and whether it is finite and the frame exists."""
    box, finite = load_box(boxes, k)
    if frame_index is None:
        n = k.to(tl.int64)
    else:
        n = tl.load(frame_index + k).to(tl.int64)
    valid = finite & (n >= 0) & (n < num_frames)
    return box, image(frames, tl.where(valid, n, 0)), valid


@triton.jit
def next_box(frame_index, n, k, num_boxes):
    """The first box from k on that is cut from frame n, or num_boxes."""
    BLOCK: tl.constexpr = 1024
    if frame_index is None:
        return tl.where((k <= n) & (n < num_boxes), n, num_boxes)
    else:
        found = num_boxes
        while (k < num_boxes) & (found == num_boxes):
            boxes = k + tl.arange(0, BLOCK)
            frames = tl.load(frame_index + boxes, boxes < num_boxes, other=-1)
            found = tl.min(tl.where(frames == n, boxes, num_boxes))
            k += BLOCK
        return found


# ----------------------------------------------------------------------------------------------------
# Blocks


@triton.jit
def locate(tile, rows, columns, strip, variant):
    """What a program works on, of images of so many rows and columns: the image's number, a block of channels, and
    where a strip of a block's columns starts."""
    c_tiles, x_tiles = tl.cdiv(variant.channels, variant.block_c), tl.cdiv(columns, variant.block_x)
    y_tiles = tl.cdiv(rows, strip)
    c = tile % c_tiles * variant.block_c + tl.arange(0, variant.block_c)
    column = tile // c_tiles % x_tiles * variant.block_x
    row = tile // (c_tiles * x_tiles) % y_tiles * strip
    return tile // (c_tiles * x_tiles * y_tiles), c, row, column


@triton.jit
def zero_block(variant, dtype: tl.constexpr):
    if variant.interleaved:
        return tl.zeros([variant.block_y, variant.block_x, variant.block_c], dtype)
    else:
        return tl.zeros([variant.block_c, variant.block_y, variant.block_x], dtype)


@triton.jit
def zero_pixels(variant, dtype: tl.constexpr):
    """A block of one channel."""
    if variant.interleaved:
        return tl.zeros([variant.block_y, variant.block_x, 1], dtype)
    else:
        return tl.zeros([1, variant.block_y, variant.block_x], dtype)


@triton.jit
def along_channels(x, variant):
    return x[None, None, :] if variant.interleaved else x[:, None, None]


@triton.jit
def along_rows(x, variant):
    return x[:, None, None] if variant.interleaved else x[None, :, None]


@triton.jit
def along_columns(x, variant):
    return x[None, :, None] if variant.interleaved else x[None, None, :]


@triton.jit
def product(y, x, variant):
    """Of a number of each row and one of each column."""
    return along_rows(y, variant) * along_columns(x, variant)


@triton.jit
def elements(images, image, c, y, x, variant):
    """Pointers to the pixels (y, x) of channels c of an image."""
    if images.vector == 1:
        c = c.to(variant.offset) * (images.stride_c >> 1)
    y = y.to(variant.offset) * (images.stride_y >> 1) * images.vector
    x = x.to(variant.offset) * (images.stride_x >> 1) * images.vector
    return image + (along_rows(y, variant) + along_columns(x, variant) + along_channels(c, variant))


@triton.jit
def mask(c, in_y, in_x, variant):
    in_c = along_channels(c < variant.channels, variant)
    return along_rows(in_y, variant) & along_columns(in_x, variant) & in_c


@triton.jit
def load(images, image, c, y, x, in_y, in_x, dtype: tl.constexpr, variant):
    """Pixels (y, x) of channels c of an image, zero where they are not in it."""
    return tl.load(elements(images, image, c, y, x, variant), mask(c, in_y, in_x, variant), other=0).to(dtype)


@triton.jit
def store(images, image, c, y, x, in_y, in_x, value, variant):
    """Stores what is in the image."""
    pixels, there = elements(images, image, c, y, x, variant), mask(c, in_y, in_x, variant)
    tl.store(pixels, convert(value, images.data.dtype.element_ty), there)


@triton.jit
def convert(value, dtype: tl.constexpr):
    """Converts to the type of an image: integers are rounded half to even and saturated, NaN becomes 0."""
    if dtype == tl.uint8:
        value = tl.where(value > 0, value, 0.0)
        value = tl.where(value < 255, value, 255.0)
        shift: tl.constexpr = 1.5 * 2.0**52 if value.dtype == tl.float64 else 1.5 * 2.0**23  # leaves no fraction
        value = ((value + shift) - shift).to(tl.int32)
    elif dtype != tl.float64:
        value = value.to(tl.float32)
    return value.to(dtype)


@triton.jit
def load_affine(affine, c, variant):
    """Scale and shift of channels c."""
    there = c < variant.channels
    return tl.load(affine + c, there, other=0), tl.load(affine + variant.channels + c, there, other=0)
