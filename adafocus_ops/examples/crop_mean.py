"""crop_mean by example."""

from collections.abc import Iterator
from functools import partial

import torch

import adafocus_ops

from ._crops import INDEX, crop_example, crop_of_any_size, crop_of_real_size
from .record import Example, OpExamples
from .tensors import FLOATS, IMAGENET, LAYOUTS


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    example = partial(crop_example, dtype=dtype, layout=layout)
    yield example("one box a frame", (3, 3, 19, 23), (8, 6), 3)
    yield example("several boxes a frame, none on one", (4, 3, 19, 23), (7, 5), 5, INDEX)
    yield example("normalised", (3, 3, 21, 17), (9, 10), 5, INDEX, **IMAGENET)
    yield example("normalised, border", (3, 3, 21, 17), (9, 10), 5, INDEX, padding="border", **IMAGENET)
    yield example("feature map", (2, 70, 7, 7), (3, 3), 2)
    yield example("wide feature map", (2, 600, 7, 7), (4, 4), 2)
    index = torch.tensor([5, 0, 3, 3, 1]).int()
    yield example("video of feature maps, int32 index", (2, 3, 40, 5, 5), (2, 2), 5, index)
    yield example("one-pixel frame", (2, 3, 1, 1), (4, 4), 2)


def real_size() -> Iterator[Example]:
    yield crop_of_real_size("planes", (1536, 3, 224, 224), torch.uint8, False, (96, 96), index=True, **IMAGENET)
    yield crop_of_real_size("feature map", (128, 1280, 7, 7), torch.float16, True, (3, 3))


EXAMPLES = OpExamples(
    call=adafocus_ops.crop_mean,
    small=small,
    any_size=crop_of_any_size,
    real_size=real_size,
    traced=("one box a frame", "normalised, border", "video of feature maps, int32 index"),
    dtypes=(torch.uint8, *FLOATS),
    layouts=LAYOUTS,
    differentiable=(0, 1),
)
