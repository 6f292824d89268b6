"""gather_rows: the rows that an exit gate listed."""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._overridable import overridable
from ._reference.rows import valid_rows
from .checks import FLOAT_DTYPES, INDEX_DTYPES, check_same_device, check_tensor, checks_values, describe, require

MAX_DIMS = 9  # of x
COMMON_DTYPES = {
    *FLOAT_DTYPES,
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.complex64, torch.complex128),
}


@overridable
def gather_rows(x: Tensor, index: Tensor, count: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """Copies rows by number, as many as a count on the device says: out[j] = x[index[j]] for j < count.

    With `exit_gate(..., capacity=M)` it gathers those that stay at a static shape, without waiting for the device:
    `gather_rows(features, gate.keep, gate.counts[0])`.

    Args:
        x: [N, ...] of any strides and any dtype whose elements are whole bytes.
        index: [M] int32 or int64 row numbers.
        count: how many of them count, an int64 tensor of one element on the device; None for all.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [M, ...] in the memory format of x. Rows from `count` on, and those whose index is out of range (such as the
        -1 that pads it), are zero.

    Gradients: to x, in reverse mode; rows that are gathered twice add up. Determinism: exact, a copy; the gradient of
    rows that are gathered more than once as `Tensor.index_add_`'s.

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit; under set_debug(True) also an index
            out of range other than -1.

    Source: Uni-AdaFocus, Section 4.3: online early exit of a batch.
    """
    check_any_dtype("x", x)
    require(1 <= x.ndim <= MAX_DIMS, lambda: f"x must be [N, ...] with 1 to {MAX_DIMS} dimensions, got {describe(x)}")
    index = check_index(index, count, x.shape[0], "x", x)
    call = _GatherCall(backends.choose("gather_rows", x.device, backend))
    return (
        _Gather.apply(x, index, count, call) if differentiable("gather_rows", x) else call.fwd(x.detach(), index, count)
    )


def check_any_dtype(name: str, value: object) -> None:
    """`value` must be a strided tensor whose elements are whole bytes."""
    require(isinstance(value, Tensor), lambda: f"{name} must be a tensor, got {describe(value)}", TypeError)
    check_tensor(name, value, (value.dtype,))
    dtype = str(value.dtype).removeprefix("torch.")
    require(
        not value.is_quantized and not re.fullmatch("u?int[1-7]", dtype),
        lambda: f"{name} must have a dtype of whole bytes that is not quantized, got {dtype}",
        TypeError,
    )


def as_integers(x: Tensor) -> Tensor:
    """x, or where few functions of torch know its dtype, its bytes as integers."""
    if x.dtype in COMMON_DTYPES:
        return x
    return x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


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
        rows = backends.kernel("gather_rows", "fwd", self.backend)(as_integers(x), index, count)
        return rows if rows.dtype == x.dtype else rows.view(x.dtype)

    def bwd(self, grad: Tensor, index: Tensor, count: Tensor | None, shape: torch.Size) -> Tensor:
        valid = valid_rows(index, count, shape[0])  # [M]
        rows = torch.where(valid.view(-1, *(1,) * (grad.ndim - 1)), grad, 0)
        # A row beyond the last takes what does not count.
        total = grad.new_zeros((shape[0] + 1, *shape[1:]))  # [N + 1, ...]
        return total.index_add(0, torch.where(valid, index, shape[0]), rows)[:-1]


class _Gather(torch.autograd.Function):
    generate_vmap_rule = True

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
