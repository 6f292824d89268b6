"""Every op as data for the conformance suite: samples, what is differentiable, and how exact it must be."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import adafocus_ops

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = ("contiguous", "channels_last", "strided")


class Sample(NamedTuple):
    name: str
    args: tuple
    kwargs: dict[str, Any] = {}
    conditioning: float = 1.0  # how many epsilons of the result a rounding of the inputs is worth
    gradcheck: bool = True  # whether the gradient is that of the forward


@dataclass(frozen=True)
class OpSpec:
    """One op.

    tolerance bounds, in units of the machine epsilon times the sample's conditioning, the error of each
    result relative to the largest value of the exact result: "forward", and the gradient of each
    differentiable argument by its position. The comments beside the numbers give the worst that was seen.
    """

    name: str
    fn: Callable
    samples: Callable[[torch.dtype, str], Iterator[Sample]]
    dtypes: tuple[torch.dtype, ...] = FLOATS
    layouts: tuple[str, ...] = ("contiguous",)
    differentiable: tuple[int, ...] = ()  # positions in Sample.args
    tolerance: dict[Any, float] = field(default_factory=lambda: {"forward": 0})
    gradcheck: dict[str, Any] = field(default_factory=dict)  # arguments whose gradient is that of the forward
    gradcheck_step: float = 1e-4
    gradient_kernels: int = 1  # raw ops that each gradient is made of


def random_images(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int = 0) -> Tensor:
    """[..., C, H, W] in a memory layout; "strided" is a view with gaps in every dimension."""
    generator = torch.Generator().manual_seed(seed)
    *lead, c, h, w = shape

    def draw(shape):
        if dtype == torch.uint8:
            return torch.randint(0, 256, shape, generator=generator, dtype=dtype)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    if layout == "channels_last":
        return draw((*lead, h, w, c)).movedim(-1, -3)
    if layout == "strided":
        return draw((*(2 * n for n in lead), c + 1, h + 2, 2 * w))[
            (*(slice(None, None, 2) for _ in lead), slice(1, None), slice(1, -1), slice(None, None, 2))
        ]
    return draw(shape)


def positions(centre: Tensor, extent: Tensor, count: int) -> Tensor:
    """[K, count]: where the outputs sample an axis, as pixel indices."""
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    return centre[:, None].double() + extent[:, None].double() * steps - 0.5


def corners(centre: Tensor, extent: Tensor, count: int) -> Tensor:
    """[K, M]: where, as pixel indices, the antialiased weights of an axis have a corner: the samples, how far the
    outermost ones reach, and the ends of the box, which have theirs between pixels."""
    at, reach = positions(centre, extent, count), (extent / count).clamp(min=1)[:, None].double()
    ends = centre[:, None].double() + torch.tensor([[-0.5, 0.5]]) * extent.clamp(min=1)[:, None].double()
    return torch.cat([at, at[:, :1] - reach, at[:, -1:] + reach, ends], 1)


def smooth_boxes(
    count: int, out: tuple[int, int], frame: tuple[int, int], seed: int, reach: float = 0.2, kinks: Callable = positions
) -> Tensor:
    """[count, 4] float64, exact in float32: boxes, some partly outside, none with a kink (by default a sample) within
    1/500 of a pixel centre, where the derivative by the box jumps."""
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    while len(found) < count:
        unit = torch.rand(4, generator=generator, dtype=torch.float64)
        size = torch.tensor(frame, dtype=torch.float64)
        extent = size * (0.2 + unit[2:])
        centre = size * (-reach + (1 + 2 * reach) * unit[:2])
        box = torch.cat([centre, extent]).float().double()[None]
        at = torch.cat([kinks(box[:, i], box[:, 2 + i], out[i])[0] for i in (0, 1)])
        if ((at - at.round()).abs() > 1 / 500).all():
            found.append(box)
    return torch.cat(found)


# ----------------------------------------------------------------------------------------------------
# The crops

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
INDEX = torch.tensor([2, 0, 0, 1, 2])


def crop_sample(name, shape, out, count, index=None, *, dtype, layout, **kwargs) -> Sample:
    """One call on frames of a shape, with `count` boxes."""
    boxes_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    kinks = corners if kwargs.get("antialias") else positions
    boxes = smooth_boxes(count, out, shape[-2:], seed=len(name), kinks=kinks).to(boxes_dtype)
    frames = random_images(shape, dtype, layout, seed=len(name))
    if index is not None:
        kwargs["frame_index"] = index
    # A position carries a rounding error in proportion to itself, which the slope of noise turns into a value's.
    return Sample(name, (frames, boxes, out), kwargs, conditioning=8 + max(shape[-2:]))


def crop_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    sample = partial(crop_sample, dtype=dtype, layout=layout)
    yield sample("one box a frame", (3, 3, 19, 23), (8, 6), 3)
    yield sample("several boxes a frame, none on one", (4, 3, 19, 23), (7, 5), 5, INDEX)
    yield sample("int32 index, upscaled", (3, 3, 9, 7), (24, 24), 5, INDEX.int())
    yield sample("normalised", (3, 3, 21, 17), (9, 10), 5, INDEX, **IMAGENET)
    yield sample("normalised, border", (3, 3, 21, 17), (9, 10), 5, INDEX, padding="border", **IMAGENET)
    yield sample("video of frames", (2, 3, 3, 15, 16), (5, 6), 5, torch.tensor([5, 0, 3, 3, 1]))
    yield sample("one output pixel", (3, 2, 11, 11), (1, 1), 3)
    yield sample("patch much wider than the frame", (2, 1, 3, 4), (5, 40), 2)
    yield sample("feature map, upscaled", (2, 64, 7, 7), (3, 28), 2)
    yield sample("four channels", (3, 4, 12, 13), (5, 6), 5, INDEX)
    yield sample("one channel", (3, 1, 12, 13), (5, 6), 5, INDEX)
    yield sample("feature map", (2, 70, 7, 7), (3, 3), 2)
    yield sample("wide feature map", (2, 600, 7, 7), (4, 4), 2)
    yield sample("one-pixel frame", (2, 3, 1, 1), (4, 4), 2)
    yield sample("frame much wider than the patch", (2, 3, 5, 200), (3, 4), 2)
    antialiased = partial(sample, antialias=True)
    yield antialiased("antialiased", (3, 3, 21, 17), (4, 5), 5, INDEX)
    yield antialiased("antialiased, normalised", (3, 3, 21, 17), (4, 5), 5, INDEX, **IMAGENET)
    yield antialiased("antialiased, border", (3, 3, 21, 17), (4, 5), 5, INDEX, padding="border", **IMAGENET)
    yield antialiased("antialiased, upscaled", (3, 3, 9, 7), (12, 13), 5, INDEX.int())
    yield antialiased("antialiased feature map", (2, 70, 7, 7), (3, 3), 2)
    yield antialiased("antialiased to one pixel", (2, 2, 3, 11, 40), (1, 2), 3, torch.tensor([3, 0, 1]))


def crop_mean_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    sample = partial(crop_sample, dtype=dtype, layout=layout)
    yield sample("one box a frame", (3, 3, 19, 23), (8, 6), 3)
    yield sample("several boxes a frame, none on one", (4, 3, 19, 23), (7, 5), 5, INDEX)
    yield sample("normalised", (3, 3, 21, 17), (9, 10), 5, INDEX, **IMAGENET)
    yield sample("normalised, border", (3, 3, 21, 17), (9, 10), 5, INDEX, padding="border", **IMAGENET)
    yield sample("feature map", (2, 70, 7, 7), (3, 3), 2)
    yield sample("wide feature map", (2, 600, 7, 7), (4, 4), 2)
    yield sample("video of feature maps, int32 index", (2, 3, 40, 5, 5), (2, 2), 5, torch.tensor([5, 0, 3, 3, 1]).int())
    yield sample("one-pixel frame", (2, 3, 1, 1), (4, 4), 2)


# ----------------------------------------------------------------------------------------------------
# The ops over rows

ROW_LAYOUTS = ("contiguous", "strided")


def rows_like(values: Tensor, layout: str) -> Tensor:
    """The values in a memory layout; "strided" is a view with gaps in every dimension."""
    if layout == "contiguous":
        return values
    wide = torch.zeros([2 * size for size in values.shape], dtype=values.dtype)
    view = wide[(slice(None, None, 2),) * values.ndim]
    return view.copy_(values)


def random_rows(shape: tuple[int, ...], dtype: torch.dtype, layout: str, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return rows_like(torch.randn(shape, generator=generator, dtype=torch.float64).mul(scale).to(dtype), layout)


def distributions(rows: int, items: int, dtype: torch.dtype, layout: str) -> Tensor:
    """[rows, items], each row of sum 1 before it is rounded to the dtype; it peaks a little."""
    return rows_like(random_rows((rows, items), torch.float64, "contiguous").softmax(1).to(dtype), layout)


def sampled(rows: int, items: int, dtype: torch.dtype, layout: str) -> Tensor:
    """Weights of many sizes, some of them zero, negative or not numbers at all."""
    weights = random_rows((rows, items), torch.float64, "contiguous").mul(3).exp()
    weights.view(-1)[::7] = 0
    weights.view(-1)[3::29] = -1
    weights.view(-1)[5::31] = torch.nan
    return rows_like(weights.to(dtype), layout)


def weighted_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    def sample(name, rows, items, k, **kwargs):
        return Sample(name, (sampled(rows, items, dtype, layout), k), {"seed": torch.tensor(5), **kwargs})

    yield sample("few items", 3, 5, 2, num_samples=4)
    yield sample("all of one item", 2, 1, 1)
    yield sample("all items", 2, 33, 33, num_samples=2)
    yield sample("two words a lane", 2, 64, 9, num_samples=3)
    yield sample("rows with keys", 3, 100, 4, row_id=torch.tensor([7, -1, 2**40]))
    yield sample("no rows", 0, 4, 2, num_samples=3)
    if layout == "contiguous":
        yield sample("long rows", 1, 1300, 30)


def expected_values(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    def sample(name, rows, items, depth, k, **kwargs):
        depths = () if depth is None else (depth,)
        args = (random_rows((rows, items, *depths), dtype, layout), distributions(rows, items, dtype, layout), k)
        draws = {} if "mode" in kwargs else {"seed": torch.tensor(3)}
        # An expectation changes with the probabilities of the prefixes too, which the gradient leaves out.
        gradcheck = "mode" not in kwargs or k == 1
        return Sample(name, args, {**draws, **kwargs}, conditioning=4, gradcheck=gradcheck)

    yield sample("logits", 3, 5, 3, 2, num_samples=5)
    yield sample("losses", 2, 7, None, 3, num_samples=4)
    yield sample("one step", 2, 4, 2, 1, num_samples=3)
    yield sample("all steps but one", 2, 6, 2, 5, num_samples=4, row_id=torch.tensor([5, 1]))
    yield sample("normaliser", 2, 6, 3, 4, num_samples=4, normaliser_grad=True)
    yield sample("exact, one step", 2, 5, 3, 1, mode="exact")
    yield sample("exact, two steps", 2, 5, 3, 2, mode="exact", normaliser_grad=True)
    yield sample("more items than lanes", 1, 70, 2, 4, num_samples=3)
    yield sample("no rows", 0, 4, 2, 2, num_samples=3)


def quantile_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    def sample(name, rows, items, frames, k, **kwargs):
        return Sample(name, (distributions(rows, items, dtype, layout), frames, k), kwargs)

    jitter = random_rows((12, 12), dtype, layout).sigmoid().clamp(max=0.99)
    yield sample("midpoints", 12, 8, 24, 8)
    yield sample("jitter", 12, 8, 36, 12, jitter=jitter)
    yield sample("seed", 5, 8, 48, 16, seed=torch.tensor(9), row_id=torch.tensor([3, 1, 4, 1, 5]))
    yield sample("one frame of one bin", 2, 1, 1, 1)
    yield sample("all frames", 2, 5, 40, 40)
    yield sample("more bins than lanes", 2, 70, 300, 35)
    yield sample("no rows", 0, 8, 24, 8)


def gate_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    logits = random_rows((40, 17), dtype, layout, scale=3)
    active = torch.arange(40) % 3 != 0
    yield Sample("entropy", (logits, 1.0))
    yield Sample("confidence", (logits, 0.6), {"criterion": "confidence"})
    yield Sample("active rows", (logits, 1.0), {"active": active})
    yield Sample("list of active rows", (logits, 1.0), {"active": torch.tensor([39, 3, 3, -1, 17, 40, 0]).int()})
    yield Sample("capacity", (logits, torch.tensor(1.0)), {"capacity": 50})
    yield Sample("little capacity", (logits, torch.tensor(1.0)), {"capacity": 3})
    yield Sample("many classes", (random_rows((3, 700), dtype, layout, scale=5), 1.0), conditioning=4)
    yield Sample("no rows", (logits[:0], 1.0))


ROW_INDEX = torch.tensor([4, 0, -1, 2, 9])


def gather_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    x = random_images((5, 8, 3, 5), dtype, layout)
    yield Sample("images", (x, ROW_INDEX))
    yield Sample("three of them", (x, ROW_INDEX.int(), torch.tensor(3)))
    yield Sample("vectors", (x[:, :, 0, 0], ROW_INDEX, torch.tensor([9])))
    yield Sample("numbers", (x[:, 0, 0, 0], ROW_INDEX))
    yield Sample("no rows", (x[:0], ROW_INDEX))
    yield Sample("no index", (x, ROW_INDEX[:0]))


def scatter_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    out, rows = random_images((5, 8, 3, 5), dtype, layout), random_images((5, 8, 3, 5), dtype, layout, seed=1)
    yield Sample("images", (out, ROW_INDEX, rows))
    yield Sample("images of the other layout", (out, ROW_INDEX, rows.contiguous()))
    yield Sample("three of them", (out, ROW_INDEX.int(), rows, torch.tensor(3)))
    yield Sample("vectors", (out[:, :, 0, 0], ROW_INDEX, rows[:, :, 0, 0], torch.tensor([-2])))
    yield Sample("numbers", (out[:, 0, 0, 0], ROW_INDEX, rows[:, 0, 0, 0]))
    yield Sample("no index", (out, ROW_INDEX[:0], rows[:0]))


def scattered(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """scatter_rows into a copy with the strides of `out`."""
    copy = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype, device=out.device)
    return adafocus_ops.scatter_rows(copy.copy_(out), *args, **kwargs)


def shift_samples(dtype: torch.dtype, layout: str) -> Iterator[Sample]:
    for name, shape, frames, kwargs in (
        ("clips of 4", (8, 16, 3, 5), 4, {}),
        ("inverse", (8, 16, 3, 5), 4, {"inverse": True}),
        ("one frame", (3, 16, 2, 2), 1, {}),
        ("fewer channels than folds", (6, 5, 3, 3), 3, {}),
        ("half of the channels move", (6, 10, 3, 3), 2, {"fold_div": 4}),
        ("all channels move", (6, 10, 3, 3), 3, {"fold_div": 2}),
        ("no clip", (0, 8, 3, 3), 4, {}),
    ):
        yield Sample(name, (random_images(shape, dtype, layout), frames), kwargs)


SPECS = (
    OpSpec(
        "crop_resize",
        adafocus_ops.crop_resize,
        crop_samples,
        dtypes=(torch.uint8, *FLOATS),
        layouts=LAYOUTS,
        differentiable=(0, 1),
        tolerance={"forward": 2, 0: 2, 1: 2},  # 0.8, 0.6 and 1.1 seen
    ),
    OpSpec(
        "crop_mean",
        adafocus_ops.crop_mean,
        crop_mean_samples,
        dtypes=(torch.uint8, *FLOATS),
        layouts=LAYOUTS,
        differentiable=(0, 1),
        tolerance={"forward": 2, 0: 2, 1: 2},
    ),
    OpSpec("weighted_sample", adafocus_ops.weighted_sample, weighted_samples, layouts=ROW_LAYOUTS),
    OpSpec(
        "expected_value",
        adafocus_ops.expected_value,
        expected_values,
        layouts=ROW_LAYOUTS,
        differentiable=(0, 1),
        tolerance={"forward": 2, 0: 2, 1: 2},
        # With the default the normaliser is a constant, which differences do not know.
        gradcheck={"normaliser_grad": True},
        gradcheck_step=1e-6,  # a longer one changes who wins a race
    ),
    OpSpec("quantile_frames", adafocus_ops.quantile_frames, quantile_samples, layouts=ROW_LAYOUTS),
    OpSpec(
        "exit_gate", adafocus_ops.exit_gate, gate_samples, layouts=ROW_LAYOUTS, tolerance={"forward": 8}
    ),  # 3.4 seen
    OpSpec(
        "gather_rows",
        adafocus_ops.gather_rows,
        gather_samples,
        dtypes=(torch.uint8, *FLOATS),
        layouts=LAYOUTS,
        differentiable=(0,),
        gradient_kernels=0,  # index_add, which adds up rows that were gathered twice
        tolerance={"forward": 0, 0: 0},  # moves values, computes none
    ),
    OpSpec(
        "scatter_rows",
        scattered,
        scatter_samples,
        dtypes=(torch.uint8, *FLOATS),
        layouts=LAYOUTS,
        tolerance={"forward": 0},
    ),
    OpSpec(
        "temporal_shift",
        adafocus_ops.temporal_shift,
        shift_samples,
        layouts=LAYOUTS,
        differentiable=(0,),
        tolerance={"forward": 0, 0: 0},
    ),
)
