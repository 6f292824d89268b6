"""The environment of a measurement: facts that its record keeps and a header prints."""

import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]

# Column of `nvidia-smi --query-gpu` -> name in a record.
GPU_QUERY = {
    "driver_version": "driver",
    "clocks.sm": "sm_clock",
    "clocks.max.sm": "max_sm_clock",
    "clocks.mem": "memory_clock",
    "power.limit": "power_limit",
}

DEFAULT_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def environment(device: torch.device) -> dict[str, Any]:
    """The machine, the versions and the commit that a figure depends on."""
    facts = {
        "device": device_name(device),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock_mhz": _cpu_clock_mhz(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "triton")},
        "commit": _git("rev-parse", "HEAD"),
        # Records and plots are written while measuring, so they do not count as changes.
        "dirty": bool(_git("status", "--porcelain", "--", ".", ":!bench/results")),
        # The folder that a file lay in on this machine says nothing elsewhere.
        "command": [Path(word).name if Path(word).is_absolute() else word for word in sys.argv],
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return facts | (_gpu(device) if device.type == "cuda" else {})


def header(facts: dict[str, Any]) -> list[str]:
    """The environment in a few lines of text."""
    clock = f", {facts['clock_mhz']:.0f} MHz" if facts["clock_mhz"] else ""
    commit = f"{facts['commit'][:10]}{' with changes' if facts['dirty'] else ''}" if facts["commit"] else "unknown"
    lines = [
        f"processor: {facts['processor']}, {facts['cores']} cores{clock}; {facts['threads']} threads used; "
        f"load average {facts['load_average'][0]}",
    ]
    if "gpu" in facts:
        details = "; ".join(f"{name} {facts[name]}" for name in GPU_QUERY.values() if facts.get(name))
        lines.append(f"GPU: {facts['gpu']}; {details}")
        lines.append(
            f"CUDA {facts['cuda']}, cuDNN {facts['cudnn']}; TF32 in matmul {facts['tf32_matmul']}, "
            f"in convolutions {facts['tf32_conv']}; cudnn.benchmark {facts['cudnn_benchmark']}"
        )
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "numpy", "triton") if facts[name])
    lines.append(f"{versions}; commit {commit}; {facts['time']}")
    if facts["cores"] and facts["load_average"][0] > facts["cores"]:
        lines.append(
            f"warning: the load average {facts['load_average'][0]} is above the {facts['cores']} cores:"
            " other work slows down what is timed"
        )
    return lines


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpu_clock_mhz() -> float | None:
    clock = _cpuinfo("cpu MHz")
    return float(clock) if clock else None


def _cpuinfo(field: str) -> str | None:
    """A field of the first processor, on Linux."""
    path = Path("/proc/cpuinfo")
    match = re.search(rf"^{field}\s*: (.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return match[1].strip() if match else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    return _output("git", "-C", str(ROOT), *arguments)


def _gpu(device: torch.device) -> dict[str, Any]:
    uuid = torch.cuda.get_device_properties(device).uuid
    query = ("nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(GPU_QUERY)}", "--format=csv,noheader")
    values = (_output(*query) or "").split(", ")
    return {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_conv": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        **dict(zip(GPU_QUERY.values(), values, strict=False)),
    }


def _output(*command: str) -> str | None:
    """The output of a command, or None where it cannot run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
