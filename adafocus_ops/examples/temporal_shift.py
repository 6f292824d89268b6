"""temporal_shift by example."""

from collections.abc import Iterator

import torch

import adafocus_ops

from .record import Example, OpExamples
from .tensors import LAYOUTS, empty, random_images, random_rows


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    for name, shape, frames, kwargs in (
        ("clips of 4", (8, 16, 3, 5), 4, {}),
        ("inverse", (8, 16, 3, 5), 4, {"inverse": True}),
        ("one frame", (3, 16, 2, 2), 1, {}),
        ("fewer channels than folds", (6, 5, 3, 3), 3, {}),
        ("half of the channels move", (6, 10, 3, 3), 2, {"fold_div": 4}),
        ("all channels move", (6, 10, 3, 3), 3, {"fold_div": 2}),
        ("no clip", (0, 8, 3, 3), 4, {}),
    ):
        yield Example(name, (random_images(shape, dtype, layout), frames), kwargs)


def any_size(count: int) -> Example:
    """So many frames, a multiple of 5."""
    x = random_rows((count, 24, 3, 3), torch.float16, "contiguous")
    return Example(f"{count} frames", (x, 5))


def real_size() -> Iterator[Example]:
    for name, channels_last in (("planes", False), ("pixels", True)):
        yield Example(name, (empty(1024, 64, 56, 56, dtype=torch.float16, channels_last=channels_last), 8))
    yield Example("view", (empty(1024, 64, 57, 57, dtype=torch.float16)[..., 1:, 1:], 8), {"inverse": True})


EXAMPLES = OpExamples(
    call=adafocus_ops.temporal_shift,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("clips of 4", "inverse"),
    layouts=LAYOUTS,
    differentiable=(0,),
)
