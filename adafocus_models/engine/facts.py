"""Facts about this machine that a measured choice depends on."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import adafocus_ops


def facts(device: torch.device, versions: Mapping[str, str | None]) -> dict[str, Any]:
    """The device, its threads, and the versions of all that computes: ours, torch's and those given."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": torch.__version__,
        "adafocus": adafocus_ops.__version__,
        **versions,
    }


def computes_with(dtype: torch.dtype) -> bool:
    """Tells if the processor has instructions for the dtype, as far as torch's libraries use them."""
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return True


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
