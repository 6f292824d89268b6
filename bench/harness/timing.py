"""Timing of several calls side by side, and peak memory."""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

Call = Callable[[], Any]

FLUSHED_BYTES = 2**30


def interleave(
    calls: Mapping[str, Call],
    device: torch.device,
    *,
    runs: int,
    warmup: int = 3,
    max_seconds: float = float("inf"),
    min_runs: int = 3,
    settle: int = 0,
    on_round: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of every run of every call, all taking turns, so that a machine that slows down slows all.

    Args:
        runs, warmup: rounds that count, and rounds before them that do not.
        settle: untimed runs of a call right before each timed one, so that it finds its own data in the
            caches and not those of the call before it.
        max_seconds: no further round starts after this long, but at least min_runs count.
        on_round: called after every round, warm-up included.
    """
    stopwatch = _cuda_ms if device.type == "cuda" else _cpu_ms
    times = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(-warmup, runs):
        if done >= min_runs and time.perf_counter() - start > max_seconds:
            break
        for name, call in calls.items():
            for _ in range(settle):
                call()
            elapsed = stopwatch(call, device)
            if done >= 0:
                times[name].append(elapsed)
        on_round()
    return times


def stats(times: list[float]) -> dict[str, float]:
    """The 20th, 50th and 80th percentile of run times in milliseconds, and how many there were."""
    p20, p50, p80 = np.percentile(times, (20, 50, 80)).tolist()
    return {"p20_ms": p20, "p50_ms": p50, "p80_ms": p80, "n": len(times)}


def _cpu_ms(call: Call, _device: torch.device) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _cuda_ms(call: Call, device: torch.device) -> float:
    _flush(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _flush(device: torch.device) -> None:
    """Leaves nothing of the last run in the cache: small inputs would otherwise be timed from there.

    It writes far more than any cache holds, so that it is still at work when the host has queued the call:
    the time is that of the GPU's work, not of how fast Python launches it.
    """
    torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=device).zero_()


def graph_of(call: Call, repeats: int) -> Call:
    """Runs of a call, one after the other, as one launch: each then takes its time on the GPU alone."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()  # the first one also chooses algorithms and fills caches
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return graph.replay


def count_launches(call: Call) -> int:
    """Kernels, copies and fills that a call starts on the GPU."""
    call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA
    return sum(event.count for event in profile.key_averages() if event.device_type == on_gpu)


def peak_memory_mib(call: Call, device: torch.device) -> float | None:
    """Memory that a call needs at its peak beyond what was in use before, in MiB; None where it cannot be read.

    On a GPU that of torch's allocator; on a CPU the growth of the process's resident set (Linux only).
    """
    call()  # the first one also chooses algorithms and fills caches
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        # Give freed memory back first: pages that the allocator kept would hide what the call needs.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _status_mib("VmRSS")
        call()
        return _status_mib("VmHWM") - before
    except (OSError, AttributeError):
        return None


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 2**10
