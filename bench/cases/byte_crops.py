"""Crops of bytes by whole-pixel boxes, beside what libraries of images make of the same slices."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from adafocus_ops.boxes import to_xyxy
from bench.cases.crop_resize import MEAN, NUM_BOXES, STD, Crop, Inputs, grid_sample_crop, normalised
from bench.harness.case import LAYOUTS, OURS, Case, Prepared, Targets
from third_party import opencv_adapter, pillow_adapter

U8, F32 = torch.uint8, torch.float32


@dataclass(frozen=True)
class ByteCrop(Crop):
    """crop_resize of smooth frames, one box a frame, whose corners lie between pixels: a slice.

    Boxes are no smaller than the patch: others' samples outside a slice repeat its edge, ours go on in the frame.
    """

    dtype: torch.dtype = U8
    out_dtype: torch.dtype = U8
    sides: tuple[float, float] = (128, 224)

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The crop as something to time."""
        case = super().case(targets, launch_bound)
        rival = "OpenCV resize" if find_spec("cv2") and not self.antialias else case.reference
        return replace(case, rival=rival, device_types=("cpu",))  # where these libraries work

    @property
    def tolerance(self) -> float:
        """Two levels of 255: what others' positions in fixed point, and their rounding to bytes, come to."""
        return 2.01 / 255

    @property
    def name(self) -> str:
        """As of other crops, and the boxes."""
        return super().name.replace(self.op, f"{self.op} of slices", 1)

    @property
    def input(self) -> str:
        """The input in words, with {} for how many."""
        return f"{{}} slices of {self.sides[0]} to {self.sides[1]} px, one a frame of {self.frame_size} px"

    def inputs(self, device: torch.device) -> Inputs:
        """Smooth frames and slices of them, always the same."""
        count, size = self.num_boxes or NUM_BOXES[device.type], self.frame_size
        generator = torch.Generator().manual_seed(0)
        small = torch.rand((count, self.channels, 29, 29), generator=generator)
        frames = F.interpolate(small, (size, size), mode="bicubic").clamp(0, 1).mul(255).to(U8)
        frames = frames.contiguous(memory_format=LAYOUTS[self.layout]).to(device)
        sides = torch.randint(int(self.sides[0]), int(self.sides[1]) + 1, (count, 2), generator=generator)
        corners = (torch.rand((count, 2), generator=generator) * (size + 1 - sides)).floor()
        boxes = torch.cat([corners + sides / 2, sides], 1).float().to(device)
        grad = torch.empty((count, self.channels, *self.patch_shape), dtype=self.out_dtype, device=device)
        mean, std = (torch.tensor(value, device=device).view(3, 1, 1) for value in (MEAN, STD))
        return Inputs(frames, boxes, torch.arange(count, device=device), grad, mean, std)

    def ours(self, data: Inputs) -> Tensor:
        """The op, which normalises what becomes a float."""
        normalise = {} if self.out_dtype == U8 else {"mean": MEAN, "std": STD}
        return self.crop(data, out_dtype=self.out_dtype, **normalise)

    def prepare(self, device: torch.device) -> Prepared:
        """Every call, ready to run, and the bytes that none can do without."""
        data = self.inputs(device)
        calls = {OURS: lambda: self.ours(data)} | self.others(data)
        return Prepared({name: self.passes(call, data) for name, call in calls.items()}, self.bytes(data))

    def others(self, data: Inputs) -> dict[str, Callable[[], Tensor]]:
        """By name: the steps in torch first, which are the reference."""
        frames, boxes, patch = data.frames, data.boxes, self.patch
        if self.antialias:
            images = functools.cache(lambda: pillow_adapter.images_of(frames))
            slices = [
                frame[:, y0:y1, x0:x1][None]
                for frame, (x0, y0, x1, y1) in zip(frames, to_xyxy(boxes).int().tolist(), strict=True)
            ]
            size = {"size": (patch, patch), "mode": "bilinear", "antialias": True}
            return {
                "interpolate": lambda: torch.cat([F.interpolate(x, **size) for x in slices]),
                "Pillow": lambda: pillow_adapter.resize(images(), boxes, patch),
            }
        if self.out_dtype == U8:
            return {
                "grid_sample": lambda: grid_sample_crop(frames.float(), boxes, patch).round().to(U8),
                "OpenCV resize": lambda: opencv_adapter.resize(frames, boxes, patch),
                "OpenCV warpAffine": lambda: opencv_adapter.warp_affine(frames, boxes, patch),
            }
        return {
            "grid_sample": lambda: normalised(grid_sample_crop(frames.float(), boxes, patch), data),
            "OpenCV resize": lambda: normalised(opencv_adapter.resize(frames, boxes, patch), data),
            "OpenCV blobFromImages": lambda: opencv_adapter.blob_from_images(frames, boxes, patch, MEAN, STD),
        }


CASES = [
    replace(crop, layout=layout).case({"cpu": Targets(ratio=1)})
    for crop in (
        *(ByteCrop(patch, out_dtype=out) for out in (U8, F32) for patch in (96, 128)),
        *(ByteCrop(patch, antialias=True) for patch in (96, 128)),
    )
    for layout in LAYOUTS
]
