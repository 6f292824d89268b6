"""Which backend of adafocus_ops a measurement runs on."""

import argparse
import os
from collections.abc import Callable
from typing import Any

from adafocus_ops import use_backend

# Best first, as adafocus_ops chooses.
BACKENDS = ("cuda", "cpu", "triton", "reference")


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --backend; ADAFOCUS_BACKEND is its default."""
    default = os.environ.get("ADAFOCUS_BACKEND") or None
    parser.add_argument("--backend", choices=BACKENDS, default=default, help="of adafocus_ops (default: the best)")


def first_backend(call: Callable[[], Any]) -> str:
    """The best backend that runs the call, so that a row can name it."""
    for name in BACKENDS[:-1]:
        try:
            with use_backend(name):
                call()
            return name
        except RuntimeError:
            continue
    return BACKENDS[-1]
