"""scatter_rows: puts rows back where gather_rows took them from."""

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._gather_rows import MAX_DIMS, as_integers, check_any_dtype, check_index
from ._memory import check_apart, mark_written
from ._overridable import overridable
from .checks import check_same_device, check_tensor, checks_values, describe, require


@overridable
def scatter_rows(
    out: Tensor, index: Tensor, rows: Tensor, count: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Writes rows by number into `out`, as many as a count on the device says: out[index[j]] = rows[j] for j < count.

    What `gather_rows` took out comes back, and padding leaves no trace:
    `scatter_rows(logits, gate.keep, second_stage(gathered), gate.counts[0])`.

    Args:
        out: [N, ...] of any strides and any dtype whose elements are whole bytes, changed in place; no two of its
            elements may share memory.
        index: [M] int32 or int64 row numbers; an entry out of range (such as -1) writes nothing. Of a number that
            occurs more than once any of its rows may stay, or parts of several.
        rows: [M, ...] of the dtype of `out`, its rows of the same shape; must not share memory with it.
        count: how many entries of index count, an int64 tensor of one element on the device; None for all.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        `out`.

    Gradients: none; it raises where autograd would record it (`Tensor.index_copy` is differentiable).
    Determinism: exact, a copy, as long as no number occurs twice.

    Raises:
        TypeError, ValueError: a dtype, shape or device that does not fit; an index or count in the memory of `out`;
            under set_debug(True) also rows or elements of `out` that share its memory, and an index out of range
            other than -1. RuntimeError: a gradient would be needed.

    Source: Uni-AdaFocus, Section 4.3: online early exit of a batch.
    """
    check_any_dtype("out", out)
    require(
        1 <= out.ndim <= MAX_DIMS, lambda: f"out must be [N, ...] with 1 to {MAX_DIMS} dimensions, got {describe(out)}"
    )
    index = check_index(index, count, out.shape[0], "out", out)
    check_tensor("rows", rows, (out.dtype,))
    check_same_device("rows", rows, "out", out)
    shape = (index.shape[0], *out.shape[1:])
    require(
        tuple(rows.shape) == shape, lambda: f"rows must be {shape} (M of index, a row of out), got {describe(rows)}"
    )
    require(
        not differentiable("scatter_rows", out, rows),
        lambda: "scatter_rows has no gradient: use torch.no_grad(), or Tensor.index_copy",
        RuntimeError,
    )
    check_apart(out, index=index, count=count)
    if checks_values(out):
        _check_rows_apart(out, rows)
    kernel = backends.kernel("scatter_rows", "fwd", backends.choose("scatter_rows", out.device, backend))
    kernel(as_integers(out), index, as_integers(rows.detach()), count)
    mark_written(out)
    return out


def _check_rows_apart(out: Tensor, rows: Tensor) -> None:
    """Debug mode: each element that is written has memory of its own."""
    written = _addresses(out)
    require(written.unique().numel() == out.numel(), lambda: "out must not have elements that share memory")
    apart = not torch._C._is_alias_of(out, rows) or not torch.isin(_addresses(rows), written).any()
    require(bool(apart), lambda: "rows must not share memory with out, which is written to")


def _addresses(tensor: Tensor) -> Tensor:
    """Where each element lies in its storage."""
    at = torch.full((), tensor.storage_offset(), device=tensor.device)
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        at = at[..., None] + torch.arange(size, device=tensor.device) * stride
    return at
