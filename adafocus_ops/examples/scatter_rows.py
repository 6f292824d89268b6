"""scatter_rows by example."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import adafocus_ops

from .gather_rows import ROW_INDEX, index_of_any_size
from .record import Example, OpExamples
from .tensors import FLOATS, LAYOUTS, empty, random_images, random_rows


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    out, rows = random_images((5, 8, 3, 5), dtype, layout), random_images((5, 8, 3, 5), dtype, layout, seed=1)
    yield Example("images", (out, ROW_INDEX, rows))
    yield Example("images of the other layout", (out, ROW_INDEX, rows.contiguous()))
    yield Example("three of them", (out, ROW_INDEX.int(), rows, torch.tensor(3)))
    yield Example("vectors", (out[:, :, 0, 0], ROW_INDEX, rows[:, :, 0, 0], torch.tensor([-2])))
    yield Example("numbers", (out[:, 0, 0, 0], ROW_INDEX, rows[:, 0, 0, 0]))
    yield Example("no index", (out, ROW_INDEX[:0], rows[:0]))


def scattered(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """scatter_rows into a copy with the strides of `out`."""
    copy = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device)
    return adafocus_ops.scatter_rows(copy.copy_(out), *args, **kwargs)


def any_size(count: int) -> Example:
    out = random_rows((count, 7, 9), torch.float32, "contiguous")
    return Example(f"{count} rows", (out, index_of_any_size(count), 2 * out, torch.tensor(count - 1)))


def real_size() -> Iterator[Example]:
    index, count = empty(128, dtype=torch.int64), empty(1, dtype=torch.int64)
    for name, channels_last in (("planes", False), ("pixels", True)):
        images = empty(1024, 64, 56, 56, dtype=torch.float16, channels_last=channels_last)
        yield Example(name, (images, index, images[:128], count))


EXAMPLES = OpExamples(
    call=scattered,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("images of the other layout", "three of them"),
    dtypes=(torch.uint8, *FLOATS),
    layouts=LAYOUTS,
)
