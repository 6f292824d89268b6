"""crop_resize by example."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import adafocus_ops

from ._crops import INDEX, crop_example, crop_of_any_size, crop_of_real_size
from .record import Example, OpExamples
from .tensors import FLOATS, IMAGENET, LAYOUTS


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    example = partial(crop_example, dtype=dtype, layout=layout)
    yield example("one box a frame", (3, 3, 19, 23), (8, 6), 3)
    yield example("several boxes a frame, none on one", (4, 3, 19, 23), (7, 5), 5, INDEX)
    yield example("int32 index, upscaled", (3, 3, 9, 7), (24, 24), 5, INDEX.int())
    yield example("normalised", (3, 3, 21, 17), (9, 10), 5, INDEX, **IMAGENET)
    yield example("normalised, border", (3, 3, 21, 17), (9, 10), 5, INDEX, padding="border", **IMAGENET)
    yield example("video of frames", (2, 3, 3, 15, 16), (5, 6), 5, torch.tensor([5, 0, 3, 3, 1]))
    yield example("one output pixel", (3, 2, 11, 11), (1, 1), 3)
    yield example("patch much wider than the frame", (2, 1, 3, 4), (5, 40), 2)
    yield example("feature map, upscaled", (2, 64, 7, 7), (3, 28), 2)
    yield example("four channels", (3, 4, 12, 13), (5, 6), 5, INDEX)
    yield example("one channel", (3, 1, 12, 13), (5, 6), 5, INDEX)
    yield example("feature map", (2, 70, 7, 7), (3, 3), 2)
    yield example("wide feature map", (2, 600, 7, 7), (4, 4), 2)
    yield example("one-pixel frame", (2, 3, 1, 1), (4, 4), 2)
    yield example("frame much wider than the patch", (2, 3, 5, 200), (3, 4), 2)
    antialiased = partial(example, antialias=True)
    yield antialiased("antialiased", (3, 3, 21, 17), (4, 5), 5, INDEX)
    yield antialiased("antialiased, normalised", (3, 3, 21, 17), (4, 5), 5, INDEX, **IMAGENET)
    yield antialiased("antialiased, border", (3, 3, 21, 17), (4, 5), 5, INDEX, padding="border", **IMAGENET)
    yield antialiased("antialiased, upscaled", (3, 3, 9, 7), (12, 13), 5, INDEX.int())
    yield antialiased("antialiased feature map", (2, 70, 7, 7), (3, 3), 2)
    yield antialiased("antialiased to one pixel", (2, 2, 3, 11, 40), (1, 2), 3, torch.tensor([3, 0, 1]))


def crop_into(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return adafocus_ops.crop_resize(*args, out=out, **kwargs)


def real_size() -> Iterator[Example]:
    half = {"out_dtype": torch.float16}
    frames = {"index": True, **half, **IMAGENET}
    yield crop_of_real_size("planes", (1536, 3, 224, 224), torch.uint8, False, (96, 96), **frames)
    four = {"index": True, **half, "mean": 0.5, "std": 0.25}
    yield crop_of_real_size("pixels of four", (1536, 4, 224, 224), torch.uint8, True, (96, 96), **four)
    yield crop_of_real_size("video in double precision", (64, 8, 3, 224, 224), torch.float64, False, (96, 96))
    yield crop_of_real_size("feature map", (128, 1280, 7, 7), torch.float16, True, (3, 3))
    yield crop_of_real_size("planar feature map", (128, 1280, 7, 7), torch.float32, False, (4, 4))
    antialiased = {"antialias": True, **frames}
    for padding in ("zeros", "border"):
        name = f"antialiased, {padding}"
        yield crop_of_real_size(name, (1536, 3, 224, 224), torch.uint8, False, (96, 96), padding=padding, **antialiased)


EXAMPLES = OpExamples(
    call=adafocus_ops.crop_resize,
    small=small,
    any_size=crop_of_any_size,
    real_size=real_size,
    traced=("one box a frame", "normalised", "antialiased, border"),
    dtypes=(torch.uint8, *FLOATS),
    layouts=LAYOUTS,
    into=crop_into,
    differentiable=(0, 1),
)
