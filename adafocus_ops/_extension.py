"""Loads the compiled kernels, if they were built.

The environment variable ADAFOCUS_EXTENSION names another library file to load instead (a sanitizer
build, for one); empty, it loads none.
"""

import glob
import os
import re

import torch


def _load() -> str | None:
    """Loads the extension library; returns None, or the sentence that says why it is not there."""
    found = sorted(glob.glob(os.path.join(os.path.dirname(__file__), "_C.*so")))
    if "ADAFOCUS_EXTENSION" in os.environ:
        found = [os.environ["ADAFOCUS_EXTENSION"]]
    if not found or not found[0]:
        return "the compiled extension is not built (install with a C++ compiler, or run `make build`)"
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        why = error.__cause__ or error  # the cause names a symbol that is missing
        return f"the compiled extension {found[0]} cannot be loaded with torch {torch.__version__}: {why}"
    return None


MISSING: str | None = _load()


def build_info() -> dict[str, str]:
    """The build of the loaded extension: {"cpu": instruction set in use, "cuda": toolkit, architectures}."""
    if MISSING:
        return {}
    return dict(line.split(": ", 1) for line in torch.ops.adafocus._build_info().splitlines())


def why_no_code(device: torch.device) -> str | None:
    """The reason, a sentence, why the extension's CUDA kernels cannot run on a device, or None; None too where there is
    no such GPU to ask, as when a compiler looks at what one would do."""
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        return None
    return why_no_code_for(torch.cuda.get_device_capability(device), torch.version.cuda, build_info()["cuda"])


def why_no_code_for(capability: tuple[int, int], torch_cuda: str, built: str) -> str | None:
    """As `why_no_code`, of a GPU's compute capability, torch's CUDA version, and a build as build_info() has it.

    Machine code runs on its own architecture and on those of the same major version above it; PTX on all above it.
    """
    toolkit, _, architectures = built.partition(", ")
    if toolkit.partition(".")[0] != torch_cuda.partition(".")[0]:
        return (
            f"the extension was built with CUDA {toolkit}, and this torch has CUDA {torch_cuda}: build it with this one"
        )
    for kind, digits in re.findall(r"(sm|compute)_(\d+)", architectures):
        code = int(digits[:-1]), int(digits[-1])
        if code <= capability and (kind == "compute" or code[0] == capability[0]):
            return None
    have = ".".join(map(str, capability))
    return (
        f"the extension was built for {architectures}, and this GPU has compute capability {have}:"
        f" build it with ADAFOCUS_CUDA_ARCHS={have}"
    )
