"""Growth of an op's cost with its input."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from adafocus_ops import use_backend
from bench.harness.case import OURS, Case, Targets, check, check_layout, reference_results
from bench.harness.measuring import time_calls
from bench.harness.records import Record
from bench.harness.timing import stats

FITTED_POINTS = 3  # the last ones: before them, what a call costs without any work may show


class Workload(Protocol):
    """One input of an op, as its cases are made of."""

    op: str

    def case(self, targets: dict[str, Targets]) -> Case:
        """The workload as something to time."""

    def smaller(self) -> "Workload":
        """One like it that the reference can do too, to be checked in its place."""


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


def measure_series(series: Series, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> list[Record]:
    """Checks every point of a series on a smaller one like it, times all in turns, and returns a record each.

    Raises:
        MismatchError: a result is wrong.
    """
    cases = {value: workload.case({}) for value, workload in series.workloads.items()}
    with use_backend(backend):
        checks = {value: check_workload(workload.smaller(), device) for value, workload in series.workloads.items()}
        calls = {value: case.prepare(device).calls[OURS] for value, case in cases.items()}
        counts = {value: len(call()[0]) for value, call in calls.items()}
        times = time_calls(calls, device, runs)
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
    """The record's note that a workload's results are right.

    Raises:
        MismatchError: they are not.
    """
    case = workload.case({})
    prepared = case.prepare(device)
    results = prepared.calls[OURS]()
    check_layout(case, results[0])
    error = check(case, OURS, results, prepared, reference_results(case, prepared))
    return {"passed": True, "max_error": error, "tolerance": case.tolerance, "unit": case.unit}


def exponent(times: dict[int, float]) -> float:
    """The power of the value that the times grow with, by least squares over the largest values."""
    values, ms = zip(*sorted(times.items())[-FITTED_POINTS:], strict=True)
    return float(np.polyfit(np.log(values), np.log(ms), 1)[0])
