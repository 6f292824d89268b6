"""Cases of crop_resize, beside the steps that it replaces."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from adafocus_ops import backends, crop_resize
from bench.harness.bandwidth import sector_bytes
from bench.harness.case import LAYOUTS, OURS, Call, Case, Prepared, Targets, dtype_name
from bench.harness.scaling import Series
from third_party import kornia_adapter, torchvision_adapter

OTHERS = {"torchvision": torchvision_adapter.crop_resize, "kornia": kornia_adapter.crop_resize}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_BOXES = {"cpu": 48, "cuda": 1536}
CHECKED_BOXES = 16  # of the crops of which only the growth is timed

CropFunction = Callable[[Tensor, Tensor, int], Tensor]  # frames [K, C, H, W], boxes [K, 4], P -> [K, C, P, P]


class Inputs(NamedTuple):
    """The input of one call."""

    frames: Tensor  # [K, C, S, S]
    boxes: Tensor  # [K, 4]
    index: Tensor  # [K], box k from frame k
    grad: Tensor  # of the result
    mean: Tensor  # [3, 1, 1]
    std: Tensor


@dataclass(frozen=True)
class Crop:
    """crop_resize of one box a frame."""

    patch: int
    dtype: torch.dtype  # of the frames; uint8 ones are gathered and normalised, in the op's read or step by step
    layout: str = "contiguous"
    out_dtype: torch.dtype = torch.float32
    antialias: bool = False  # of whole frames: only there is something to compare with
    gradient: str | None = None  # "boxes" or "frames": with the backward pass to these alone
    backward_only: bool = False  # the forward pass is not timed
    channels: int = 3
    frame_size: int = 224
    sides: tuple[float, float] = (96, 224)  # least and largest side of the boxes
    num_boxes: int | None = None  # default: NUM_BOXES of the device

    op = "crop_resize"
    has_simple_kernel = True  # on CUDA, beside the fast one

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The crop as something to time."""
        reference = "interpolate" if self.antialias else "grid_sample"
        return Case(
            op=self.op,
            name=self.name,
            input=self.input,
            mode=self.mode,
            dtype=dtype_name(self.dtype),
            layout=self.layout,
            reference=reference,
            rival=reference,
            tolerance=self.tolerance,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
        )

    def smaller(self) -> "Crop":
        """The same of a few boxes, for which the reference needs little memory."""
        return replace(self, num_boxes=min(self.num_boxes, CHECKED_BOXES))

    @property
    def name(self) -> str:
        """All that sets the crop apart from other crops."""
        source, target = dtype_name(self.dtype), dtype_name(self.out_dtype)
        kind = f"{self.op}{' antialiased' * self.antialias}{' of maps' * (self.channels > 4)}"
        dtypes = source if source == target else f"{source} to {target}"
        count = f", {self.num_boxes} boxes" if self.num_boxes else ""
        passes = f"{'backward to' if self.backward_only else 'gradient of'} {self.gradient}"
        return f"{kind} {dtypes}, P={self.patch}, {self.layout}{count}, {passes if self.gradient else 'forward'}"

    @property
    def tolerance(self) -> float:
        """grid_sample in float32 is up to 4e-5 from itself in float64: positions on 224 pixels round to about 1e-5."""
        return max(2e-4, 2 * torch.finfo(self.out_dtype).eps)

    @property
    def mode(self) -> str:
        """The passes that are timed."""
        if self.gradient is None:
            return "forward"
        return "backward" if self.backward_only else "forward+backward"

    @property
    def input(self) -> str:
        """The input in words, with {} for how many."""
        if self.antialias:
            return f"{{}} whole frames of {self.frame_size} px"
        frame = f"map of {self.channels} channels and" if self.channels > 4 else "frame of"
        return f"{{}} boxes of {self.sides[0]} to {self.sides[1]} px, one a {frame} {self.frame_size} px"

    def prepare(self, device: torch.device) -> Prepared:
        """Every call, ready to run, and the bytes that none can do without."""
        data = self.inputs(device)
        crops = {"interpolate": resized_frames} if self.antialias else {"grid_sample": grid_sample_crop, **OTHERS}
        forwards = {OURS: lambda: self.ours(data)}
        forwards |= {name: functools.partial(self.unfused, data, crop) for name, crop in crops.items()}
        calls = {name: self.passes(forward, data) for name, forward in forwards.items()}
        if self.has_simple_kernel and backends.choose(self.op, device, None) == "cuda":
            calls["simple kernel"] = by_simple_kernel(calls[OURS])
        return Prepared(calls, self.bytes(data))

    def inputs(self, device: torch.device) -> Inputs:
        """Random frames and boxes, always the same."""
        count, size = self.num_boxes or NUM_BOXES[device.type], self.frame_size
        generator = torch.Generator(device).manual_seed(0)
        random = functools.partial(torch.randint, generator=generator, device=device)
        frames = random(256, (count, self.channels, size, size), dtype=torch.uint8)
        frames = frames if self.dtype == torch.uint8 else (frames / 255).to(self.dtype)
        frames = frames.contiguous(memory_format=LAYOUTS[self.layout])
        if self.antialias:
            boxes = torch.tensor([[size / 2, size / 2, size, size]]).repeat(count, 1)
        else:
            boxes = random_boxes(count, self.patch, size, self.sides)
        grad = torch.randn((count, self.channels, *self.patch_shape), generator=generator, device=device)
        grad = grad.to(self.out_dtype)
        grad = grad.contiguous(memory_format=LAYOUTS[self.layout]) if self.patch_shape else grad
        mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (MEAN, STD))
        data = Inputs(frames, boxes.to(device), torch.arange(count, device=device), grad, mean, std)
        if self.gradient:
            getattr(data, self.gradient).requires_grad_()
        return data

    @property
    def patch_shape(self) -> tuple[int, ...]:
        """The shape of what is made of a channel of a box."""
        return self.patch, self.patch

    def ours(self, data: Inputs) -> Tensor:
        """The op."""
        return self.crop(data, out_dtype=self.out_dtype, **self.read_options(data))

    def crop(self, data: Inputs, **options: Any) -> Tensor:
        """The op, antialiased or not."""
        return crop_resize(data.frames, data.boxes, self.patch, antialias=self.antialias, **options)

    def read_options(self, data: Inputs) -> dict[str, Any]:
        """The op's arguments by which uint8 frames are gathered and normalised."""
        return {"frame_index": data.index, "mean": MEAN, "std": STD} if self.dtype == torch.uint8 else {}

    def unfused(self, data: Inputs, crop: CropFunction) -> Tensor:
        """The steps that the op replaces, around another crop."""
        return self.crops(data, crop).to(self.out_dtype).contiguous(memory_format=LAYOUTS[self.layout])

    def crops(self, data: Inputs, crop: CropFunction) -> Tensor:
        """Crops in float32 by another function. Frames of 16 bits become float32 first: others' positions have the
        frames' dtype, and would be a sixteenth of a pixel or more beside where they should be."""
        x = data.frames
        if self.dtype == torch.uint8:
            x = normalised(x.index_select(0, data.index), data)
        return crop(x.float(), data.boxes, self.patch)

    def passes(self, forward: Callable[[], Tensor], data: Inputs) -> Call:
        """The passes that are timed, of ours or of another."""
        if self.gradient is None:
            return lambda: (forward(),)
        wanted = getattr(data, self.gradient)
        if self.backward_only:
            saved = functools.cache(forward)
            return lambda: torch.autograd.grad(saved(), wanted, data.grad, retain_graph=True)

        def both() -> tuple[Tensor, ...]:
            out = forward()
            return out.detach(), *torch.autograd.grad(out, wanted, data.grad)

        return both

    def bytes(self, data: Inputs) -> int:
        """Bytes that must be read and written; four numbers of a box count for nothing."""
        read = touched_bytes(data.frames, data.boxes, self.patch, self.antialias)
        forward = read + data.grad.nbytes  # the result is as large as its gradient
        backward = {"boxes": read + data.grad.nbytes, "frames": data.frames.nbytes + data.grad.nbytes}
        if self.gradient is None:
            return forward
        return backward[self.gradient] + (0 if self.backward_only else forward)


def by_simple_kernel(call: Call) -> Call:
    """The call by the CUDA kernel that takes any call, where a faster one runs by itself."""

    def run() -> tuple[Tensor, ...]:
        os.environ["ADAFOCUS_CUDA_KERNEL"] = "any"
        try:
            return call()
        finally:
            del os.environ["ADAFOCUS_CUDA_KERNEL"]

    return run


def normalised(pixels: Tensor, data: Inputs) -> Tensor:
    """Pixels of 0 to 255 as normalised float32 images, step by step."""
    return pixels.float().div(255).sub(data.mean).div(data.std)


def grid_sample_crop(frames: Tensor, boxes: Tensor, patch: int) -> Tensor:
    """The crop of box k from frame k by affine_grid and grid_sample."""
    grid = F.affine_grid(
        _theta(boxes, frames.shape[-2:]), [len(boxes), frames.shape[1], patch, patch], align_corners=False
    )
    return F.grid_sample(frames, grid, align_corners=False)


def resized_frames(frames: Tensor, _boxes: Tensor, patch: int) -> Tensor:
    """Whole frames, antialiased."""
    return F.interpolate(frames, (patch, patch), mode="bilinear", align_corners=False, antialias=True)


def _theta(boxes: Tensor, frame_size: Sequence[int]) -> Tensor:
    """[K, 2, 3]: the boxes as affine_grid takes them, with the frame as [-1, 1] in x and y."""
    (cy, cx, h, w), (height, width) = boxes.unbind(1), frame_size
    zero = torch.zeros_like(cy)
    rows = [w / width, zero, 2 * cx / width - 1, zero, h / height, 2 * cy / height - 1]
    return torch.stack(rows, 1).view(-1, 2, 3)


def random_boxes(count: int, patch: int, frame_size: int, sides: tuple[float, float]) -> Tensor:
    """[count, 4]: boxes anywhere inside the frame, none with a sample within 1e-4 pixels of a pixel's position.

    There the value has a kink in the box, and float32 rounding would decide which side's derivative is taken.
    """
    a_y, a_x, a_h, a_w = torch.rand((4 * count, 4), generator=torch.Generator().manual_seed(0)).unbind(1)
    h, w = (sides[0] + a * (sides[1] - sides[0]) for a in (a_h, a_w))
    boxes = torch.stack([a_y * (frame_size - h) + h / 2, a_x * (frame_size - w) + w / 2, h, w], 1)
    steps = (torch.arange(patch) + 0.5) / patch - 0.5
    centre, extent = boxes.double()[:, :2, None], boxes.double()[:, 2:, None]
    position = centre + extent * steps - 0.5  # [4 count, (y, x), P]
    clear = ((position - position.round()).abs() > 1e-4).flatten(1).all(1)
    return boxes[clear][:count]


def touched_bytes(frames: Tensor, boxes: Tensor, patch: int, antialias: bool = False) -> int:
    """Bytes of the frames that crops of side `patch` must read, in whole sectors; box k reads frame k.

    Args:
        frames: [K, C, H, W], contiguous or channels_last.
        boxes: [K, 4] (cy, cx, h, w), h and w positive.
    """
    height, width = frames.shape[-2:]
    cy, cx, h, w = boxes.detach().double().unbind(1)
    scanlines = _pixels_read(cy, h, patch, height, antialias)  # [K, H]
    columns = _pixels_read(cx, w, patch, width, antialias)  # [K, W]
    return sector_bytes(frames, scanlines, columns)


def _pixels_read(centre: Tensor, extent: Tensor, patch: int, size: int, antialias: bool) -> Tensor:
    """[K, size] bool: the pixels of an axis that have a weight in any of the footprints."""
    centre, extent = centre[:, None], extent[:, None]
    pixel = torch.arange(size, device=centre.device) + 0.5
    step = extent / patch
    nearest = ((pixel - centre) / step + (patch - 1) / 2).round().clamp(0, patch - 1)
    distance = (pixel - centre - step * (nearest - (patch - 1) / 2)).abs()
    if not antialias:
        return distance < 1
    return (distance < step.clamp(min=1)) & ((pixel - centre).abs() < extent.clamp(min=1) / 2 + 0.5)


# --- the cases -----------------------------------------------------------------------------------------------------


def in_both_layouts(crop: Crop, cpu: float | None = None, cuda: Targets | None = None, **options: Any) -> list[Case]:
    """A crop in both layouts; cpu: times faster than the rival on a CPU."""
    targets = {"cpu": Targets(ratio=cpu)} | ({"cuda": cuda} if cuda else {})
    return [replace(crop, layout=layout).case(targets, **options) for layout in LAYOUTS]


FORWARD, LAUNCH = Targets(ratio=5, bandwidth=0.6), Targets(microseconds=6)
BACKWARD = {"boxes": Targets(ratio=5, bandwidth=0.7), "frames": Targets(ratio=5, bandwidth=0.75)}

U8, F16, BF16, F32 = torch.uint8, torch.float16, torch.bfloat16, torch.float32
MAPS = {"channels": 1280, "frame_size": 7, "sides": (3, 7)}  # MobileNetV2's, with the boxes of crops of 96 px

CASES = [
    *in_both_layouts(Crop(96, U8), cpu=15, cuda=FORWARD),
    *in_both_layouts(Crop(128, U8), cpu=12, cuda=FORWARD),
    *in_both_layouts(Crop(96, U8, out_dtype=F16), cuda=FORWARD),
    *in_both_layouts(Crop(128, U8, out_dtype=F16), cuda=FORWARD),
    *in_both_layouts(Crop(96, U8, out_dtype=F16, num_boxes=16), cuda=LAUNCH, launch_bound=True),
    *in_both_layouts(Crop(96, F32), cpu=2.5, cuda=FORWARD),
    *in_both_layouts(Crop(128, F32), cpu=2.5, cuda=FORWARD),
    *in_both_layouts(Crop(96, F16, out_dtype=F16), cuda=FORWARD),
    *in_both_layouts(Crop(96, BF16, out_dtype=BF16), cuda=FORWARD),
    *in_both_layouts(Crop(96, F32, gradient="boxes"), cpu=6),
    *in_both_layouts(Crop(128, F32, gradient="boxes"), cpu=6),
    *in_both_layouts(Crop(96, F32, gradient="frames")),
    *in_both_layouts(Crop(128, F32, gradient="frames")),
    *(
        case
        for gradient, targets in BACKWARD.items()
        for crop in (Crop(96, F32), Crop(128, F32), Crop(96, F16, out_dtype=F16))
        for case in in_both_layouts(replace(crop, gradient=gradient, backward_only=True), cuda=targets)
    ),
    *in_both_layouts(Crop(96, F32, antialias=True)),
    *in_both_layouts(Crop(96, U8, out_dtype=F16, antialias=True)),
    *in_both_layouts(Crop(3, F16, out_dtype=F16, num_boxes=16, **MAPS), cuda=LAUNCH, launch_bound=True),
    *in_both_layouts(Crop(3, F32, **MAPS)),
    *in_both_layouts(Crop(3, F32, gradient="boxes", **MAPS)),
]


def crop_series(num_boxes: int, counts: Sequence[int]) -> list[Series]:
    """The series of crop_resize; num_boxes where it does not vary."""
    crop = Crop(96, U8, "channels_last", out_dtype=F16, num_boxes=num_boxes)
    sizes, sides = (64, 96, 128, 160, 224), (224, 448, 896)
    return [
        Series("boxes", 1, {count: replace(crop, num_boxes=count) for count in counts}),
        Series("pixels of a crop", 1, {size**2: replace(crop, patch=size) for size in sizes}),
        Series("pixels of a frame", 0, {side**2: replace(crop, frame_size=side) for side in sides}),
    ]


SERIES = {
    "cpu": crop_series(NUM_BOXES["cpu"], [12, 48, 192]),
    "cuda": crop_series(NUM_BOXES["cuda"], [1, 16, 128, 512, 1536, 6144]),
}
