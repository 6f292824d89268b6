"""Where an output position samples an axis, and with which weights: geometry.h in Triton, once for every kernel.

A sample is what one output reads of an axis: (begin, end, filter), the frame's pixels [begin, end) with
weights(filter, r) for pixel r. The variant of a kernel picks the kind: the two taps of bilinear interpolation, or a
triangle filter as wide as the downscaling. Arguments may be scalars or blocks of any shape; floating-point ones are of
the compute type. No product is fused with a sum here, so that every backend finds the same positions.
"""

import triton
import triton.language as tl


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
def begin_and_step(centre, extent, positions, variant):
    """Output i samples at begin + step * (i + 1/2), in coordinates where pixel r covers [r, r + 1).

    Written so that a box of whole pixels and of the output's size has whole positions, without rounding.
    """
    if variant.antialias:
        # Larger boxes are all alike; the filter's products must not overflow.
        centre = clamp_to(centre, -(2.0**60), 2.0**60)
        extent = clamp_to(extent, -(2.0**60), 2.0**60)
    return centre - extent * 0.5, divide(extent, positions), centre, extent


@triton.jit
def sample(centre, extent, i, positions, size, variant):
    """The sample of output i of `positions` on an axis of `size` pixels."""
    begin, step, centre, extent = begin_and_step(centre, extent, positions, variant)
    at = tl.cast(i, centre.dtype) + 0.5
    position = begin + step * at
    offset = at * inverse(positions, centre.dtype) - 0.5
    if variant.antialias:
        return _antialiased(centre, extent, step, position, offset, positions, size, variant)
    else:
        return _bilinear(position - 0.5, offset, size, variant)


@triton.jit
def weights(filter, r, variant):
    """The weight of pixel r, and its derivatives by the box's centre and extent."""
    if variant.antialias:
        return _antialiased_weights(filter, r)
    else:
        return _bilinear_weights(filter, r)


@triton.jit
def bilinear_offset(filter):
    """(i + 1/2) / P - 1/2: the derivative of a bilinear weight by the extent, over that by the centre."""
    return filter[4]


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
    return tl.maximum(first, 0), tl.minimum(second + 1, size), (first, second, 1.0 - u1, u1, offset)


@triton.jit
def _bilinear_weights(filter, r):
    first, second, u0, u1, offset = filter
    at_first, at_second = r == first, r == second
    value = tl.where(at_first, u0, 0.0) + tl.where(at_second, u1, 0.0)
    by_position = at_second.to(u0.dtype) - at_first.to(u0.dtype)
    return value, by_position, by_position * offset


@triton.jit
def _antialiased(centre, extent, step, position, offset, positions, size, variant):
    # Pixel numbers are of the compute type: those outside the frame may be beyond any integer.
    sign = tl.where(extent < 0, -1.0, 1.0).to(centre.dtype)
    length = clamp_to(sign * extent, 1.0, float("inf"))
    reach = clamp_to(sign * step, 1.0, float("inf"))
    slope = inverse(reach, reach.dtype)
    slope_by_extent = tl.where(sign * step > 1, -slope * slope * sign * inverse(positions, reach.dtype), 0.0)
    low, high = centre - length * 0.5, centre + length * 0.5
    high_by_extent = tl.where(sign * extent > 1, sign * 0.5, 0.0)
    before, after = tl.floor(low) - 1.0, tl.ceil(high)  # the nearest pixels without weight
    first = tl.floor(position - reach - 0.5)
    first = tl.where(first > before, first, before) + 1.0
    last = tl.ceil(position + reach - 0.5)
    last = tl.where(last < after, last, after) - 1.0
    triangle, ends = (position, offset, slope, slope_by_extent), (low, high, high_by_extent)
    cuts = _cuts(triangle, ends)
    total = _sum_of_raw(triangle, cuts, first, last)
    scale = tl.where(total[0] > 0, inverse(total[0], reach.dtype), 0.0)
    limit = tl.cast(size, centre.dtype)
    if variant.border:
        begin, end = clamp_to(first, 0.0, limit - 1.0), clamp_to(last, 0.0, limit - 1.0)
        left = _sum_of_raw(triangle, cuts, first, tl.where(last < 0, last, -1.0))
        right = _sum_of_raw(triangle, cuts, tl.where(first > limit, first, limit), last)
        outside = (left, right, size - 1)  # weights of the first and the last pixel besides their own
    else:
        begin, end = clamp_to(first, 0.0, limit), clamp_to(last, -1.0, limit - 1.0)
        outside = ()
    return begin.to(tl.int32), end.to(tl.int32) + 1, (triangle, ends, total, scale, outside)


@triton.jit
def _antialiased_weights(filter, r):
    triangle, ends, total, scale, outside = filter
    pixel = r.to(total[0].dtype)
    weight = _covered(_triangle(triangle, pixel), ends, pixel)
    if len(outside) > 0:
        left, right, last_pixel = outside
        weight = _plus(weight, r == 0, left)
        weight = _plus(weight, r == last_pixel, right)
    value = weight[0] * scale
    return value, (weight[1] - value * total[1]) * scale, (weight[2] - value * total[2]) * scale


@triton.jit
def _plus(a, there, b):
    """The sum of numbers with derivatives, (value, by_centre, by_extent), where b is there; else a."""
    return a[0] + tl.where(there, b[0], 0.0), a[1] + tl.where(there, b[1], 0.0), a[2] + tl.where(there, b[2], 0.0)


@triton.jit
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@triton.jit
def _triangle(triangle, r):
    """1 - |r + 1/2 - q| / s of pixel r."""
    position, offset, slope, slope_by_extent = triangle
    distance = r + 0.5 - position
    away = tl.abs(distance)
    by_position = tl.where(distance < 0, -slope, slope)
    return 1.0 - away * slope, by_position, by_position * offset - away * slope_by_extent


@triton.jit
def _covered(triangle, ends, r):
    """raw(r), the weight of pixel r before normalisation: its triangle times how much of the pixel the box covers."""
    height, by_centre, by_extent = triangle
    low, high, high_by_extent = ends
    cover = clamp_to(tl.where(high < r + 1.0, high, r + 1.0) - tl.where(low > r, low, r), 0.0, 1.0)
    cut_low = ((low >= r) & (low < r + 1.0)).to(cover.dtype)
    cut_high = ((high > r) & (high <= r + 1.0)).to(cover.dtype)
    by_centre = by_centre * cover + height * (cut_high - cut_low)
    by_extent = by_extent * cover + height * (cut_high + cut_low) * high_by_extent
    there = height > 0
    return tl.where(there, height * cover, 0.0), tl.where(there, by_centre, 0.0), tl.where(there, by_extent, 0.0)


@triton.jit
def _cuts(triangle, ends):
    """The pixels that the ends of the box cut, and raw less the triangle there."""
    low, high, _ = ends
    low_pixel, high_pixel = tl.floor(low), tl.ceil(high) - 1.0
    at_low, at_high = _triangle(triangle, low_pixel), _triangle(triangle, high_pixel)
    less_low = _minus(_covered(at_low, ends, low_pixel), at_low)
    less_high = _minus(_covered(at_high, ends, high_pixel), at_high)
    high_pixel = tl.where(high_pixel > low_pixel, high_pixel, float("inf"))  # the same pixel counts once
    return low_pixel, less_low, high_pixel, less_high


@triton.jit
def _sum_of_raw(triangle, cuts, first, last):
    """The sum of raw over pixels first..last, which all have weight: two arithmetic series for the triangle's sides;
    what the ends of the box cut off their two pixels is put right after."""
    position, offset, slope, slope_by_extent = triangle
    low_pixel, less_low, high_pixel, less_high = cuts
    peak = clamp_to(tl.floor(position - 0.5), first - 1.0, last)  # the last pixel of the rising side
    rising, falling = peak - first + 1.0, last - peak
    away = rising * (position - 0.5 - (first + peak) * 0.5) + falling * ((peak + 1.0 + last) * 0.5 + 0.5 - position)
    by_position = (falling - rising) * slope
    total = (rising + falling - away * slope, by_position, by_position * offset - away * slope_by_extent)
    total = _plus(total, (low_pixel >= first) & (low_pixel <= last), less_low)
    total = _plus(total, (high_pixel >= first) & (high_pixel <= last), less_high)
    some = first <= last
    return tl.where(some, total[0], 0.0), tl.where(some, total[1], 0.0), tl.where(some, total[2], 0.0)


@triton.jit
def touched(centre, extent, positions, size, variant):
    """Pixels [begin, end) from the first to the last that is read: positions are monotone in the output."""
    begin, end, _ = sample(centre, extent, 0, positions, size, variant)
    other_begin, other_end, _ = sample(centre, extent, positions - 1, positions, size, variant)
    return tl.minimum(begin, other_begin), tl.maximum(end, other_end)


@triton.jit
def touches(box, out_h, out_w, height, width, row, column, variant):
    """Whether a box reads anything of the block of a frame that starts there."""
    cy, cx, h, w = box
    top, bottom = touched(cy, h, out_h, height, variant)
    left, right = touched(cx, w, out_w, width, variant)
    in_rows = (top < row + variant.block_y) & (bottom > row)
    return in_rows & (left < column + variant.block_x) & (right > column)


@triton.jit
def readers(r, centre, extent, positions, size, variant):
    """Outputs [first, last): all that read pixel r, and maybe a neighbour, whose sample tells.

    They have their positions in reach of the pixel, which is widened here by more than a position and this formula
    can be rounded. All outputs if there is no such range, as for a box without extent.
    """
    begin, step, centre, extent = begin_and_step(centre, extent, positions, variant)
    at = r.to(centre.dtype) + 0.5
    reach = clamp_to(tl.abs(step), 1.0, float("inf")) if variant.antialias else 1.0
    reach += (tl.abs(begin) + tl.cast(size, centre.dtype) + 4.0) * 2.0**-20
    low, high = at - reach, at + reach
    if variant.border:  # the edges stand for all pixels outside
        low = tl.where(r == 0, float("-inf"), low)
        high = tl.where(r == size - 1, float("inf"), high)
    scale = inverse(step, step.dtype)
    one, other = (low - begin) * scale - 0.5, (high - begin) * scale - 0.5
    low = tl.where(one < other, one, tl.where(other < one, other, float("-inf")))
    high = tl.where(one < other, other, tl.where(other < one, one, float("inf")))
    last = tl.cast(positions, centre.dtype)
    return clamp_to(tl.ceil(low), 0.0, last).to(tl.int32), clamp_to(tl.floor(high) + 1.0, 0.0, last).to(tl.int32)
