"""expected_value in Triton: the functions of _reference/expected_value.py.

Forward: a program has a row. It runs the races of a block of samples together, as weighted_sample does, adds up the
coefficients and multiplies with the values. Sums have one order, whatever the batch.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .geometry import divide, inverse
from .images import convert
from .launch import Strided, blocks, constants, launch, power_of_2
from .philox import row_number
from .race import NEVER, load_weights, race_keys, race_scale, race_weight

THREADS = 256  # threads of a program that has a whole row: there may be few rows
KEYS_PER_BLOCK = 1024
VALUES_PER_BLOCK = 4096
SIZES = ("items", "depth", "k", "num_samples")


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    dtype: tl.constexpr  # the type of the arithmetic
    samples: tl.constexpr  # samples of a block; 0 for the expectation itself
    items: tl.constexpr  # items of a block
    depth: tl.constexpr  # elements of a value in a block

    @staticmethod
    def of(compute: torch.dtype, samples: int, items: int, depth: int) -> "Variant":
        dtype = tl.float64 if compute == torch.float64 else tl.float32
        return Variant(*constants((dtype, samples, items, depth)))

    @staticmethod
    def of_rows(compute: torch.dtype, items: int, depth: int, num_samples: int) -> "Variant":
        """A block has all items of a row."""
        block = max(triton.next_power_of_2(items), 4)  # Philox makes words by fours
        samples = power_of_2(num_samples, max(KEYS_PER_BLOCK // block, 1)) if num_samples else 0
        return Variant.of(compute, samples, block, power_of_2(depth, max(VALUES_PER_BLOCK // block, 8)))

    @staticmethod
    def of_tiles(compute: torch.dtype, items: int, depth: int, elements: int) -> "Variant":
        """A block has so many elements."""
        block = power_of_2(depth, 64)
        return Variant.of(compute, 0, power_of_2(items, elements // block), block)


@triton.jit
def _load_values(values, b, t, d, items, depth, variant):
    """[depth, items] of row b."""
    row = values.data + b * values.strides[0]
    at = t.to(tl.int64)[None, :] * values.strides[1] + d.to(tl.int64)[:, None] * values.strides[2]
    return tl.load(row + at, (t < items)[None, :] & (d < depth)[:, None], other=0).to(variant.dtype)


@triton.jit
def _load_grad(grad, b, d, depth, variant):
    at = grad.data + b * grad.strides[0] + d.to(tl.int64) * grad.strides[1]
    return tl.load(at, d < depth, other=0).to(variant.dtype)


@triton.jit
def _load_clean(weights, b, t, items, variant):
    """Clean weights [items] of row b in the type of the arithmetic; zero beyond the ends of the row."""
    return load_weights(weights, b, t.to(tl.int64), (t >= 0) & (t < items)).to(variant.dtype)


@triton.jit
def _is_sure(rest):
    """True where 1 - sum of weights is more than rounding leaves of it: kLeastRest."""
    return rest >= (2.0**-44 if rest.dtype == tl.float64 else 2.0**-18)


@triton.jit
def _inverse_or_zero(rest, there):
    """1 / rest, zero where next to nothing is left (kNothing) or it is not there."""
    there = there & (rest > 2.0**-64)
    return tl.where(there, inverse(tl.where(there, rest, 1.0), rest.dtype), 0.0)


# ----------------------------------------------------------------------------------------------------
# Over samples


@triton.jit
def _over_steps(weights, w, above, seed, row_id, b, items, k, num_samples, variant):
    """A sum over the steps of all samples, but the first steps, whose prefix is empty, for each item: [items].

    Its terms are 1 / S where the item is left; or, if `above` is given, (the sum of it over the items left) / S^2 where
    the item is in the prefix and S is 1 less the prefix's weights.

    Args:
        w: clean weights [items] in the type of the arithmetic.
    """
    t = tl.arange(0, variant.items)
    raw = load_weights(weights, b, t.to(tl.int64), t < items)
    lead = race_weight(raw, race_scale(tl.max(raw)))[None, :]
    row = row_number(row_id, b)
    w = w[None, :]
    total = tl.zeros([variant.samples, variant.items], variant.dtype)
    for first in range(0, num_samples, variant.samples):
        draw = (first + tl.arange(0, variant.samples))[:, None]
        keys = tl.where((t < items)[None, :], race_keys(lead, seed, row, draw, 0), NEVER)
        prefix = tl.zeros([variant.samples, 1], variant.dtype)
        for _ in range(k - 1):
            drawn = keys == tl.min(keys, 1, keep_dims=True)
            prefix += tl.sum(tl.where(drawn, w, 0.0), 1, keep_dims=True)
            keys = tl.where(drawn, NEVER, keys)
            left = keys != NEVER
            rest = 1.0 - prefix
            if above is None:
                rest = tl.where(_is_sure(rest), rest, tl.sum(tl.where(left, w, 0.0), 1, keep_dims=True))
                total += tl.where(left, _inverse_or_zero(rest, draw < num_samples), 0.0)
            else:
                of_rest = _inverse_or_zero(rest, _is_sure(rest) & (draw < num_samples))
                sum_above = tl.sum(tl.where(left, above[None, :], 0.0), 1, keep_dims=True)
                total += tl.where(left, 0.0, sum_above * of_rest * of_rest)
    return tl.sum(total, 0)


@triton.jit
def _mean(total, k, num_samples):
    return divide(total, tl.cast(k, total.dtype) * tl.cast(num_samples, total.dtype))


# ----------------------------------------------------------------------------------------------------
# In closed form


@triton.jit
def _sums_of_others(weights, b, t, items, variant):
    """The sums of all weights but t."""
    before = tl.cumsum(_load_clean(weights, b, t - 1, items, variant))
    after = tl.cumsum(_load_clean(weights, b, t + 1, items, variant), reverse=True)
    return before + after


@triton.jit
def _second_steps(weights, b, t, items, variant):
    """w_t / S, the share that a first draw of t has in the second step of every other item."""
    w = _load_clean(weights, b, t, items, variant)
    rest = 1.0 - w
    rest = tl.where(_is_sure(rest), rest, _sums_of_others(weights, b, t, items, variant))
    return w * _inverse_or_zero(rest, (t >= 0) & (t < items))


@triton.jit
def _exact_coefficients(weights, b, items, k, variant):
    """[items], for k = 1 or 2."""
    t = tl.arange(0, variant.items)
    # The sum over all items but one, without subtracting its own term, which may be much larger than the others.
    others = tl.cumsum(_second_steps(weights, b, t - 1, items, variant))
    others += tl.cumsum(_second_steps(weights, b, t + 1, items, variant), reverse=True)
    return tl.where(k == 1, 1.0, (1.0 + others) * 0.5)


# ----------------------------------------------------------------------------------------------------
# Kernels


@triton.jit(do_not_specialize=SIZES)
def _fwd(out, coefficients, values, weights, seed, row_id, items, depth, k, num_samples, variant):
    b = tl.program_id(0).to(tl.int64)
    t = tl.arange(0, variant.items)
    w = _load_clean(weights, b, t, items, variant)
    if variant.samples == 0:
        q = _exact_coefficients(weights, b, items, k, variant)
    else:
        total = _over_steps(weights, w, None, seed, row_id, b, items, k, num_samples, variant)
        q = _mean(total + tl.cast(num_samples, variant.dtype), k, num_samples)
    tl.store(coefficients + b * items + t, q, t < items)
    share = (q * w)[None, :]
    for first in range(0, depth, variant.depth):
        d = first + tl.arange(0, variant.depth)
        mean = tl.sum(share * _load_values(values, b, t, d, items, depth, variant), 1)
        tl.store(out + b * depth + d, convert(mean, out.dtype.element_ty), d < depth)


def fwd(
    values: Tensor, weights: Tensor, k: int, num_samples: int, seed: Tensor | None, row_id: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, items, depth = values.shape
    compute = torch.float64 if torch.float64 in (values.dtype, weights.dtype) else torch.float32
    out = torch.empty((rows, depth), dtype=values.dtype, device=values.device)
    coefficients = torch.empty((rows, items), dtype=compute, device=values.device)
    if rows:
        variant = Variant.of_rows(compute, items, depth, num_samples)
        tensors = (out, coefficients, Strided.of(values), Strided.of(weights), seed, row_id)
        launch(_fwd, rows, values.device, *tensors, items, depth, k, num_samples, variant, threads=THREADS)
    return out, coefficients


@triton.jit(do_not_specialize=SIZES)
def _bwd_values(d_values, grad, weights, coefficients, items, depth, variant):
    t_tiles, d_tiles = tl.cdiv(items, variant.items), tl.cdiv(depth, variant.depth)
    tile = tl.program_id(0)
    b = (tile // (t_tiles * d_tiles)).to(tl.int64)
    t = tile // d_tiles % t_tiles * variant.items + tl.arange(0, variant.items)
    d = tile % d_tiles * variant.depth + tl.arange(0, variant.depth)
    share = tl.load(coefficients + b * items + t, t < items, other=0)
    share *= _load_clean(weights, b, t, items, variant)
    gradient = share[:, None] * _load_grad(grad, b, d, depth, variant)[None, :]
    at = d_values + ((b * items + t)[:, None] * depth + d[None, :])
    tl.store(at, convert(gradient, d_values.dtype.element_ty), (t < items)[:, None] & (d < depth)[None, :])


def bwd_values(grad: Tensor, weights: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
    (rows, items), depth = weights.shape, grad.shape[1]
    d_values = torch.empty((rows, items, depth), dtype=dtype, device=grad.device)
    if d_values.numel() == 0:
        return d_values
    variant = Variant.of_tiles(coefficients.dtype, items, depth, 1024)
    programs = rows * blocks((items, variant.items.value), (depth, variant.depth.value))
    tensors = (d_values, Strided.of(grad), Strided.of(weights), coefficients)
    launch(_bwd_values, programs, grad.device, *tensors, items, depth, variant)
    return d_values


@triton.jit
def _but_last(sum_a, but_last_a, sum_b, but_last_b):
    return sum_a + sum_b, sum_a + but_last_b


@triton.jit
def _normaliser_term(weights, w, above, seed, row_id, b, items, k, num_samples, variant):
    """The gradient of every S, [items]; `above`: w <g, v>."""
    if variant.samples == 0:
        rest = 1.0 - w
        of_rest = _inverse_or_zero(rest, _is_sure(rest) & (k == 2))
        # The sum over the other items, without subtracting its own term, which may be much larger.
        pair = (above, tl.zeros_like(above))
        before = tl.associative_scan(pair, 0, _but_last)[1]
        after = tl.associative_scan(pair, 0, _but_last, reverse=True)[1]
        return w * (before + after) * of_rest * of_rest * 0.5
    else:
        total = _over_steps(weights, w, above, seed, row_id, b, items, k, num_samples, variant)
        return _mean(total, k, num_samples)


@triton.jit(do_not_specialize=SIZES)
def _bwd_weights(
    d_weights,
    grad,
    values,
    weights,
    coefficients,
    seed,
    row_id,
    items,
    depth,
    k,
    num_samples,
    normaliser_grad: tl.constexpr,
    variant,
):
    tiles = tl.cdiv(items, variant.items)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    t = tl.program_id(0) % tiles * variant.items + tl.arange(0, variant.items)
    products = tl.zeros([variant.depth, variant.items], variant.dtype)
    for first in range(0, depth, variant.depth):
        d = first + tl.arange(0, variant.depth)
        g = _load_grad(grad, b, d, depth, variant)[:, None] + tl.zeros_like(products)
        products = tl.fma(g, _load_values(values, b, t, d, items, depth, variant), products)
    by_item = tl.sum(products, 0)  # <g, v_t>
    gradient = tl.load(coefficients + b * items + t, t < items, other=0) * by_item
    if normaliser_grad:
        w = _load_clean(weights, b, t, items, variant)
        gradient += _normaliser_term(weights, w, w * by_item, seed, row_id, b, items, k, num_samples, variant)
    raw = tl.load(weights.data + b * weights.strides[0] + t.to(tl.int64) * weights.strides[1], t < items, other=0)
    gradient = tl.where(raw.to(variant.dtype) >= 0, gradient, 0.0)  # neither negative nor NaN
    tl.store(d_weights + b * items + t, convert(gradient, d_weights.dtype.element_ty), t < items)


def bwd_weights(
    grad: Tensor,
    values: Tensor,
    weights: Tensor,
    coefficients: Tensor,
    k: int,
    num_samples: int,
    seed: Tensor | None,
    row_id: Tensor | None,
    normaliser_grad: bool,
) -> Tensor:
    rows, items, depth = values.shape
    d_weights = torch.empty((rows, items), dtype=weights.dtype, device=weights.device)
    if rows == 0:
        return d_weights
    if normaliser_grad:
        variant, threads = Variant.of_rows(coefficients.dtype, items, depth, num_samples), THREADS
    else:
        variant, threads = Variant.of_tiles(coefficients.dtype, items, depth, 2048), THREADS // 2
    programs = rows * blocks((items, variant.items.value))
    tensors = (d_weights, Strided.of(grad), Strided.of(values), Strided.of(weights), coefficients, seed, row_id)
    arguments = (*tensors, items, depth, k, num_samples, normaliser_grad, variant)
    launch(_bwd_weights, programs, grad.device, *arguments, threads=threads)
    return d_weights
