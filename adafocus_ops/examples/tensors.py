"""The tensors that the examples are made of, every one a function of its arguments alone."""

from collections.abc import Callable

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LAYOUTS = ("contiguous", "channels_last", "strided")  # of images
ROW_LAYOUTS = ("contiguous", "strided")  # of all else
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def empty(*shape: int, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> Tensor:
    """A tensor without memory."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=memory_format)


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


def random_clips(shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int = 0) -> Tensor:
    """[N, C, T, H, W] floating point in a memory layout, as `random_images`."""
    n, c, *places = shape
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    if layout == "channels_last":
        return draw(n, *places, c).movedim(-1, 1)
    if layout == "strided":
        t, h, w = places
        return draw(2 * n, c + 1, 2 * t, h + 2, 2 * w)[::2, 1:, ::2, 1:-1, ::2]
    return draw(*shape)


def positions(centre: Tensor, extent: Tensor, count: int) -> Tensor:
    """[K, count]: positions of the outputs on an axis, as pixel indices."""
    steps = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    return centre[:, None].double() + extent[:, None].double() * steps - 0.5


def corners(centre: Tensor, extent: Tensor, count: int) -> Tensor:
    """[K, M]: where, as pixel indices, the antialiased weights of an axis have a corner: the positions, how far the
    outermost ones reach, and the ends of the box, which have theirs between pixels."""
    at, reach = positions(centre, extent, count), (extent / count).clamp(min=1)[:, None].double()
    ends = centre[:, None].double() + torch.tensor([[-0.5, 0.5]]) * extent.clamp(min=1)[:, None].double()
    return torch.cat([at, at[:, :1] - reach, at[:, -1:] + reach, ends], 1)


def smooth_boxes(
    count: int, out: tuple[int, int], frame: tuple[int, int], seed: int, reach: float = 0.2, kinks: Callable = positions
) -> Tensor:
    """[count, 4] float64, exact in float32: boxes, some partly outside, none with a kink (by default a position) within
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
