"""quantile_frames by example."""

from collections.abc import Iterator

import torch

import adafocus_ops

from .record import Example, OpExamples
from .tensors import ROW_LAYOUTS, distributions, empty, random_rows


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    def example(name, rows, items, frames, k, **kwargs):
        return Example(name, (distributions(rows, items, dtype, layout), frames, k), kwargs)

    jitter = random_rows((12, 12), dtype, layout).sigmoid().clamp(max=0.99)
    yield example("midpoints", 12, 8, 24, 8)
    yield example("jitter", 12, 8, 36, 12, jitter=jitter)
    yield example("seed", 5, 8, 48, 16, seed=torch.tensor(9), row_id=torch.tensor([3, 1, 4, 1, 5]))
    yield example("one frame of one bin", 2, 1, 1, 1)
    yield example("all frames", 2, 5, 40, 40)
    yield example("more bins than lanes", 2, 70, 300, 35)
    yield example("no rows", 0, 8, 24, 8)


def any_size(count: int) -> Example:
    """Distributions over so many segments."""
    weights = distributions(3, count, torch.float32, "contiguous")
    return Example(f"{count} segments", (weights, 3 * count, 2 * count), {"seed": torch.tensor(7)})


def real_size() -> Iterator[Example]:
    draws = {"seed": empty(1, dtype=torch.int64), "row_id": empty(128, dtype=torch.int64)}
    yield Example("seed", (empty(128, 8), 24, 8), draws)
    jitter = {"jitter": empty(128, 8, dtype=torch.float16)}
    yield Example("jitter", (empty(128, 8, dtype=torch.float64), 24, 8), jitter)


EXAMPLES = OpExamples(
    call=adafocus_ops.quantile_frames,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("jitter", "seed"),
    layouts=ROW_LAYOUTS,
)
