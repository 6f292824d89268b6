"""Modules as ONNX models, by which other runtimes and programs read them."""

import copy
import warnings
from importlib.util import find_spec
from typing import BinaryIO

import torch
from torch import Tensor, nn

from adafocus_ops.checks import require

from .portable import portable

PACKAGE = "onnx"  # which torch writes models with
INPUT, OUTPUT = "frames", "maps"


def write_onnx(module: nn.Module, x: Tensor, file: str | BinaryIO) -> None:
    """Writes a module of one input and one output as a model whose first dimension is free.

    Temporal shifts become slices, with as many frames a clip as the module has.

    Args:
        module: an encoder, in evaluation mode, of any dtype, which stays as it is; what is written computes in float32.
        x: an example of its input, [M, 3, H, W].

    Raises:
        ImportError: the package onnx is not installed.
        Exception: whatever torch does with a module that it cannot follow.
    """
    reason = not_installed(PACKAGE)
    require(reason is None, lambda: reason, ImportError)
    plain = portable(module)
    if next(module.parameters()).dtype != torch.float32:
        plain = copy.deepcopy(plain).float()  # it shares the weights, which stay as they are
    free = {INPUT: {0: "M"}, OUTPUT: {0: "M"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # its exporter by torch.export takes ten times as long for the same model
        torch.onnx.export(
            plain,
            (x.float().contiguous(),),
            file,
            dynamo=False,
            do_constant_folding=False,  # there is nothing to fold
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes=free,
        )


def not_installed(*packages: str) -> str | None:
    """Which of the packages are missing and how to get them, a sentence; None if all are there."""
    missing = [name for name in packages if find_spec(name) is None]
    return f'not installed: {", ".join(missing)}; pip install "adafocus[cpu]"' if missing else None
