"""Measuring of a case: its check, its time beside the rival's and the others', and its record."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from adafocus_ops import use_backend
from bench.harness.case import (
    OURS,
    Call,
    Case,
    MismatchError,
    Prepared,
    Targets,
    check,
    check_layout,
    reference_results,
)
from bench.harness.records import Record
from bench.harness.timing import count_launches, graph_of, interleave, stats

CALLS_IN_GRAPH = 20
GRAPHS_LEAVE_OUT = "others are not captured in a CUDA graph"


def measure(case: Case, device: torch.device, backend: str, runs: int, env: dict[str, Any]) -> Record:
    """Checks a case, times it, and returns its record; others that cannot run it or differ are left out, with a reason.

    Raises:
        MismatchError: our result or the rival's differs from the reference's.
    """
    prepared = case.prepare(device)
    calls = prepared.calls
    calls[OURS] = on_backend(backend, calls[OURS])
    expected = checked_reference(case, prepared)
    results = calls[OURS]()
    max_error = check(case, f"{OURS} ({backend})", results, prepared, expected)
    check_layout(case, results[0])
    as_graph = case.launch_bound and device.type == "cuda"
    absent = {}
    for name in [name for name in calls if name not in (OURS, case.reference, case.rival)]:
        reason = f"{case.name}: {GRAPHS_LEAVE_OUT}" if as_graph else why_not(case, name, prepared, expected)
        if reason:
            absent[name] = reason
            del calls[name]
    launches = {name: count_launches(call) for name, call in calls.items()} if as_graph else None
    waiting = {case.rival} if case.rival_waits else set()
    times = time_in_graphs(calls, device, runs, waiting) if as_graph else time_calls(calls, device, runs)
    others = {name: stats(values) for name, values in times.items()}
    ours = others.pop(OURS)
    gb_per_s = prepared.bytes / ours["p50_ms"] / 1e6
    targets = case.targets.get(device.type, Targets())
    return {
        "what": "ops",
        "op": case.op,
        "case": case.name,
        "input": case.input.format(len(results[0])),
        "device": env["device"],
        "device_type": device.type,
        "dtype": case.dtype,
        "layout": case.layout,
        "mode": case.mode,
        "backend": backend,
        "threads": env["threads"],
        "stats": ours,
        "bandwidth": {"bytes": prepared.bytes, "gb_per_s": gb_per_s, "share": gb_per_s / env["copy_gb_per_s"]},
        "launches": launches,
        "rival": case.rival,
        "others": others,
        "absent": absent,
        "check": {"passed": True, "max_error": max_error, "tolerance": case.tolerance, "unit": case.unit},
        "ratios": {name: timing["p50_ms"] / ours["p50_ms"] for name, timing in others.items()},
        "at_least": targets.ratio,
        "bandwidth_at_least": targets.bandwidth,
        "at_most_us": targets.microseconds,
        "env": env,
    }


def checked_reference(case: Case, prepared: Prepared) -> tuple[Tensor, ...]:
    """The reference's results, once they and those of a rival that does as much are right themselves.

    Raises:
        MismatchError: one of them is not.
    """
    expected = reference_results(case, prepared)
    if case.reference in prepared.calls:
        check(case, case.reference, expected, prepared, expected)
    if case.rival != case.reference and not case.rival_does_less:
        check(case, case.rival, prepared.calls[case.rival](), prepared, expected)
    return expected


def why_not(case: Case, name: str, prepared: Prepared, expected: tuple[Tensor, ...]) -> str | None:
    """The reason why one of the others is not timed: it is not installed, cannot do this or does something else."""
    try:
        check(case, name, prepared.calls[name](), prepared, expected)
    except (ImportError, NotImplementedError, MismatchError) as reason:
        return str(reason)
    return None


def time_calls(calls: dict[str, Call], device: torch.device, runs: int) -> dict[str, list[float]]:
    """Milliseconds of every run: on a GPU with a cold cache, on a CPU finding its data where a run before left it."""
    return interleave(calls, device, runs=runs, settle=1 if device.type == "cpu" else 0)


def time_in_graphs(
    calls: dict[str, Call], device: torch.device, runs: int, waiting: Collection[str] = ()
) -> dict[str, list[float]]:
    """Milliseconds of every call, of many one after the other on the GPU, without the time the host takes for each.

    Calls that wait for the host are timed by themselves: waiting is part of their time.
    """
    count = {name: 1 if name in waiting else CALLS_IN_GRAPH for name in calls}
    graphs = {name: call if name in waiting else graph_of(call, CALLS_IN_GRAPH) for name, call in calls.items()}
    times = interleave(graphs, device, runs=runs)
    return {name: [value / count[name] for value in values] for name, values in times.items()}


def on_backend(backend: str, call: Call) -> Call:
    """The call with every op on one backend."""

    def run() -> tuple[Tensor, ...]:
        with use_backend(backend):
            return call()

    return run
