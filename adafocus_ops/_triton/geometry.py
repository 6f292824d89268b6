"""Footprints, what outputs read of an axis: the headers around geometry.h in Triton, once for every kernel.

Legend:
    A weight is (value, by_centre, by_extent): a Dual.
    A footprint is (begin, end, formula): the frame's pixels [begin, end) that one output reads, and the Taps or the
    Filter from which weight_of() finds the weight of each.

The variant of a kernel picks the kind: the two taps of bilinear interpolation, or a triangle filter as wide as the
downscaling. Arguments may be scalars or blocks of any shape; floating-point ones are of the compute type. No product is
fused with a sum here, so that every backend finds the same positions. docs/method/antialias.md derives the filter; (A1)
to (A14) are its equations.
"""

from typing import NamedTuple

import triton
import triton.language as tl


class Dual(NamedTuple):
    """A number that depends on a box's centre and extent on an axis, and its derivatives by them."""

    value: tl.tensor
    by_centre: tl.tensor
    by_extent: tl.tensor


class Axis(NamedTuple):
    """A box along one axis of its frame, and the outputs that it is divided into."""

    centre: tl.tensor
    extent: tl.tensor
    positions: tl.tensor  # the number P of outputs
    size: tl.tensor  # the number of the frame's pixels


class Footprint(NamedTuple):
    """The pixels of the frame that an output reads, [begin, end), and how their weights are found."""

    begin: tl.tensor
    end: tl.tensor
    formula: "Taps | Filter"


class Taps(NamedTuple):
    """The two neighbours of bilinear interpolation."""

    first: tl.tensor  # the pixel whose value the first neighbour has: itself, or the nearest edge pixel
    second: tl.tensor  # the pixel whose value the second neighbour has
    u0: tl.tensor  # the weight of the first neighbour
    u1: tl.tensor  # the weight of the second neighbour: the position's fraction
    offset: tl.tensor  # (2 i + 1 - P) / (2 P): the derivative of the position by the extent


class Triangle(NamedTuple):
    """The triangle filter of an output."""

    position: tl.tensor  # q, the centre of the triangle, where pixel r covers [r, r + 1)
    offset: tl.tensor  # the derivative of q by the extent; that by the centre is 1
    slope: tl.tensor  # 1 / s: the triangle falls from 1 to 0 over the reach s
    slope_by_extent: tl.tensor  # the derivative of 1 / s by the extent; it does not depend on the centre


class Ends(NamedTuple):
    """The ends of a box."""

    low: tl.tensor
    high: tl.tensor
    high_by_extent: tl.tensor  # the derivative of high by the extent; that of low is its opposite


class Cuts(NamedTuple):
    """The pixels that the ends of a box cut, and the corrections for them: the raw weight less the whole height."""

    low_pixel: tl.tensor
    at_low: Dual
    high_pixel: tl.tensor  # infinity where both ends cut the same pixel, which counts once
    at_high: Dual


class Outside(NamedTuple):
    """The raw weights of all pixels beyond the edges of the frame, which the edge pixels stand for."""

    before: Dual  # weights of the first pixel besides its own
    after: Dual  # weights of the last pixel besides its own
    last_pixel: tl.tensor  # the number of the last pixel


class Filter(NamedTuple):
    """The antialiased weights of an output."""

    triangle: Triangle
    ends: Ends
    total: Dual  # the sum of all raw weights
    scale: tl.tensor  # 1 / total, or 0
    outside: Outside  # the weights that the edge pixels have besides their own; for padding by the border only


# ----------------------------------------------------------------------------------------------------
# Numbers


@triton.jit
def divide(a, b):
    """IEEE division; the operator approximates it in float32."""
    dtype: tl.constexpr = a.dtype
    if dtype == tl.float32:
        return tl.div_rn(a, tl.cast(b, dtype))
    else:
        return a / tl.cast(b, dtype)


@triton.jit
def inverse(x, dtype: tl.constexpr):
    """1 / x."""
    return divide(tl.full((), 1.0, dtype), x)


@triton.jit
def clamp_to(x, low, high):
    """x in [low, high]; NaN becomes low."""
    x = tl.where(x > low, x, low)
    return tl.where(x < high, x, high)


@triton.jit
def add(a, there, b):
    """Dual a + b where b is there; else a."""
    return Dual(
        a.value + tl.where(there, b.value, 0.0),
        a.by_centre + tl.where(there, b.by_centre, 0.0),
        a.by_extent + tl.where(there, b.by_extent, 0.0),
    )


@triton.jit
def _subtract(a, b):
    return Dual(a.value - b.value, a.by_centre - b.by_centre, a.by_extent - b.by_extent)


@triton.jit
def _where(there, a):
    """Dual a where it is there; else zero."""
    return Dual(tl.where(there, a.value, 0.0), tl.where(there, a.by_centre, 0.0), tl.where(there, a.by_extent, 0.0))


# ----------------------------------------------------------------------------------------------------
# Footprints


@triton.jit
def _in_bounds(axis, variant):
    """The axis, with a box whose filter does not overflow: larger ones are all alike."""
    centre, extent = axis.centre, axis.extent
    if variant.antialias:
        centre = clamp_to(centre, -(2.0**60), 2.0**60)
        extent = clamp_to(extent, -(2.0**60), 2.0**60)
    return Axis(centre, extent, axis.positions, axis.size)


@triton.jit
def _middle(axis):
    """The output in the middle of the box, (P - 1) / 2; the others are whole steps or half steps from it."""
    return tl.cast(axis.positions - 1, axis.centre.dtype) * 0.5


@triton.jit
def footprint_of(axis, i, variant):
    """The footprint of output i."""
    axis = _in_bounds(axis, variant)
    step = divide(axis.extent, axis.positions)
    steps = tl.cast(i, step.dtype) - _middle(axis)
    # Exact in the middle of a box of any size, and for a box of whole pixels and of the output's size.
    position = tl.fma(step, steps, axis.centre)  # (A1)
    offset = divide(steps, axis.positions)
    if variant.antialias:
        return _antialiased(axis, step, position, offset, variant)
    else:
        return _bilinear(position - 0.5, offset, axis.size, variant)


@triton.jit
def weight_of(footprint, r, variant):
    """The weight of pixel r in a footprint."""
    if variant.antialias:
        return _antialiased_weight(footprint.formula, r, variant)
    else:
        return _bilinear_weight(footprint.formula, r)


# ----------------------------------------------------------------------------------------------------
# Bilinear


@triton.jit
def _bilinear(position, offset, size, variant):
    # Two pixels outside, padding only is read: clamping changes nothing but keeps the conversion defined.
    position = clamp_to(position, -2.0, tl.cast(size, position.dtype))
    first = tl.minimum(tl.floor(position).to(tl.int32), size)  # a size beyond 2^24 is no float
    u1 = position - first.to(position.dtype)
    second = first + 1
    if variant.border:
        first = clamp_to(first, 0, size - 1)
        second = clamp_to(second, 0, size - 1)
    taps = Taps(first, second, 1.0 - u1, u1, offset)
    return Footprint(tl.maximum(first, 0), tl.minimum(second + 1, size), taps)


@triton.jit
def _bilinear_weight(taps, r):
    at_first, at_second = r == taps.first, r == taps.second
    value = tl.where(at_first, taps.u0, 0.0) + tl.where(at_second, taps.u1, 0.0)
    by_position = at_second.to(taps.u0.dtype) - at_first.to(taps.u0.dtype)
    return Dual(value, by_position, by_position * taps.offset)


# ----------------------------------------------------------------------------------------------------
# Antialiased. Pixel numbers are of the compute type: those outside the frame may be beyond any integer


@triton.jit
def _antialiased(axis, step, position, offset, variant):
    centre, extent, positions, size = axis
    sign = tl.where(extent < 0, -1.0, 1.0).to(centre.dtype)
    length = clamp_to(sign * extent, 1.0, float("inf"))
    reach = clamp_to(sign * step, 1.0, float("inf"))  # (A2)
    slope = inverse(reach, reach.dtype)
    slope_by_extent = tl.where(sign * step > 1, -slope * slope * sign * inverse(positions, reach.dtype), 0.0)
    low, high = centre - length * 0.5, centre + length * 0.5  # (A3)
    high_by_extent = tl.where(sign * extent > 1, sign * 0.5, 0.0)
    triangle, ends = Triangle(position, offset, slope, slope_by_extent), Ends(low, high, high_by_extent)
    first, last = _weighed_pixels(position, reach, low, high)
    cuts = _cuts(triangle, ends)
    total = _sum_of_raw_weights(triangle, cuts, first, last)  # (A9)
    scale = tl.where(total.value > 0, inverse(total.value, reach.dtype), 0.0)
    limit = tl.cast(size, centre.dtype)
    if variant.border:  # (A14)
        begin, end = clamp_to(first, 0.0, limit - 1.0), clamp_to(last, 0.0, limit - 1.0)
        before = _sum_of_raw_weights(triangle, cuts, first, tl.where(last < 0, last, -1.0))
        after = _sum_of_raw_weights(triangle, cuts, tl.where(first > limit, first, limit), last)
        outside = Outside(before, after, size - 1)
    else:
        begin, end = clamp_to(first, 0.0, limit), clamp_to(last, -1.0, limit - 1.0)
        outside = Outside(total, total, size - 1)  # never looked at: Triton 3.6 cannot return a None
    triangle_filter = Filter(triangle, ends, total, scale, outside)
    return Footprint(begin.to(tl.int32), end.to(tl.int32) + 1, triangle_filter)


@triton.jit
def _weighed_pixels(position, reach, low, high):
    """The first and the last pixel with a raw weight (A8)."""
    before, after = tl.floor(low) - 1.0, tl.ceil(high)  # the nearest pixels that the box does not cover
    first = tl.floor(position - reach - 0.5)
    first = tl.where(first > before, first, before) + 1.0
    last = tl.ceil(position + reach - 0.5)
    last = tl.where(last < after, last, after) - 1.0
    return first, last


@triton.jit
def _antialiased_weight(triangle_filter, r, variant):
    """The share of pixel r in the sum of all raw weights (A9), (A10)."""
    total, scale, outside = triangle_filter.total, triangle_filter.scale, triangle_filter.outside
    pixel = r.to(total.value.dtype)
    raw = _raw_weight(_height(triangle_filter.triangle, pixel), triangle_filter.ends, pixel)
    if variant.border:
        raw = add(raw, r == 0, outside.before)
        raw = add(raw, r == outside.last_pixel, outside.after)
    value = raw.value * scale
    by_centre = (raw.by_centre - value * total.by_centre) * scale
    return Dual(value, by_centre, (raw.by_extent - value * total.by_extent) * scale)


@triton.jit
def _height(triangle, r):
    """1 - |r + 1/2 - q| / s of pixel r (A4)."""
    distance = r + 0.5 - triangle.position
    away = tl.abs(distance)
    by_position = tl.where(distance < 0, -triangle.slope, triangle.slope)
    by_extent = by_position * triangle.offset - away * triangle.slope_by_extent
    return Dual(1.0 - away * triangle.slope, by_position, by_extent)


@triton.jit
def _raw_weight(height, ends, r):
    """The height of pixel r times its cover, the part of the pixel that the box covers (A6), (A7)."""
    low, high, high_by_extent = ends
    cover = clamp_to(tl.where(high < r + 1.0, high, r + 1.0) - tl.where(low > r, low, r), 0.0, 1.0)  # (A5)
    cut_by_low = ((low >= r) & (low < r + 1.0)).to(cover.dtype)
    cut_by_high = ((high > r) & (high <= r + 1.0)).to(cover.dtype)
    by_centre = height.by_centre * cover + height.value * (cut_by_high - cut_by_low)
    by_extent = height.by_extent * cover + height.value * (cut_by_high + cut_by_low) * high_by_extent
    return _where(height.value > 0, Dual(height.value * cover, by_centre, by_extent))


@triton.jit
def _cuts(triangle, ends):
    low_pixel, high_pixel = tl.floor(ends.low), tl.ceil(ends.high) - 1.0
    low_height, high_height = _height(triangle, low_pixel), _height(triangle, high_pixel)
    at_low = _subtract(_raw_weight(low_height, ends, low_pixel), low_height)
    at_high = _subtract(_raw_weight(high_height, ends, high_pixel), high_height)
    return Cuts(low_pixel, at_low, tl.where(high_pixel > low_pixel, high_pixel, float("inf")), at_high)


@triton.jit
def _sum_of_raw_weights(triangle, cuts, first, last):
    """The sum of the raw weights of pixels first..last, which all have one, in closed form (A11)."""
    total = _sum_of_heights(triangle, first, last)
    total = add(total, (cuts.low_pixel >= first) & (cuts.low_pixel <= last), cuts.at_low)
    total = add(total, (cuts.high_pixel >= first) & (cuts.high_pixel <= last), cuts.at_high)
    return _where(first <= last, total)


@triton.jit
def _sum_of_heights(triangle, first, last):
    """The sum of the heights of pixels first..last: an arithmetic series on each side of the triangle (A12), (A13)."""
    position, offset, slope, slope_by_extent = triangle
    # The last pixel of the rising side; one in the middle is of the falling side, as in _height().
    peak = clamp_to(tl.ceil(position - 0.5) - 1.0, first - 1.0, last)
    rising, falling = peak - first + 1.0, last - peak
    away = rising * (position - 0.5 - (first + peak) * 0.5) + falling * ((peak + 1.0 + last) * 0.5 + 0.5 - position)
    by_position = (falling - rising) * slope
    return Dual(rising + falling - away * slope, by_position, by_position * offset - away * slope_by_extent)


# ----------------------------------------------------------------------------------------------------
# The other direction: which pixels are read, and who reads them


@triton.jit
def pixels_of(axis, variant):
    """Pixels [begin, end) from the first to the last that is read: positions are monotone in the output."""
    first = footprint_of(axis, 0, variant)
    last = footprint_of(axis, axis.positions - 1, variant)
    return tl.minimum(first.begin, last.begin), tl.maximum(first.end, last.end)


@triton.jit
def touches(y_axis, x_axis, top, left, variant):
    """True for a box that reads anything of the block of a frame that starts at (top, left)."""
    y_begin, y_end = pixels_of(y_axis, variant)
    x_begin, x_end = pixels_of(x_axis, variant)
    in_y = (y_begin < top + variant.block_y) & (y_end > top)
    return in_y & (x_begin < left + variant.block_x) & (x_end > left)


@triton.jit
def readers_of(r, axis, variant):
    """Outputs [first, last): all that read pixel r, and maybe a neighbour, whose footprint tells.

    They have their positions in reach of the pixel, which is widened here by more than a position and this formula
    can be rounded. All outputs if there is no such range, as for a box without extent.
    """
    axis = _in_bounds(axis, variant)
    centre, step = axis.centre, divide(axis.extent, axis.positions)
    at = r.to(centre.dtype) + 0.5
    reach = clamp_to(tl.abs(step), 1.0, float("inf")) if variant.antialias else 1.0
    reach += (tl.abs(centre) + tl.abs(axis.extent) + tl.cast(axis.size, centre.dtype) + 4.0) * 2.0**-20
    low, high = at - reach, at + reach
    if variant.border:  # the edges stand for all pixels outside
        low = tl.where(r == 0, float("-inf"), low)
        high = tl.where(r == axis.size - 1, float("inf"), high)
    scale = inverse(step, step.dtype)
    one, other = (low - centre) * scale + _middle(axis), (high - centre) * scale + _middle(axis)
    low = tl.where(one < other, one, tl.where(other < one, other, float("-inf")))
    high = tl.where(one < other, other, tl.where(other < one, one, float("inf")))
    last = tl.cast(axis.positions, centre.dtype)
    return clamp_to(tl.ceil(low), 0.0, last).to(tl.int32), clamp_to(tl.floor(high) + 1.0, 0.0, last).to(tl.int32)
