"""How the cost of a crop grows: with the boxes and with the area of the crop, but not with the frame's size."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from _cases import OURS, check, check_layout
from _crops import NUM_BOXES, Crop
from _rows import Row
from _timing import interleave, stats
from adafocus_ops import use_backend

CHECKED_BOXES = 16  # the baseline takes many times the memory
FITTED_POINTS = 3  # the last ones: before them, what a call costs without any work may show


@dataclass(frozen=True)
class Series:
    """Crops that differ in one value."""

    name: str
    law: float  # largest power of the value that the time may grow with
    crops: dict[int, Crop]  # by the value

    @property
    def op(self) -> str:
        """The op that is timed."""
        return next(iter(self.crops.values())).op


def crop_series(num_boxes: int, counts: list[int]) -> list[Series]:
    """The series of crop_resize; num_boxes where it does not vary."""
    crop = Crop(96, torch.uint8, "channels_last", out_dtype=torch.float16, num_boxes=num_boxes)
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


def measure_series(series: Series, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> list[Row]:
    """Checks every point of a series on a few of its boxes, times all in turns, and returns a row each.

    Raises:
        MismatchError: a result differs from the baseline's.
    """
    with use_backend(backend):
        checks = {value: check_crop(crop, device) for value, crop in series.crops.items()}
        calls = {value: crop.prepare(device).calls[OURS] for value, crop in series.crops.items()}
        times = interleave(calls, device, runs=runs, settle=1 if device.type == "cpu" else 0)
    timings = {value: stats(values) for value, values in times.items()}
    power = exponent({value: timing["p50_ms"] for value, timing in timings.items()})
    return [
        {
            "what": "scaling",
            "op": series.op,
            "case": f"{series.name}: {value}",
            "series": series.name,
            "value": value,
            "exponent": power,
            "law": series.law,
            "input": f"{crop.num_boxes} {crop.input}",
            "device": env["device"],
            "dtype": str(crop.dtype).removeprefix("torch."),
            "layout": crop.layout,
            "mode": crop.mode,
            "backend": backend,
            "threads": env["threads"],
            "stats": timings[value],
            "check": checks[value],
            "ratios": {},
            "env": env,
        }
        for value, crop in series.crops.items()
    ]


def check_crop(crop: Crop, device: torch.device) -> dict[str, Any]:
    """That the first boxes of a crop are right, as a row keeps it."""
    case = replace(crop, num_boxes=min(crop.num_boxes, CHECKED_BOXES)).case(targets={})
    calls = case.prepare(device).calls
    result = calls[OURS]()
    check_layout(case, result[0])
    error = check(case, OURS, result, calls[case.baseline]())
    return {"passed": True, "max_error": error, "tolerance": case.tolerance}


def exponent(times: dict[int, float]) -> float:
    """The power of the value that the times grow with, by least squares over the largest values."""
    values, ms = zip(*sorted(times.items())[-FITTED_POINTS:], strict=True)
    return float(np.polyfit(np.log(values), np.log(ms), 1)[0])
