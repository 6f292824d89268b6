"""How the cost of an op grows with its input."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from _cases import OURS, Case, Targets, check, check_layout
from _crops import NUM_BOXES, Crop
from _rows import Row
from _sampling import Draws, Expectation
from _selection import Gate
from _timing import interleave, stats
from adafocus_ops import use_backend

FITTED_POINTS = 3  # the last ones: before them, what a call costs without any work may show


class Workload(Protocol):
    """What a case is made of."""

    op: str

    def case(self, targets: dict[str, Targets]) -> Case:
        """Itself, as something to time."""

    def smaller(self) -> "Workload":
        """One like it that the baseline can do too, to be checked in its place."""


@dataclass(frozen=True)
class Series:
    """Workloads that differ in one value."""

    name: str
    law: float  # largest power of the value that the time may grow with
    workloads: dict[int, Workload]  # by the value

    @property
    def op(self) -> str:
        """The op that is timed."""
        return next(iter(self.workloads.values())).op


def crop_series(num_boxes: int, counts: list[int]) -> list[Series]:
    """The series of crop_resize; num_boxes where it does not vary."""
    crop = Crop(96, torch.uint8, "channels_last", out_dtype=torch.float16, num_boxes=num_boxes)
    sizes, sides = (64, 96, 128, 160, 224), (224, 448, 896)
    return [
        Series("boxes", 1, {count: replace(crop, num_boxes=count) for count in counts}),
        Series("pixels of a crop", 1, {size**2: replace(crop, patch=size) for size in sizes}),
        Series("pixels of a frame", 0, {side**2: replace(crop, frame_size=side) for side in sides}),
    ]


def selection_series(rows: int, depths: list[int], samples: list[int], gated: list[int]) -> list[Series]:
    """The series of the ops that choose; `rows` of them where it does not vary."""
    draws, expectation = Draws(16, 5, num_rows=rows), Expectation(16, 5, 200, num_rows=rows)
    items = (16, 64, 256, 1024)
    return [
        Series("weighted_sample: samples", 1, {n: replace(draws, num_samples=n) for n in samples}),
        Series("weighted_sample: items", 1, {n: replace(draws, items=n, num_samples=32) for n in items}),
        Series("expected_value: samples", 1, {n: replace(expectation, num_samples=n) for n in samples}),
        # One small product grows with it; the draws do not.
        Series("expected_value: depth of the values", 0, {n: replace(expectation, depth=n) for n in depths}),
        Series("exit_gate: rows", 1, {n: Gate(n, 400) for n in gated}),
    ]


SERIES = {
    "cpu": [
        *crop_series(NUM_BOXES["cpu"], [12, 48, 192]),
        *selection_series(64, depths=[25, 50, 100, 200], samples=[32, 128, 512], gated=[256, 1024, 4096]),
    ],
    "cuda": [
        *crop_series(NUM_BOXES["cuda"], [1, 16, 128, 512, 1536, 6144]),
        *selection_series(
            128,
            depths=[25, 50, 100, 200, 400],
            samples=[32, 128, 512, 2048, 8192],
            gated=[128, 1024, 4096, 32768, 262144],
        ),
    ],
}


def measure_series(series: Series, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> list[Row]:
    """Checks every point of a series on a smaller one like it, times all in turns, and returns a row each.

    Raises:
        MismatchError: a result is wrong.
    """
    cases = {value: workload.case({}) for value, workload in series.workloads.items()}
    with use_backend(backend):
        checks = {value: check_workload(workload.smaller(), device) for value, workload in series.workloads.items()}
        calls = {value: case.prepare(device).calls[OURS] for value, case in cases.items()}
        counts = {value: len(call()[0]) for value, call in calls.items()}
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
            "input": case.input.format(counts[value]),
            "device": env["device"],
            "dtype": case.dtype,
            "layout": case.layout,
            "mode": case.mode,
            "backend": backend,
            "threads": env["threads"],
            "stats": timings[value],
            "check": checks[value],
            "ratios": {},
            "env": env,
        }
        for value, case in cases.items()
    ]


def check_workload(workload: Workload, device: torch.device) -> dict[str, Any]:
    """That a workload's results are right, as a row keeps it."""
    case = workload.case({})
    prepared = case.prepare(device)
    results = prepared.calls[OURS]()
    check_layout(case, results[0])
    error = check(case, OURS, results, prepared, prepared.calls[case.baseline]())
    return {"passed": True, "max_error": error, "tolerance": case.tolerance, "unit": case.unit}


def exponent(times: dict[int, float]) -> float:
    """The power of the value that the times grow with, by least squares over the largest values."""
    values, ms = zip(*sorted(times.items())[-FITTED_POINTS:], strict=True)
    return float(np.polyfit(np.log(values), np.log(ms), 1)[0])
