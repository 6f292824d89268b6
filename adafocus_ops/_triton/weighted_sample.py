"""weighted_sample in Triton: _reference/weighted_sample.py.

A program holds the arrivals of a block of items for some samples of a row and sorts the first of them out. Of long rows
it goes through one block of items after another and merges their first arrivals; where more are asked for than it
holds, it starts again for those that come after the ones that it has. No arrival is ever written to memory.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Strided, blocks, constants, launch, power_of_2
from .philox import row_number
from .race import NEVER, load_weights, race_keys, race_scale, race_weight

KEYS_PER_BLOCK = 1024


class Variant(NamedTuple):
    """The constants that a kernel is compiled for."""

    samples: tl.constexpr  # samples of a block
    items: tl.constexpr  # items of a block
    kept: tl.constexpr  # draws that are made together: a power of two from 2 on, so that a sort has two sides
    several: tl.constexpr  # whether a row has several blocks of items

    @staticmethod
    def of(items: int, k: int, num_samples: int) -> "Variant":
        block = max(power_of_2(items, KEYS_PER_BLOCK), 4)  # Philox makes words by fours
        samples = power_of_2(num_samples, KEYS_PER_BLOCK // block)
        return Variant(*constants((samples, block, max(power_of_2(k, block), 2), items > block)))


@triton.jit
def _weights(weights, b, first, items, variant):
    """A block [1, items] of clean weights."""
    t = first + tl.arange(0, variant.items)[None, :]
    return load_weights(weights, b, t.to(tl.int64), t < items)


@triton.jit
def _largest(weights, b, items, variant):
    largest = _weights(weights, b, 0, items, variant)
    for first in range(variant.items, items, variant.items):
        largest = tl.maximum(largest, _weights(weights, b, first, items, variant))
    return tl.max(largest)


@triton.jit
def _first(keys, variant):
    """The least `kept` of each row of keys, complemented, in descending order: tl.topk has no other."""
    return tl.topk(~keys, variant.kept)


@triton.jit(do_not_specialize=("items", "k", "num_samples"))
def _fwd(out, weights, seed, row_id, items, k, num_samples, variant):
    tiles = tl.cdiv(num_samples, variant.samples)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    draw = (tl.program_id(0) % tiles * variant.samples + tl.arange(0, variant.samples))[:, None]
    row = row_number(row_id, b)
    scale = race_scale(_largest(weights, b, items, variant))
    out += (b * num_samples + draw) * k
    place = tl.arange(0, variant.kept)[None, :]
    last = tl.full([variant.samples, 1], -1, tl.int64)  # the key of the last draw so far
    for drawn in range(0, k, variant.kept):
        found = tl.full([variant.samples, variant.kept], ~NEVER, tl.int64)  # complemented, the last first
        for first in range(0, items, variant.items):
            weight = race_weight(_weights(weights, b, first, items, variant), scale)
            keys = race_keys(weight, seed, row, draw, first)
            t = first + tl.arange(0, variant.items)[None, :]
            best = _first(tl.where((t < items) & (keys > last), keys, NEVER), variant)
            if variant.several:
                # The largest of a rising and a falling sequence rise and fall, which takes one merge to sort.
                found = tl.bitonic_merge(tl.maximum(found, best))
            else:
                found = best
        keys = ~found
        i = drawn + (variant.kept - 1 - place if variant.several else place)
        there = (draw < num_samples) & (i < k)
        tl.store(out + i, keys & 0xFFFFFFFF, there)
        last = tl.max(keys, 1, keep_dims=True)


def fwd(weights: Tensor, k: int, num_samples: int, seed: Tensor, row_id: Tensor | None) -> Tensor:
    rows, items = weights.shape
    out = torch.empty((rows, num_samples, k), dtype=torch.int64, device=weights.device)
    if out.numel() == 0:
        return out
    variant = Variant.of(items, k, num_samples)
    programs = rows * blocks((num_samples, variant.samples.value))
    launch(_fwd, programs, weights.device, out, Strided.of(weights), seed, row_id, items, k, num_samples, variant)
    return out
