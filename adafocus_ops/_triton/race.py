"""Weighted sampling without replacement as a race, in Triton: race.h.

Every backend must see the same order, so the operations are those of the header: fused where it says so, and
divisions correctly rounded.
"""

import triton
import triton.language as tl

from .geometry import divide
from .philox import RACE, random_words

# log(1 + x) / x for x in [-1/4, 1/2), to 1e-7: a Chebyshev fit.
_LOG1P_OVER_X = tl.constexpr(
    tuple(
        float.fromhex(value)
        for value in (
            "0x1.p+0",
            "-0x1.000018p-1",
            "0x1.5555c8p-2",
            "-0x1.ffdadcp-3",
            "0x1.992bacp-3",
            "-0x1.58cb88p-3",
            "0x1.32a51ap-3",
            "-0x1.e9c066p-4",
            "0x1.b1c66ep-5",
        )
    )
)
_LOG_2 = tl.constexpr(float.fromhex("0x1.62e43p-1"))
LARGEST_FLOAT = tl.constexpr(float.fromhex("0x1.fffffep127"))
LARGEST_DOUBLE = tl.constexpr(float.fromhex("0x1.fffffffffffffp1023"))

# The key of an item that does not take part, or is drawn already: beyond all others.
NEVER = tl.constexpr(0x7FFFFFFFFFFFFFFF)


@triton.jit
def clean_weight(w):
    """A weight that counts, float32 or float64: negative weights and NaN are zero, infinity is the largest number."""
    w = w.to(tl.float64 if w.dtype == tl.float64 else tl.float32)
    largest: tl.constexpr = LARGEST_DOUBLE if w.dtype == tl.float64 else LARGEST_FLOAT
    return tl.where(w > 0, tl.where(w < largest, w, largest), 0.0)


@triton.jit
def load_weights(weights, b, t, there):
    """Clean weights t of rows b (both int64), zero where they are not there."""
    at = weights.data + b * weights.strides[0] + t * weights.strides[1]
    return clean_weight(tl.load(at, there, other=0))


@triton.jit
def race_scale(largest):
    """The power of two that brings the largest clean weight of a row to about 1."""
    if largest.dtype == tl.float64:
        exponent = largest.to(tl.int64, bitcast=True) >> 52
        return (tl.where(exponent < 2045, 2046 - exponent, 1) << 52).to(tl.float64, bitcast=True)
    else:
        exponent = largest.to(tl.int32, bitcast=True) >> 23
        return (tl.where(exponent < 253, 254 - exponent, 1) << 23).to(tl.float32, bitcast=True)


@triton.jit
def race_weight(w, scale):
    """The weight that takes part in the race, of a clean one: 0, or at least 2^-120 so that no time overflows."""
    scaled = (w * scale).to(tl.float32)
    return tl.where(w > 0, tl.where(scaled < 2.0**-120, 2.0**-120, scaled), 0.0)


@triton.jit
def exponential(word):
    """-log(u) for u = uniform(word) before its rounding: as exact for the largest u as for the smallest."""
    # u = 1 - word / 2^32 is near 1: log(1 + x) with x = u - 1, without the rounding of u.
    near_one = word < 0x40000000
    # Else u = 2^(exponent - 32) (1 + x) with 1 + x in [3/4, 3/2).
    bits = (0 - word).to(tl.float32).to(tl.uint32, bitcast=True) - 0x3F400000
    mantissa = ((bits & 0x7FFFFF) + 0x3F400000).to(tl.float32, bitcast=True)
    x = tl.where(near_one, -(word.to(tl.float32) * 2.0**-32), mantissa - 1.0)
    halvings = tl.where(near_one, 0.0, (32 - (bits >> 23).to(tl.int32)).to(tl.float32))
    series = x * 0.0 + _LOG1P_OVER_X[8]
    for n in tl.static_range(8):
        series = tl.fma(series, x, x * 0.0 + _LOG1P_OVER_X[7 - n])
    return tl.fma(-x, series, halvings * _LOG_2)


@triton.jit
def race_keys(race_weight, seed, row, draw, first):
    """Arrivals of items from `first` on as integers, in their order [draws, items]: earlier is less, and for equal
    times the lower index is.

    Args:
        race_weight: [1, items].
        draw: [draws, 1] int32.
        first: a multiple of 4.
    """
    word = random_words(seed, row, RACE, draw, first, race_weight.shape[1])
    arrival = tl.where(race_weight > 0, divide(exponential(word), race_weight), float("inf"))
    index = first + tl.arange(0, race_weight.shape[1])[None, :]
    return (arrival.to(tl.int32, bitcast=True).to(tl.int64) << 32) | index.to(tl.int64)
