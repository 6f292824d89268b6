"""Memory that an op writes to where its caller says: it is apart from what the op reads, and autograd is told."""

from typing import Any

import torch
from torch import Tensor

from .checks import require


def check_apart(out: Tensor, **read: Any) -> None:
    """What is read must not change while `out` is written. An argument that is no tensor has no memory to share."""
    if torch.compiler.is_compiling():
        return
    for name, value in read.items():
        apart = not isinstance(value, Tensor) or not torch._C._is_alias_of(out, value) or not _meet(out, value)
        require(apart, lambda name=name: f"{name} must not share memory with out, which is written to")


def _meet(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one storage have bytes in common, as far as the first and the last of each tell."""
    (a_begin, a_end), (b_begin, b_end) = _extent(a), _extent(b)
    return max(a_begin, b_begin) < min(a_end, b_end)


def _extent(tensor: Tensor) -> tuple[int, int]:
    """The first byte in its storage, and the one after the last."""
    begin = tensor.storage_offset()
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    end = begin + reach + 1 if tensor.numel() else begin
    return begin * tensor.element_size(), end * tensor.element_size()


def mark_written(out: Tensor) -> None:
    """Tells autograd that `out` has changed: kernels write where it does not look."""
    if not torch.compiler.is_compiling() and not out.is_inference():
        torch.autograd.graph.increment_version(out)
