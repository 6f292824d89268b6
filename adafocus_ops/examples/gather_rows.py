"""gather_rows by example."""

from collections.abc import Iterator

import torch

import adafocus_ops

from .record import Example, OpExamples
from .tensors import FLOATS, LAYOUTS, empty, random_images, random_rows

ROW_INDEX = torch.tensor([4, 0, -1, 2, 9])


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    x = random_images((5, 8, 3, 5), dtype, layout)
    yield Example("images", (x, ROW_INDEX))
    yield Example("three of them", (x, ROW_INDEX.int(), torch.tensor(3)))
    yield Example("vectors", (x[:, :, 0, 0], ROW_INDEX, torch.tensor([9])))
    yield Example("numbers", (x[:, 0, 0, 0], ROW_INDEX))
    yield Example("no rows", (x[:0], ROW_INDEX))
    yield Example("no index", (x, ROW_INDEX[:0]))


def index_of_any_size(count: int) -> torch.Tensor:
    """Each row once, with some that are out of range, [count]."""
    return (torch.arange(count) * 5).remainder(count + 2) - 1


def any_size(count: int) -> Example:
    x = random_rows((count, 7, 9), torch.float32, "contiguous")
    return Example(f"{count} rows", (x, index_of_any_size(count), torch.tensor(count - 1)))


def real_size() -> Iterator[Example]:
    index, count = empty(128, dtype=torch.int64), empty(1, dtype=torch.int64)
    for name, channels_last in (("planes", False), ("pixels", True)):
        images = empty(1024, 64, 56, 56, dtype=torch.float16, channels_last=channels_last)
        yield Example(name, (images, index, count))


EXAMPLES = OpExamples(
    call=adafocus_ops.gather_rows,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("images", "three of them"),
    dtypes=(torch.uint8, *FLOATS),
    layouts=LAYOUTS,
    differentiable=(0,),
)
