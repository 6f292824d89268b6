"""weighted_sample by example."""

from collections.abc import Iterator

import torch
from torch import Tensor

import adafocus_ops

from .record import Example, OpExamples
from .tensors import ROW_LAYOUTS, distributions, empty, random_rows, rows_like


def weights_of_all_sizes(rows: int, items: int, dtype: torch.dtype, layout: str) -> Tensor:
    """Weights of many sizes, some of them zero, negative or not numbers at all."""
    weights = random_rows((rows, items), torch.float64, "contiguous").mul(3).exp()
    weights.view(-1)[::7] = 0
    weights.view(-1)[3::29] = -1
    weights.view(-1)[5::31] = torch.nan
    return rows_like(weights.to(dtype), layout)


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    def example(name, rows, items, k, **kwargs):
        return Example(name, (weights_of_all_sizes(rows, items, dtype, layout), k), {"seed": torch.tensor(5), **kwargs})

    yield example("few items", 3, 5, 2, num_samples=4)
    yield example("all of one item", 2, 1, 1)
    yield example("all items", 2, 33, 33, num_samples=2)
    yield example("two words a lane", 2, 64, 9, num_samples=3)
    yield example("rows with keys", 3, 100, 4, row_id=torch.tensor([7, -1, 2**40]))
    yield example("no rows", 0, 4, 2, num_samples=3)
    if layout == "contiguous":
        yield example("long rows", 1, 1300, 30)


def any_size(count: int) -> Example:
    """Distributions over so many items."""
    weights = distributions(3, count, torch.float32, "contiguous")
    return Example(f"{count} items", (weights, (count + 1) // 2), {"num_samples": 3, "seed": torch.tensor(7)})


def real_size() -> Iterator[Example]:
    draws = {"seed": empty(1, dtype=torch.int64), "row_id": empty(128, dtype=torch.int64)}
    yield Example("short rows", (empty(128, 64), 16), {"num_samples": 128, **draws})
    yield Example("long rows", (empty(128, 100_000, dtype=torch.float64), 5000), {"num_samples": 4, **draws})


EXAMPLES = OpExamples(
    call=adafocus_ops.weighted_sample,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("few items", "rows with keys"),
    layouts=ROW_LAYOUTS,
)
