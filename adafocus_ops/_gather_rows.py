"""gather_rows: the rows that an exit gate listed."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._reference.rows import valid_rows
from .checks import INDEX_DTYPES, check_same_device, check_tensor, checks_values, describe, require

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
    call = _GatherCall(backends.choose("gather_rows", x.device.type, backend))
    return _Gather.apply(x, index, count, call) if differentiable(x) else call.fwd(x.detach(), index, count)


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


class _GatherCall(NamedTuple):
    """The kernel of one call, and its gradient, which torch's own index_add is."""

    backend: str

    def fwd(self, x: Tensor, index: Tensor, count: Tensor | None) -> Tensor:
        return backends.kernel("gather_rows", "fwd", self.backend)(x, index, count)

    def bwd(self, grad: Tensor, index: Tensor, count: Tensor | None, shape: torch.Size) -> Tensor:
        valid = valid_rows(index, count, shape[0])  # [M]
        rows = torch.where(valid.view(-1, *(1,) * (grad.ndim - 1)), grad, 0)
        # A row beyond the last takes what does not count.
        total = grad.new_zeros((shape[0] + 1, *shape[1:]))  # [N + 1, ...]
        return total.index_add(0, torch.where(valid, index, shape[0]), rows)[:-1]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, index: Tensor, count: Tensor | None, call: _GatherCall) -> Tensor:
        return call.fwd(x, index, count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, index, count, ctx.call = inputs
        ctx.shape = x.shape
        ctx.save_for_backward(index, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        index, count = ctx.saved_tensors
        return ctx.call.bwd(grad, index, count, ctx.shape), None, None, None
