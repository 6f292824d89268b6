"""Arithmetic that rounds as the kernels' does, in plain PyTorch."""

import torch
from torch import Tensor


def fused_multiply_add(a: Tensor, b: Tensor, c: Tensor | float) -> Tensor:
    """a b + c of float32 rounded once: the product is exact in float64. (Of float64 it is rounded twice.)"""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return (a.double() * b.double() + (c.double() if isinstance(c, Tensor) else c)).to(dtype)
