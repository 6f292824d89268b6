"""exit_gate by example."""

from collections.abc import Iterator

import torch

import adafocus_ops

from .record import Example, OpExamples
from .tensors import ROW_LAYOUTS, empty, random_rows


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    logits = random_rows((40, 17), dtype, layout, scale=3)
    active = torch.arange(40) % 3 != 0
    yield Example("entropy", (logits, 1.0))
    yield Example("confidence", (logits, 0.6), {"criterion": "confidence"})
    yield Example("active rows", (logits, 1.0), {"active": active})
    yield Example("list of active rows", (logits, 1.0), {"active": torch.tensor([39, 3, 3, -1, 17, 40, 0]).int()})
    yield Example("capacity", (logits, torch.tensor(1.0)), {"capacity": 50})
    yield Example("little capacity", (logits, torch.tensor(1.0)), {"capacity": 3})
    yield Example("many classes", (random_rows((3, 700), dtype, layout, scale=5), 1.0), conditioning=4)
    yield Example("no rows", (logits[:0], 1.0))


def any_size(count: int) -> Example:
    """So many rows of logits, all of them listed but some twice or not at all."""
    logits = random_rows((count, 13), torch.float32, "contiguous", scale=3)
    index = (torch.arange(count) * 5).remainder(count + 2) - 1
    return Example(f"{count} rows", (logits, 1.5), {"active": index, "capacity": count})


def real_size() -> Iterator[Example]:
    mask, index = empty(4096, dtype=torch.bool), empty(128, dtype=torch.int64)
    yield Example("mask", (empty(4096, 400, dtype=torch.float16), 1.0), {"active": mask, "capacity": 4096})
    listed = {"criterion": "confidence", "active": index, "capacity": 4096}
    yield Example("list", (empty(4096, 400, dtype=torch.float64), empty(dtype=torch.float16)), listed)


EXAMPLES = OpExamples(
    call=adafocus_ops.exit_gate,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("entropy", "active rows", "list of active rows", "little capacity"),
    layouts=ROW_LAYOUTS,
)
