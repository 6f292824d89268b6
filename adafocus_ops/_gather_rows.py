"""gather_rows: the rows that an exit gate listed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._reference import gather_rows as reference
from ._reference.rows import valid_rows
from .checks import INDEX_DTYPES, check_same_device, check_tensor, checks_values, describe, require

backends.register("gather_rows", reference)

MAX_DIMS = 9  # of x


def gather_rows(x: Tensor, index: Tensor, count: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """Copies rows by number, as many as a count on the device says: out[j] = x[index[j]] for j < count.

    With `exit_gate(..., capacity=M)` it gathers those that stay at a static shape, without waiting for the device:
    `gather_rows(features, gate.keep, gate.counts[0])`.

    Args:
        x: [N, ...] of any dtype and strides.
        index: [M] int32 or int64 row numbers.
        count: how many of them count, an int64 tensor of one element on the device; None for all.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [M, ...] in the memory format of x. Rows from `count` on, and those whose index is out of range (such as the
        -1 that pads it), are zero.

    Gradients: to x; rows that are gathered twice add up. Determinism: exact, a copy; the gradient of rows that are
    gathered more than once as `Tensor.index_add_`'s.

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit; under set_debug(True) also an index
            out of range other than -1.

    Source: Uni-AdaFocus, Section 4.3: online early exit of a batch.
    """
    require(isinstance(x, Tensor), lambda: f"x must be a tensor, got {describe(x)}", TypeError)
    check_tensor("x", x, (x.dtype,))
    require(1 <= x.ndim <= MAX_DIMS, lambda: f"x must be [N, ...] with 1 to {MAX_DIMS} dimensions, got {describe(x)}")
    index = check_index(index, count, x.shape[0], "x", x)
    (kernel,) = backends.kernels("gather_rows", backends.choose("gather_rows", x.device.type, backend))
    return _Gather.apply(x, index, count, kernel) if differentiable(x) else kernel(x.detach(), index, count)


def check_index(index: Tensor, count: Tensor | None, rows: int, name: str, tensor: Tensor) -> Tensor:
    """The index, contiguous, once it and the count are what they must be for the `rows` rows of a tensor."""
    check_tensor("index", index, INDEX_DTYPES)
    require(index.ndim == 1, lambda: f"index must be [M], got {describe(index)}")
    check_same_device("index", index, name, tensor)
    if count is not None:
        check_tensor("count", count, (torch.int64,))
        require(count.numel() == 1, lambda: f"count must be a tensor of one element, got {describe(count)}")
        check_same_device("count", count, name, tensor)
    if checks_values(index):
        allowed = (index >= -1) & (index < rows)
        require(bool(allowed.all()), lambda: f"index must be in [0, {rows}) ({name}), or -1 as padding")
    return index.contiguous()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, index: Tensor, count: Tensor | None, kernel: Callable) -> Tensor:
        return kernel(x, index, count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, index, count, _ = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(index, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        index, count = ctx.saved_tensors
        valid = valid_rows(index, count, ctx.shape[0])
        rows = torch.where(valid.view(-1, *(1,) * (grad.ndim - 1)), grad, 0)
        # A row beyond the last takes what does not count.
        total = grad.new_zeros((ctx.shape[0] + 1, *ctx.shape[1:]))
        return total.index_add(0, torch.where(valid, index, ctx.shape[0]), rows)[:-1], None, None, None
