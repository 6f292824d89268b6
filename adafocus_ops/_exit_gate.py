"""exit_gate: which rows of a batch are certain enough to leave."""

from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple

from . import backends
from ._overridable import overridable
from ._reference import exit_gate as reference
from .checks import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    check_choice,
    check_same_device,
    check_tensor,
    checks_values,
    describe,
    positive_int,
    require,
)

CRITERIA = ("entropy", "confidence")


class ExitGate(NamedTuple):
    """The decision of exit_gate."""

    score: Tensor  # [N] entropy in nats, or the largest probability; float32 (float64 for float64 logits)
    exited: Tensor  # [N] bool
    keep: Tensor  # int64 indices of the rows that stay, in order
    leave: Tensor  # int64 indices of the rows that leave, in order
    counts: Tensor  # [2] int64 on the device: how many stay, how many leave


# Without a name, a program of torch.export that returns one could not be saved.
_register_namedtuple(ExitGate, serialized_type_name="adafocus_ops.ExitGate")


@overridable
def exit_gate(
    logits: Tensor,
    threshold: float | Tensor,
    *,
    criterion: str = "entropy",
    active: Tensor | None = None,
    capacity: int | None = None,
    backend: str | None = None,
) -> ExitGate:
    """Decides which rows leave the computation, and lists both groups in order.

    A row leaves when the entropy H = log Z - sum p z of its softmax is at most the threshold
    (criterion "entropy"), or its largest probability at least (criterion "confidence"). A row with NaN
    never leaves.

    Args:
        logits: [N, C] floating point.
        threshold: a number, or a 0-dimensional tensor (which can change without a new graph capture); compared in
            the type of the scores.
        criterion: "entropy" (nats) or "confidence".
        active: which rows are still running: a [N] bool mask or a list of row indices (int32 or int64);
            the others neither stay nor leave. None means all.
        capacity: gives `keep` and `leave` this static size, padded with -1 (and cut off), and needs no
            synchronisation with the device; None gives exact sizes, at the price of one.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        ExitGate(score [N], exited [N], keep, leave, counts [2]).

    Gradients: none (see `entropy` and `confidence`). Determinism: bitwise reproducible, exact order; scores of
    different backends may differ in their last bits, so a row within rounding of the threshold may too.

    On CUDA it is one kernel; for more than 32 rows a word of memory is cleared before it. For more than 2048 rows it
    is two kernels, or three where `active` is a list.

    Raises:
        TypeError, ValueError: a type, shape, device or choice that does not fit.

    Source: Uni-AdaFocus, Section 4.3.
    """
    check_tensor("logits", logits, FLOAT_DTYPES)
    require(logits.ndim == 2 and logits.shape[1] >= 1, lambda: f"logits must be [N, C], got {describe(logits)}")
    check_choice("criterion", criterion, CRITERIA)
    if capacity is not None:
        capacity = positive_int("capacity", capacity)
    if isinstance(threshold, Tensor):
        check_tensor("threshold", threshold, FLOAT_DTYPES)
        require(
            threshold.ndim == 0,
            lambda: f"threshold must be a number or a 0-dimensional tensor, got {describe(threshold)}",
        )
        check_same_device("threshold", threshold, "logits", logits)
        threshold, bound = threshold.detach(), 0.0
    else:
        require(
            isinstance(threshold, Real | torch.SymFloat | torch.SymInt) and not isinstance(threshold, bool),
            lambda: f"threshold must be a number or a 0-dimensional tensor, got {describe(threshold)}",
            TypeError,
        )
        threshold, bound = None, _bound(threshold)
    if active is not None:
        _check_active(active, logits)
        active = active.contiguous()
    kernel = backends.kernel("exit_gate", "fwd", backends.choose("exit_gate", logits.device, backend))
    size = logits.shape[0] if capacity is None else capacity
    score, exited, keep, leave, counts = kernel(
        logits.detach(), threshold=threshold, bound=bound, criterion=criterion, active=active, capacity=size
    )
    if capacity is None:
        mapped = torch._C._functorch.is_batchedtensor(counts)
        require(not mapped and not counts.is_meta, lambda: "capacity must be given under vmap and on meta tensors")
        staying, leaving = counts.tolist()
        keep, leave = keep[:staying], leave[:leaving]
    return ExitGate(score, exited, keep, leave, counts)


def _bound(threshold: Real | torch.SymFloat | torch.SymInt) -> float:
    """The threshold as a float; an integer that is too large for one is as good as infinity."""
    try:
        return float(threshold)
    except OverflowError:
        return float("inf") if threshold > 0 else float("-inf")


def _check_active(active: Tensor, logits: Tensor) -> None:
    rows = logits.shape[0]
    check_tensor("active", active, (torch.bool, *INDEX_DTYPES))
    check_same_device("active", active, "logits", logits)
    require(active.ndim == 1, lambda: f"active must be one-dimensional, got {describe(active)}")
    if active.dtype == torch.bool:
        require(active.shape[0] == rows, lambda: f"active must be [N] with N={rows} (logits), got {describe(active)}")
    elif checks_values(logits):
        allowed = (active >= -1) & (active < rows)
        require(bool(allowed.all()), lambda: f"active must hold row indices in [0, {rows}) (logits), or -1 as padding")


def _check_classes(logits: Tensor) -> None:
    check_tensor("logits", logits, FLOAT_DTYPES)
    require(
        logits.ndim >= 1 and logits.shape[-1] >= 1, lambda: f"logits must be [..., C], C >= 1, got {describe(logits)}"
    )


@overridable
def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the softmax over the last dimension, H = log Z - sum p z with z shifted by its maximum.

    Args:
        logits: [..., C] floating point; a logit of minus infinity (a masked class), or more than 87 nats (708
            in float64) below the largest, counts nothing.

    Returns:
        [...] float32 (float64 for float64 logits), finite whatever the gaps between finite logits.

    Gradients: to logits. Source: Uni-AdaFocus, Section 4.3.
    """
    _check_classes(logits)
    return reference.entropy(logits)


@overridable
def confidence(logits: Tensor) -> Tensor:
    """Largest probability of the softmax over the last dimension.

    Args:
        logits: [..., C] floating point.

    Returns:
        [...] float32 (float64 for float64 logits).

    Gradients: to logits. Source: Uni-AdaFocus, Section 4.3.
    """
    _check_classes(logits)
    return reference.confidence(logits)
