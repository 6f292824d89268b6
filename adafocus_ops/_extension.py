"""Loads the compiled kernels, if they were built.

The environment variable ADAFOCUS_EXTENSION names another library file to load instead (a sanitizer
build, for one); empty, it loads none.
"""

import glob
import os

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
