"""scatter_rows: puts rows back where gather_rows took them from."""

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable
from ._gather_rows import MAX_DIMS, check_index
from .checks import check_same_device, check_tensor, describe, require


def scatter_rows(
    out: Tensor, index: Tensor, rows: Tensor, count: Tensor | None = None, *, backend: str | None = None
) -> Tensor:
    """Writes rows by number into `out`, as many as a count on the device says: out[index[j]] = rows[j] for j < count.

    What `gather_rows` took out comes back, and padding leaves no trace:
    `scatter_rows(logits, gate.keep, second_stage(gathered), gate.counts[0])`.

    Args:
        out: [N, ...] of any dtype and strides, changed in place; no two of its elements may share memory.
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
        TypeError, ValueError: a dtype, shape or device that does not fit; under set_debug(True) also an index
            out of range other than -1. RuntimeError: a gradient would be needed.

    Source: Uni-AdaFocus, Section 4.3: online early exit of a batch.
    """
    require(isinstance(out, Tensor), lambda: f"out must be a tensor, got {describe(out)}", TypeError)
    check_tensor("out", out, (out.dtype,))
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
        not differentiable(out, rows),
        lambda: "scatter_rows has no gradient: use torch.no_grad(), or Tensor.index_copy",
        RuntimeError,
    )
    kernel = backends.kernel("scatter_rows", "fwd", backends.choose("scatter_rows", out.device.type, backend))
    kernel(out, index, rows.detach(), count)
    if not torch.compiler.is_compiling() and not out.is_inference():
        torch.autograd.graph.increment_version(out)  # kernels write where autograd does not look
    return out
