"""What the compiler made of each kernel when somebody last looked: so that what a change makes of it shows."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import torch

import adafocus_ops  # noqa: F401 (loads the extension, which knows its build)
from bench.harness.environment import ROOT
from bench.harness.kernels import Kernel

Kept = dict[str, dict[str, list[int]]]  # sm_ -> kernel -> registers, instructions


def kept_path() -> Path:
    """Of the toolkit that the extension was built with: another one makes other code."""
    toolkit = re.search(r"^cuda: ([\d.]+)", torch.ops.adafocus._build_info(), re.MULTILINE)[1]
    return ROOT / "bench" / "results" / f"kernels_cuda-{toolkit}.json"


def as_kept(kernels: Iterable[Kernel]) -> Kept:
    kept: Kept = {}
    for kernel in sorted(kernels, key=lambda kernel: (kernel.arch, kernel.name)):
        kept.setdefault(f"sm_{kernel.arch}", {})[kernel.name] = [kernel.registers, kernel.instructions]
    return kept


def keep(kernels: Iterable[Kernel], path: Path) -> None:
    """Architectures that were not built stay as they were."""
    kept = (json.loads(path.read_text()) if path.exists() else {}) | as_kept(kernels)
    lines = ",\n".join(
        f"{json.dumps(arch)}: {{\n" + ",\n".join(f"  {json.dumps(n)}: {v}" for n, v in found.items()) + "\n}"
        for arch, found in sorted(kept.items())
    )
    path.write_text(f"{{\n{lines}\n}}\n")


def changes(kernels: Iterable[Kernel], kept: Kept) -> list[str]:
    """What differs from what was kept, a line each, of the architectures that were."""
    lines = []
    for arch, now in as_kept(kernels).items():
        before = kept.get(arch, now)
        for name in sorted(before.keys() | now.keys()):
            old, new = before.get(name), now.get(name)
            if old is None or new is None:
                lines.append(f"{arch} {name}: {'new' if old is None else 'gone'}")
            elif old != new:
                numbers = zip(("registers", "instructions"), old, new, strict=True)
                lines.append(f"{arch} {name}: " + ", ".join(f"{a} -> {b} {what}" for what, a, b in numbers if a != b))
    return lines
