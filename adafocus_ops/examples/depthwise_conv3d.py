"""depthwise_conv3d by example."""

from collections.abc import Iterator

import torch
from torch import Tensor

import adafocus_ops

from .record import Example, OpExamples
from .tensors import LAYOUTS, random_clips, random_rows


def _example(
    name: str,
    shape: tuple[int, ...],
    taps: tuple[int, ...],
    dtype: torch.dtype,
    layout: str,
    bias: bool = True,
    **kwargs,
) -> Example:
    x = random_clips(shape, dtype, layout, seed=len(name))
    weight = random_rows((shape[1], 1, *taps), dtype, "contiguous")
    return Example(name, (x, weight, random_rows((shape[1],), dtype, "contiguous") if bias else None), kwargs, 2)


def small(dtype: torch.dtype, layout: str) -> Iterator[Example]:
    def example(name, shape, taps, **kwargs):
        return _example(name, shape, taps, dtype, layout, **kwargs)

    yield example("5x1x1", (2, 8, 3, 1, 2), (5, 1, 1), padding=(2, 0, 0))
    yield example("3x3x3", (1, 8, 2, 3, 9), (3, 3, 3), padding=1)
    yield example("strides 1, 2, 2, no bias", (1, 6, 2, 5, 6), (3, 3, 3), bias=False, stride=(1, 2, 2), padding=1)
    yield example("any kernel", (1, 3, 3, 4, 7), (2, 1, 4), stride=(1, 2, 3), padding=(0, 0, 3))
    yield example("one place", (2, 3, 1, 1, 1), (1, 1, 1), stride=2)


def any_size(count: int) -> Example:
    """Planes of so many places."""
    return _example(f"{count} places", (1, 8, 2, 3, count), (3, 3, 3), torch.float32, "channels_last", padding=1)


def real_size() -> Iterator[Example]:
    def weights(channels: int, *taps: int) -> tuple[Tensor, Tensor]:
        return torch.empty(channels, 1, *taps, device="meta"), torch.empty(channels, device="meta")

    for name, dtype, memory_format in (
        ("channels_last_3d", torch.float16, torch.channels_last_3d),
        ("planes", torch.float32, torch.contiguous_format),
    ):
        x = torch.empty(64, 216, 16, 28, 28, dtype=dtype, device="meta").to(memory_format=memory_format)
        yield Example(name, (x, *weights(216, 3, 3, 3)), {"padding": 1})
        yield Example(f"{name}, strided", (x, *weights(216, 3, 3, 3)), {"stride": (1, 2, 2), "padding": 1})
    x = torch.empty(64, 24, 16, 112, 112, dtype=torch.float64, device="meta")
    yield Example("stem in double precision", (x, weights(24, 5, 1, 1)[0], None), {"padding": (2, 0, 0)})


EXAMPLES = OpExamples(
    call=adafocus_ops.depthwise_conv3d,
    small=small,
    any_size=any_size,
    real_size=real_size,
    traced=("5x1x1", "strides 1, 2, 2, no bias"),
    layouts=LAYOUTS,
    differentiable=(0, 1, 2),
    batched=(0,),
)
