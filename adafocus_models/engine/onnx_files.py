"""Modules as ONNX models, by which other runtimes and programs read them."""

import copy
import warnings
from typing import BinaryIO

import torch
from torch import Tensor, nn

from .portable import portable

INPUT, OUTPUT = "frames", "maps"


def write_onnx(module: nn.Module, x: Tensor, file: str | BinaryIO) -> None:
    """Writes a module of one input and one output as a model whose first dimension is free.

    Temporal shifts become slices, with as many frames a clip as the module has.

    Args:
        module: an encoder, in evaluation mode, of any dtype, which stays as it is; what is written computes in float32.
        x: an example of its input, [M, 3, H, W].

    Raises:
        Exception: whatever torch does with a module that it cannot follow.
    """
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
