"""What a form of a layer or module is measured by: how far its result is from the right one, and its time."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

Call = Callable[[], Any]

# Largest allowed `form_error` from the folded layer or module in float32 (float64), beyond which a form must be at most
# so many times as far away as the plain one in the same dtype.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}
TIMES_AS_FAR = 3

CACHE_BYTES = 2**27  # more than twice the second-level cache of any GPU
CALLS_IN_GRAPH = 10


def cudnn_searches() -> AbstractContextManager:
    """Within the block, cuDNN times its algorithms for every new shape and keeps the fastest; other settings stay."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled=True, benchmark=True, deterministic=cudnn.deterministic, allow_tf32=cudnn.allow_tf32)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest expected value; infinite where a NaN or another shape is."""
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny) if expected.numel() else 1.0
    error = ((found.to(expected.dtype) - expected).abs() / scale).max() if expected.numel() else torch.zeros(())
    return float(error.nan_to_num(nan=torch.inf))


def form_error(found: Tensor, expected: Tensor) -> float:
    """How far a form's result is from the expected one: their distance as a share of its norm; or a tenth of
    `relative_error`, where that is more, since the largest of many rounding errors is several times as large as they
    are, and a single wrong number weighs little in a norm."""
    largest = relative_error(found, expected)
    if not expected.numel() or largest == float("inf"):
        return largest
    norm = expected.norm().clamp(min=torch.finfo(expected.dtype).tiny)
    return max(float((found.to(expected.dtype) - expected).norm() / norm), largest / 10)


def error_limit(dtype: torch.dtype, plain_error: float) -> float:
    """The error that a form may have, given that of the plain one."""
    return max(TOLERANCE[dtype], TIMES_AS_FAR * plain_error)


def poison(like: Tensor) -> None:
    """Leaves NaN in the memory that a result like this one will probably be given: what is not written shows."""
    blocks = [torch.full_like(like, torch.nan) for _ in range(3)]
    del blocks  # in the allocator's hands again


def median_ms(
    calls: Mapping[str, Call], device: torch.device, *, seconds: float, as_graphs: bool = True
) -> dict[str, float]:
    """Median milliseconds of each call, all taking turns, in about so many seconds: 3 runs at least, 30 at most.

    Args:
        as_graphs: on a GPU, ten runs of a call as one launch, so that the time is the GPU's and not the host's.
    """
    as_graphs = as_graphs and device.type == "cuda"
    timed = _as_graphs(calls, device) if as_graphs else calls
    stopwatch = _gpu_ms if device.type == "cuda" else _cpu_ms
    for call in timed.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in timed}
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or (rounds < 30 and time.perf_counter() - start < seconds):
        for name, call in timed.items():
            times[name].append(stopwatch(call))
        rounds += 1
    repeats = CALLS_IN_GRAPH if as_graphs else 1
    return {name: sorted(values)[len(values) // 2] / repeats for name, values in times.items()}


def copies_beyond_cache(x: Tensor) -> list[Tensor]:
    """x and copies of it, together larger than the cache, so that a call on one after the other finds none there."""
    count = 1 if x.device.type == "cpu" else max(1, -(-CACHE_BYTES // max(x.nbytes, 1)))
    return [x, *(x.clone() for _ in range(min(count, CALLS_IN_GRAPH) - 1))]


def _as_graphs(calls: Mapping[str, Call], device: torch.device) -> dict[str, Call]:
    """Ten runs of each call as one launch."""
    graphs = {}
    for name, call in calls.items():
        for _ in range(3):
            call()  # the first ones also choose algorithms
        torch.cuda.synchronize(device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(CALLS_IN_GRAPH):
                call()
        graphs[name] = graph.replay
    return graphs


def _cpu_ms(call: Call) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _gpu_ms(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)
