"""`python -m adafocus_ops`: what is available here, why the rest is not, and a self-check."""

import importlib.util
import platform
import sys

import numpy
import torch

from . import __version__, _extension, backends, crop_resize


def versions() -> str:
    """One line of versions."""
    triton = importlib.util.find_spec("triton")
    cuda = torch.version.cuda or "none"
    return (
        f"adafocus {__version__}, Python {platform.python_version()}, torch {torch.__version__} (CUDA {cuda}), "
        f"numpy {numpy.__version__}, triton {'installed' if triton else 'not installed'}"
    )


def backend_table() -> str:
    """A line for each op and backend: available, or the reason why not."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lines = [f"backends for {device.upper()} tensors:"]
    for op in backends.ops():
        lines.append(f"  {op}")
        for backend in backends.BACKENDS:
            reason = backends.why_not(backend, op, device)
            lines.append(f"    {backend:<10} {'available' if reason is None else 'no: ' + reason}")
    return "\n".join(lines)


def self_check() -> list[str]:
    """Compares crop_resize on every usable backend with the reference; returns what differs."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, 32, 40, generator=generator)
    boxes = torch.tensor([[16.0, 20.0, 30.0, 24.0], [4.0, 4.0, 20.0, 16.0]])
    expected = crop_resize(frames, boxes, (8, 12), backend="reference")
    problems = []
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for backend in backends.BACKENDS:
            if backends.why_not(backend, "crop_resize", device) is None:
                got = crop_resize(frames.to(device), boxes.to(device), (8, 12), backend=backend).cpu()
                error = (got - expected).abs().max().item()
                if not error < 1e-5:
                    problems.append(f"{backend} on {device} differs from the reference by {error:.1e}")
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
