"""Facts about this machine that a measured choice depends on."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import adafocus_ops

from .runtimes import Runtime


def facts(device: torch.device, runtimes: Sequence[Runtime]) -> dict[str, Any]:
    """The device, its threads, and the versions of all that computes."""
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "adafocus": adafocus_ops.__version__,
        **versions,
    }


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")  # on Linux, where platform has no name
    lines = path.read_text().splitlines() if path.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
