"""expected_value in plain PyTorch.

With q[b, t] = mean over samples and steps i of [t not in prefix_i] / S_i, where prefix_i are the first i - 1 draws and
S_i = 1 - the sum of their weights, the expectation is sum over t of q w v. Only q, [B, T], needs the samples.
"""

from collections.abc import Iterator
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from . import race

MAX_PREFIXES = 20_000  # prefixes that are enumerated
NOTHING = 2.0**-64  # weights that sum to less leave nothing to average: 1 / S would overflow


def least_rest(dtype: torch.dtype) -> float:
    """The least 1 - sum that is more than rounding leaves; below it the weights that are left are summed instead."""
    return 2.0**-44 if dtype == torch.float64 else 2.0**-18


def _clean(weights: Tensor, other: Tensor) -> Tensor:
    """Clean weights [B, T] in the type of the arithmetic."""
    return race.clean_weights(weights).to(
        torch.promote_types(torch.promote_types(weights.dtype, other.dtype), torch.float32)
    )


def _steps(
    weights: Tensor, k: int, num_samples: int, seed: Tensor | None, row_id: Tensor | None, original: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """For every step: which items are not in the prefix [B, M, T] bool, and the share of each prefix [B, M].

    Sampled prefixes have a share of 1 / (k M); without samples, all prefixes come, with their probability / k.
    """
    rows, items = weights.shape
    if num_samples:
        left = torch.ones(rows, num_samples, items, dtype=torch.bool, device=weights.device)
        share = weights.new_full((rows, num_samples), 1 / (k * num_samples))
        yield left, share
        if k > 1:
            draws = race.draw(original, k - 1, num_samples, seed, row_id)
            for i in range(k - 1):
                left = left.scatter(2, draws[..., i : i + 1], False)
                yield left, share
        return
    # Probability of every set of i - 1 items to be the prefix, from those with one item less.
    probability = {(): torch.ones_like(weights[:, 0])}
    for i in range(k):
        sets = list(combinations(range(items), i))
        if i:
            probability = {s: _probability(s, probability, weights) for s in sets}
        left = torch.ones(len(sets), items, dtype=torch.bool, device=weights.device)
        for n, s in enumerate(sets):
            left[n, list(s)] = False
        yield left.expand(rows, -1, -1), torch.stack([probability[s] for s in sets], 1) / k


def _probability(items: tuple[int, ...], smaller: dict[tuple[int, ...], Tensor], weights: Tensor) -> Tensor:
    """The probability [B] that the first draws are this set, whichever of its items comes last."""
    total = torch.zeros_like(weights[:, 0])
    for last in items:
        before = tuple(t for t in items if t != last)
        left = torch.ones(weights.shape[1], dtype=torch.bool, device=weights.device)
        left[list(before)] = False
        inverse, _ = _inverse_rest(weights[:, None], left)
        total = total + smaller[before] * weights[:, last] * inverse[:, 0]
    return total


def _inverse_rest(weights: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """1 / S of each prefix [B, M], 0 where next to nothing is left, and whether S is 1 - sum [B, M] bool."""
    rest = 1 - torch.where(left, 0, weights).sum(-1)
    plain = rest >= least_rest(weights.dtype)
    rest = torch.where(plain, rest, torch.where(left, weights, 0).sum(-1))
    return torch.where(rest > NOTHING, 1 / rest, 0), plain


def fwd(
    values: Tensor, weights: Tensor, k: int, num_samples: int, seed: Tensor | None, row_id: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The expectation [B, D] and the coefficients q [B, T], of values [B, T, D] and weights [B, T].

    Without samples (num_samples = 0) it is the expectation itself, by enumeration of all prefixes.
    """
    clean = _clean(weights, values)
    coefficients = torch.zeros_like(clean, memory_format=torch.contiguous_format)
    for left, share in _steps(clean, k, num_samples, seed, row_id, weights):
        inverse, _ = _inverse_rest(clean[:, None], left)
        coefficients = coefficients + (left * (share * inverse)[..., None]).sum(1)
    out = torch.einsum("bt,btd->bd", coefficients * clean, values.to(clean.dtype))
    return out.to(values.dtype), coefficients


def bwd_values(grad: Tensor, weights: Tensor, coefficients: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient [B, T, D] of the values: q w g."""
    clean = race.clean_weights(weights).to(coefficients.dtype)
    return ((coefficients * clean)[..., None] * grad.to(clean.dtype)[:, None]).to(dtype)


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
    """The gradient [B, T] of the weights: q <g, v>, with normaliser_grad also that of each S."""
    clean = _clean(weights, values)
    by_item = torch.einsum("btd,bd->bt", values.to(clean.dtype), grad.to(clean.dtype))  # <g, v_t>
    gradient = coefficients * by_item
    if normaliser_grad:
        for left, share in _steps(clean, k, num_samples, seed, row_id, weights):
            inverse, plain = _inverse_rest(clean[:, None], left)
            above = torch.where(left, (clean * by_item)[:, None], 0).sum(-1)
            by_sum = share * above * torch.where(plain, inverse**2, 0)  # the gradient of the prefix's sum
            gradient = gradient + torch.where(left, 0, by_sum[..., None]).sum(1)
    return torch.where(weights >= 0, gradient, 0).to(weights.dtype)


def why_not_exact(items: int, k: int) -> str | None:
    """Why all prefixes cannot be enumerated, or None."""
    prefixes = sum(comb(items, i) for i in range(k))
    return f"{prefixes} prefixes are more than {MAX_PREFIXES}" if prefixes > MAX_PREFIXES else None
