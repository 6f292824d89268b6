"""Options that all programs which measure have."""

import argparse
from pathlib import Path

import torch

from adafocus_ops import backends
from bench.harness.environment import DEFAULT_DEVICE

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}  # of --dtype


def measuring_parser(description: str, *, threads: int | None) -> argparse.ArgumentParser:
    """A parser with the device, the backend, the runs, the threads (by default so many; None: torch's) and the file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=parse_device, default=DEFAULT_DEVICE)
    parser.add_argument("--backend", choices=backends.BACKENDS, help="of adafocus_ops (default: the best for each op)")
    parser.add_argument(
        "--runs", type=positive_int, default=30, help="timed rounds, after 3 that warm up (default: 30)"
    )
    own = "torch's" if threads is None else threads
    parser.add_argument("--threads", type=positive_int, default=threads, help=f"threads on a CPU (default: {own})")
    parser.add_argument("--json", type=Path, metavar="PATH", help="records (default: bench/results/WHAT_DEVICE.jsonl)")
    return parser


def positive_int(text: str) -> int:
    """An argument that counts something."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def parse_device(text: str) -> torch.device:
    """A --device argument."""
    device = torch.device(text)
    if device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu or cuda, got {text!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("there is no GPU that torch can use")
    return device
