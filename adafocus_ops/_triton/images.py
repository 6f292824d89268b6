"""Images, boxes and blocks as Triton kernels see them.

A block is [c, y, x], or [y, x, c] where channels are accessed together, so that neighbouring threads use neighbouring
addresses. Along its axes i, j are outputs of a patch and r, s pixels of a frame.
"""

import math
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .geometry import Axis
from .launch import THREADS, blocks, constants, merge, power_of_2

# Sizes tell nothing of alignment: no kernel is compiled anew because one is 1 or a multiple of 16.
SIZES = ("num_boxes", "num_frames", "height", "width", "out_h", "out_w", "strip")


# ----------------------------------------------------------------------------------------------------
# On the host


def hide(stride: int) -> int:
    """A stride as a kernel's argument that tells the compiler nothing; reveal() takes it back.

    The compiler looks for arguments that are 1 or multiples of 16. Told that columns are contiguous, it would give
    neighbouring columns to one thread, and gathers would be scattered; and a kernel is compiled anew for whatever it
    knows. An odd number above 1 is neither.
    """
    return 2 * stride + 1


@triton.jit
def reveal(hidden):
    return hidden >> 1


class Images(NamedTuple):
    """[..., C, H, W] as an argument of a kernel.

    Where channels are contiguous and everything else is a multiple of them, `vector` neighbouring channels are one
    access: strides are in units of them, so that kernels know it. That is all they should know: the strides are hidden.
    """

    data: Tensor
    sizes: tuple[int, ...]  # sizes of the leading dimensions, merged, innermost first, without the outermost
    lead: tuple[int, ...]  # hidden strides of the leading dimensions, with the outermost
    stride_c: int  # hidden, as stride_y and stride_x are
    stride_y: int
    stride_x: int
    vector: tl.constexpr  # channels of one access

    @staticmethod
    def of(images: Tensor) -> "Images":
        sizes, strides = zip(*merge(images.shape[:-3], images.stride()[:-3]), strict=True)
        vector = _vector(images, strides)
        lead, last = ([hide(stride // vector) for stride in some] for some in (strides, images.stride()[-3:]))
        return Images(images, sizes[:-1], tuple(lead), *last, tl.constexpr(vector))

    def span(self) -> int:
        """The distance of the last element of an image from its first, in memory."""
        shape, strides = self.data.shape[-3:], self.data.stride()[-3:]
        return sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))


def _vector(images: Tensor, lead_strides: tuple[int, ...]) -> int:
    """The number of channels that are contiguous and aligned in every pixel, up to 16 bytes."""
    channels, height, width = images.shape[-3:]
    stride_c, stride_y, stride_x = images.stride()[-3:]
    if stride_c != 1 or images.data_ptr() % 16:
        return 1
    steps = [stride for stride, size in ((stride_y, height), (stride_x, width)) if size > 1]
    return math.gcd(16 // images.itemsize, channels, *steps, *lead_strides)


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    channels: tl.constexpr
    border: tl.constexpr
    antialias: tl.constexpr
    offset: tl.constexpr  # the integers that hold any offset inside an image
    interleaved: tl.constexpr  # whether a block is [y, x, c], else [c, y, x]
    block_c: tl.constexpr
    block_y: tl.constexpr
    block_x: tl.constexpr

    @staticmethod
    def of(
        images: Images,
        height: int,
        width: int,
        padding: str,
        antialias: bool,
        *others: Images,
        accesses_per_thread: int = 1,
        accesses_per_pixel: int = 32,
    ) -> "Variant":
        """A block of so many accesses to `images` for each thread.

        Where channels are accessed together, it has up to `accesses_per_pixel`, else all of few channels. It is not so
        wide that much of it is wasted at the end of a scanline.

        Args:
            height, width: the size of the images that are divided into blocks.
            others: the other images that the kernel uses.
        """
        channels, vector = images.data.shape[-3], images.vector.value
        size = THREADS.value * vector * accesses_per_thread
        block_c = power_of_2(channels, accesses_per_pixel * vector) if vector > 1 else 1
        block_x = power_of_2(width, min(32, size // block_c))
        block_y = power_of_2(height, size // (block_c * block_x))
        if vector == 1:
            block_c = power_of_2(channels, 4 * size // (block_y * block_x))
        offset = tl.int64 if max(each.span() for each in (images, *others)) >= 2**31 else tl.int32
        values = (channels, padding == "border", antialias, offset, vector > 1, block_c, block_y, block_x)
        return Variant(*constants(values))

    def blocks(self, height: int, width: int) -> int:
        """The number of blocks that all channels of an image of this size are."""
        c, y, x = self.block_c.value, self.block_y.value, self.block_x.value
        return blocks((self.channels.value, c), (height, y), (width, x))


def num_frames(frames: Tensor) -> int:
    """The number of frames to cut from: none if they have no pixels."""
    return math.prod(frames.shape[:-3]) if frames.numel() else 0


# ----------------------------------------------------------------------------------------------------
# Images and boxes


@triton.jit
def image(images, n):
    """The start of image n, counted through the leading dimensions."""
    offset = n * 0
    for d in tl.static_range(len(images.sizes)):
        offset += n % images.sizes[d] * reveal(images.lead[d])
        n = n // images.sizes[d]
    offset += n * reveal(images.lead[len(images.sizes)])
    return images.data + offset * images.vector


class Box(NamedTuple):
    """Four numbers of a box, or the derivatives by them."""

    cy: tl.tensor
    cx: tl.tensor
    h: tl.tensor
    w: tl.tensor


@triton.jit
def axes_of(box, out_h, out_w, height, width):
    """A box that is cut from frames of this size, along y and along x."""
    return Axis(box.cy, box.h, out_h, height), Axis(box.cx, box.w, out_w, width)


@triton.jit
def load_box(boxes, k):
    """Box k, and whether its numbers are finite."""
    box = boxes + 4 * k.to(tl.int64)
    cy, cx, h, w = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    infinity = float("inf")
    finite = (tl.abs(cy) < infinity) & (tl.abs(cx) < infinity) & (tl.abs(h) < infinity) & (tl.abs(w) < infinity)
    return Box(cy, cx, h, w), finite


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
def store_box_gradient(d_boxes, k, by, valid):
    """Stores the sums of blocks of derivatives as the gradient of box k; zero if it is not valid."""
    d_box = d_boxes + 4 * k.to(tl.int64)
    tl.store(d_box, tl.where(valid, tl.sum(by.cy), 0.0))
    tl.store(d_box + 1, tl.where(valid, tl.sum(by.cx), 0.0))
    tl.store(d_box + 2, tl.where(valid, tl.sum(by.h), 0.0))
    tl.store(d_box + 3, tl.where(valid, tl.sum(by.w), 0.0))


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


class Planes(NamedTuple):
    """Some channels of an image.

    No field needs to be a constant, as those of Images do: Triton 3.6 makes variables of constants in a tuple that is
    assigned. Made at the place of use, it costs no registers between.
    """

    start: tl.tensor  # a pointer to the image
    c: tl.tensor  # the numbers of the channels, [block_c]
    offset_c: tl.tensor  # the offsets of the channels in elements, [block_c]
    stride_y: tl.tensor  # from one scanline to the next, in units of `vector` elements
    stride_x: tl.tensor  # from one pixel to the next, in units of `vector` elements
    vector: tl.tensor  # neighbouring channels of one access


@triton.jit
def planes_of(images, start, c, variant):
    """Channels c of the image that starts there."""
    offset_c = c.to(variant.offset) * reveal(images.stride_c) if images.vector == 1 else c
    return Planes(start, c, offset_c, reveal(images.stride_y), reveal(images.stride_x), images.vector)


@triton.jit
def locate(tile, height, width, strip, variant):
    """(n, c, y, x) of a program's work on images of this size: the image's number, a block of channels, and where a
    strip of blocks above each other starts, `strip` pixels high and a block wide."""
    c_tiles, x_tiles = tl.cdiv(variant.channels, variant.block_c), tl.cdiv(width, variant.block_x)
    y_tiles = tl.cdiv(height, strip)
    c = tile % c_tiles * variant.block_c + tl.arange(0, variant.block_c)
    x = tile // c_tiles % x_tiles * variant.block_x
    y = tile // (c_tiles * x_tiles) % y_tiles * strip
    return tile // (c_tiles * x_tiles * y_tiles), c, y, x


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
def along_c(x, variant):
    return x[None, None, :] if variant.interleaved else x[:, None, None]


@triton.jit
def along_y(x, variant):
    return x[:, None, None] if variant.interleaved else x[None, :, None]


@triton.jit
def along_x(x, variant):
    return x[None, :, None] if variant.interleaved else x[None, None, :]


@triton.jit
def product(y, x, variant):
    """The products [y, x] of numbers along y and numbers along x, as a block of one channel."""
    return along_y(y, variant) * along_x(x, variant)


@triton.jit
def both(in_y, in_x, variant):
    """Pixels where a condition along y and one along x both hold, as a block of one channel."""
    return along_y(in_y, variant) & along_x(in_x, variant)


@triton.jit
def elements(planes, y, x, variant):
    """Pointers to the pixels (y, x)."""
    y = y.to(variant.offset) * planes.stride_y * planes.vector
    x = x.to(variant.offset) * planes.stride_x * planes.vector
    return planes.start + (along_y(y, variant) + along_x(x, variant) + along_c(planes.offset_c, variant))


@triton.jit
def mask(planes, in_y, in_x, variant):
    in_c = along_c(planes.c < variant.channels, variant)
    return both(in_y, in_x, variant) & in_c


@triton.jit
def load(planes, y, x, in_y, in_x, dtype: tl.constexpr, variant):
    """Pixels (y, x), zero where they are not in the image."""
    return tl.load(elements(planes, y, x, variant), mask(planes, in_y, in_x, variant), other=0).to(dtype)


@triton.jit
def store(planes, y, x, in_y, in_x, value, variant):
    """Stores the pixels (y, x) that are in the image."""
    pixels, there = elements(planes, y, x, variant), mask(planes, in_y, in_x, variant)
    tl.store(pixels, convert(value, planes.start.dtype.element_ty), there)


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
