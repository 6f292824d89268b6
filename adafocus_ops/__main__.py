"""`python -m adafocus_ops`: what is available here, why the rest is not, and a self-check."""

import importlib.util
import platform
import sys
from collections.abc import Callable

import numpy
import torch
from torch import Tensor

import adafocus_ops

from . import __version__, _extension, backends


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


def _checked_calls(device: str) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """A small call of every op."""

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)

    frames, values, weights = random(2, 16, 32, 40), random(3, 8, 5), random(3, 8).softmax(1)
    boxes = torch.tensor([[16.0, 20.0, 30.0, 24.0], [4.0, 4.0, 20.0, 16.0]], device=device)
    index = torch.tensor([1, -1, 0], device=device)
    return {
        "crop_resize": lambda: (adafocus_ops.crop_resize(frames, boxes, (8, 12)),),
        "crop_mean": lambda: (adafocus_ops.crop_mean(frames, boxes, (8, 12)),),
        "weighted_sample": lambda: (adafocus_ops.weighted_sample(weights, 4, num_samples=3, seed=1),),
        "expected_value": lambda: (adafocus_ops.expected_value(values, weights, 3, num_samples=9, seed=1),),
        "quantile_frames": lambda: (adafocus_ops.quantile_frames(weights, 24, 6, seed=1),),
        "exit_gate": lambda: tuple(adafocus_ops.exit_gate(8 * values[0], 1.2)),
        "gather_rows": lambda: (adafocus_ops.gather_rows(values, index),),
        "scatter_rows": lambda: (adafocus_ops.scatter_rows(values.clone(), index, 2 * values),),
        "temporal_shift": lambda: (adafocus_ops.temporal_shift(frames, 2),),
    }


def self_check() -> list[str]:
    """Compares every op on every usable backend with the reference; returns what differs."""
    with backends.use_backend("reference"):
        expected = {op: call() for op, call in _checked_calls("cpu").items()}
    problems = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for op, call in _checked_calls(device).items():
            for backend in backends.BACKENDS:
                if backends.why_not(backend, op, device) is None:
                    with backends.use_backend(backend):
                        got = [result.cpu() for result in call()]
                    if not all(
                        g.shape == e.shape and torch.allclose(g, e, rtol=1e-5, atol=1e-5)
                        for g, e in zip(got, expected[op], strict=True)
                    ):
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
