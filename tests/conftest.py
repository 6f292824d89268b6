"""What all tests share: the backends under test, and a summary of which of them ran."""

import collections
import ctypes
import gc
import importlib.util
import os
import platform
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before Triton is imported

import cuda_on_host.backend
from adafocus_ops import backends

if os.environ.get("TRITON_INTERPRET") == "1" and importlib.util.find_spec("triton"):
    import triton_interpreter

    triton_interpreter.install()

ORACLES = Path(__file__).parent / "oracles"
# Beside those of the library, the CUDA kernels' source run on the host.
BACKENDS = (*backends.BACKENDS, "cuda-host")
cuda_on_host.backend.install()

MOST_WORKERS = 8  # each takes a gigabyte, and of a GPU's memory half of one


def pytest_addoption(parser):
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        choices=BACKENDS,
        help="fail instead of skipping where this backend cannot run (may be repeated)",
    )


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pytest_xdist_auto_num_workers() -> int:
    return min(usable_cores(), MOST_WORKERS)


@pytest.fixture(scope="module", autouse=True)
def _memory_goes_back():
    """To the system, after every module of tests, whatever an engine in it has asked for: else a worker comes to hold
    ten gigabytes that nothing uses, and a test that watches its memory sees what others left."""
    yield
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for threshold in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(threshold, 128 * 1024)
        libc.malloc_trim(0)


def pytest_configure():
    """Workers share the cores; a test alone has two threads. (Tests of threads ask for as many as they need.)"""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    torch.set_num_threads(2 if workers == 1 else max(1, min(2, usable_cores() // workers)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Triton's interpreter takes seconds for a test: the conformance suite shows it each dtype in one layout, the other
    tests float32 and uint8, and those marked slow_if_interpreted nothing; all of it with -m slow. (On a GPU nothing is
    left out.)"""
    if not is_emulated("triton"):
        return
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("backend") != "triton":
            continue
        if "spec" in params:
            layouts, dtypes = params["spec"].examples.layouts, params["spec"].examples.dtypes
            usual = "layout" not in params or "dtype" not in params
            usual = usual or params["layout"] == layouts[dtypes.index(params["dtype"]) % len(layouts)]
        else:
            usual = params.get("dtype", torch.float32) in (torch.float32, torch.uint8)
        if not usual or item.get_closest_marker("slow_if_interpreted"):
            item.add_marker(pytest.mark.slow)


def device_of(backend: str) -> str:
    """The device whose tensors a backend is tested on."""
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    return "cuda" if backend in ("cuda", "triton") and not interpreted else "cpu"


def on_device(device: str, value: object) -> object:
    """A tensor of the CPU moved there; one of another device, or what is none, as it is."""
    return value.to(device) if isinstance(value, torch.Tensor) and value.is_cpu else value


def is_emulated(backend: str) -> bool:
    """Whether a GPU's kernels run on the CPU, thread by thread: right, but too slow for many boxes."""
    return backend == "cuda-host" or (backend == "triton" and device_of(backend) == "cpu")


def require_backend(request, op: str, backend: str, device: str) -> None:
    """Skips the test, with the reason, if the backend cannot run the op; fails if it must."""
    reason = backends.why_not(backend, op, device)
    if reason is None and device == "cuda" and not torch.cuda.is_available():
        reason = "there is no GPU"
    request.node.user_properties.append((backend, reason))
    if reason is None:
        return
    required = backend in request.config.getoption("--require-backend")
    if required and backends.implements(backend, op):
        pytest.fail(f"backend {backend} is required: {reason}")
    pytest.skip(f"backend {backend}: {reason}")


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    return request.param


@pytest.fixture
def device(backend) -> str:
    return device_of(backend)


@pytest.fixture
def crop_resize_runs(request, backend) -> None:
    """Every test that uses it runs on each backend that can run crop_resize here."""
    require_backend(request, "crop_resize", backend, device_of(backend))


def pytest_terminal_summary(terminalreporter):
    """Which backends the tests ran on: what `require_backend` noted in the reports, which workers send as well."""
    noted = {
        (report.nodeid, backend, reason)
        for reports in terminalreporter.stats.values()
        for report in reports
        for backend, reason in getattr(report, "user_properties", ())
    }
    terminalreporter.section("backends")
    for name in BACKENDS:
        reasons = collections.Counter(reason for _, backend, reason in noted if backend == name)
        ran = reasons.pop(None, 0)
        skipped = "; ".join(f"{count} skipped: {reason}" for reason, count in reasons.items())
        terminalreporter.line(f"{name:<10} {ran} ran  {skipped}")
