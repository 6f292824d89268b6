"""What the commands have in common: how they end, and arguments of several of them."""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from adafocus_ops.checks import require

from .exits import Curve, Thresholds, load_thresholds
from .ranks import Ranks

# What an argument, a file or a package that is missing raises; anything else is a mistake in a command.
EXPECTED: tuple[type[Exception], ...] = (ImportError, OSError, ValueError)
INTERRUPTED = 130  # the exit code of a program that Ctrl-C ended


def run(
    command: Callable[[argparse.Namespace], int],
    options: argparse.Namespace,
    *,
    expected: tuple[type[Exception], ...] = EXPECTED,
) -> int:
    """The exit code of a command: its own; 2 with a message where it raises one of the errors expected of it."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        try:
            return command(options)
        except BrokenPipeError:  # whoever reads the output, `head` say, has seen enough
            # What the interpreter flushes at its end must find an open file.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except expected as error:
            print(f"error: {error}", file=sys.stderr)
            return 2


def count(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def device(text: str) -> torch.device:
    """An argument that is a device of this machine; of torchrun's processes, "cuda" gives each a GPU of its own."""
    try:
        found = Ranks.of_torchrun().device(torch.device(text))
        torch.empty(0, device=found)
    except (AssertionError, RuntimeError) as error:  # torch was built without it, or there is none
        raise argparse.ArgumentTypeError(f"cannot use {text!r}: {str(error).splitlines()[0]}") from error
    return found


def read_thresholds(path: Path | None, budget: float | None) -> Thresholds | None:
    """Of a file, those for a budget in GFLOPs where it holds a curve; None without a file."""
    require(budget is None or path is not None, lambda: "--budget needs --thresholds FILE, of a Curve")
    if path is None:
        return None
    loaded = load_thresholds(path)
    if isinstance(loaded, Curve):
        return loaded.within(math.inf if budget is None else budget * 1e9)
    require(budget is None, lambda: f"--budget needs a Curve, of many thresholds; {path} holds those of one budget")
    return loaded
