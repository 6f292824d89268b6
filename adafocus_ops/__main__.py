"""`python -m adafocus_ops`: what is available here, why the rest is not, and a self-check."""

import importlib.util
import itertools
import platform
import sys
from typing import Any

import numpy
import torch
from torch import Tensor

from . import __version__, _extension, backends
from .examples import EXAMPLES


def versions() -> str:
    """One line of versions."""
    triton = importlib.util.find_spec("triton")
    cuda = torch.version.cuda or "none"
    return (
        f"adafocus {__version__}, Python {platform.python_version()}, torch {torch.__version__} (CUDA {cuda}), "
        f"numpy {numpy.__version__}, triton {'installed' if triton else 'not installed'}"
    )


def backend_table() -> str:
    """Which ops each backend has, and why not the others."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [f"backends for {device.upper()} tensors:"]
    for backend in backends.BACKENDS:
        ops_by_reason: dict[str | None, list[str]] = {}
        for op in backends.ops():
            ops_by_reason.setdefault(backends.why_not(backend, op, device), []).append(op)
        for reason, ops in ops_by_reason.items():
            which = "all ops" if len(ops_by_reason) == 1 else ", ".join(ops)
            lines.append(f"  {backend:<10} {'available' if reason is None else 'no: ' + reason} ({which})")
    return "\n".join(lines)


def _checked_results(op: str, device: str) -> list[Tensor]:
    """The results of the op's first small example in float32, brought to the CPU."""

    def there(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    example = next(EXAMPLES[op].small(torch.float32, "contiguous"))
    kwargs = {name: there(value) for name, value in example.kwargs.items()}
    result = EXAMPLES[op].call(*map(there, example.args), **kwargs)
    return [tensor.cpu() for tensor in (result if isinstance(result, tuple) else (result,))]


def self_check() -> list[str]:
    """Compares every op on every usable backend with the reference; returns what differs."""
    with backends.use_backend("reference"):
        expected = {op: _checked_results(op, "cpu") for op in backends.ops()}
    problems = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for op, backend in itertools.product(backends.ops(), backends.BACKENDS):
            if backends.why_not(backend, op, device) is not None:
                continue
            with backends.use_backend(backend):
                pairs = zip(_checked_results(op, device), expected[op], strict=True)
            if not all(g.shape == e.shape and torch.allclose(g, e, rtol=1e-5, atol=1e-5) for g, e in pairs):
                problems.append(f"{op} on {backend} differs from the reference for {device} tensors")
    return problems


def main() -> int:
    """Prints the report; returns 1 if the self-check fails."""
    print(versions())
    print(f"extension: {_extension.MISSING or 'loaded'}")
    for part, built in _extension.build_info().items():
        print(f"  {part}: {built}")
    print(f"backend asked for: {backends.requested() or 'none (the best that can run)'}")
    print(backend_table())
    problems = self_check()
    print("self-check: " + ("; ".join(problems) or "passed"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
