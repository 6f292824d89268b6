"""What the commands have in common: how they end, and arguments of several of them."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable

import torch

from .ranks import Ranks

# What an argument, a file or a package that is missing raises; anything else is a mistake in a command.
EXPECTED: tuple[type[Exception], ...] = (ImportError, OSError, ValueError)


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
