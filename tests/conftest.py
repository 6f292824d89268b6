"""What all tests share: the backends under test, and a summary of which of them ran."""

import collections
import importlib.util
import os
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

_ran: collections.Counter = collections.Counter()
_skipped: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)


def pytest_addoption(parser):
    parser.addoption(
        "--require-backend",
        action="append",
        default=[],
        choices=BACKENDS,
        help="fail instead of skipping where this backend cannot run (may be repeated)",
    )


def pytest_configure(config):
    torch.set_num_threads(2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Triton's interpreter takes seconds for a test: the conformance suite shows it each dtype in one layout, the other
    tests float32 and uint8; all of it with -m slow. (On a GPU nothing is left out.)"""
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
        if not usual:
            item.add_marker(pytest.mark.slow)


def device_of(backend: str) -> str:
    """The device whose tensors a backend is tested on."""
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    return "cuda" if backend in ("cuda", "triton") and not interpreted else "cpu"


def is_emulated(backend: str) -> bool:
    """Whether a GPU's kernels run on the CPU, thread by thread: right, but too slow for many boxes."""
    return backend == "cuda-host" or (backend == "triton" and device_of(backend) == "cpu")


def require_backend(request, op: str, backend: str, device: str) -> None:
    """Skips the test, with the reason, if the backend cannot run the op; fails if it must."""
    reason = backends.why_not(backend, op, device)
    if reason is None and device == "cuda" and not torch.cuda.is_available():
        reason = "there is no GPU"
    if reason is None:
        _ran[backend] += 1
        return
    _skipped[backend][reason] += 1
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
    terminalreporter.section("backends")
    for backend in BACKENDS:
        skipped = "; ".join(f"{count} skipped: {reason}" for reason, count in _skipped[backend].items())
        terminalreporter.line(f"{backend:<10} {_ran[backend]} ran  {skipped}")
