"""A case: an op on one input, beside the reference that it must equal, the rival that it is to beat, and others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

OURS = "adafocus_ops"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Call = Callable[[], tuple[Tensor, ...]]  # gives the results that are compared


class MismatchError(Exception):
    """A call does not compute what it should."""


def largest_difference(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference of any result, as a share of the expected one's largest value.

    Raises:
        MismatchError: a shape differs.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (results, expected)]
    if shapes[0] != shapes[1]:
        raise MismatchError(f"gives shapes {shapes[0]}, not {shapes[1]}")
    pairs = [(r.double(), e.double()) for r, e in zip(results, expected, strict=True)]
    return max(float((r - e).abs().max() / e.abs().max()) for r, e in pairs)


class Prepared(NamedTuple):
    """A case with its input in place."""

    calls: dict[str, Call]  # by name: OURS, the reference, the rival and others
    bytes: int  # that must be read and written
    # Distance of results from the reference's, in the case's unit.
    error: Callable[[tuple[Tensor, ...], tuple[Tensor, ...]], float] = largest_difference


@dataclass(frozen=True)
class Targets:
    """Speeds that one kind of device is meant to reach; None asks nothing."""

    ratio: float | None = None  # times faster than the rival
    bandwidth: float | None = None  # share of the copy bandwidth
    microseconds: float | None = None


@dataclass(frozen=True)
class Case:
    """One op on one input, and what to compare it with."""

    op: str
    name: str
    input: str  # with {} for how many there are: "{} boxes of ..."; cases of one input share a table
    mode: str  # "forward", "backward" or "forward+backward"
    dtype: str
    layout: str
    reference: str  # the name of the call whose results are right, or in words what is known of them exactly
    rival: str  # the name of the call to beat
    tolerance: float  # largest error allowed
    targets: Mapping[str, Targets]  # by device type
    # An op so small that on a GPU launching is what takes the time: many calls are timed as one CUDA graph.
    launch_bound: bool
    prepare: Callable[[torch.device], Prepared]
    unit: str = "of its largest value"  # that errors are counted in
    rival_does_less: bool = False  # so that its results are not compared
    rival_waits: bool = False  # for the host, so that no CUDA graph can hold it
    device_types: tuple[str, ...] = ("cpu", "cuda")  # that it is of


def reference_results(case: Case, prepared: Prepared) -> tuple[Tensor, ...]:
    """Results that the others must equal; none where what is known of them exactly takes their place."""
    return prepared.calls[case.reference]() if case.reference in prepared.calls else ()


def check(
    case: Case, name: str, results: tuple[Tensor, ...], prepared: Prepared, expected: tuple[Tensor, ...]
) -> float:
    """The error of a call's results, given the reference's.

    Raises:
        MismatchError: it is larger than the case allows.
    """
    try:
        error = prepared.error(results, expected)
        if not error <= case.tolerance:  # not "larger": NaN must not pass
            raise MismatchError(
                f"differs from {case.reference} by {error:.1e} {case.unit}, {case.tolerance:g} is allowed"
            )
    except MismatchError as what:
        raise MismatchError(f"{case.name}: {name} {what}; not timed") from None
    return error


def check_layout(case: Case, result: Tensor) -> None:
    """Images must be stored like the frames."""
    if result.ndim == 4 and not result.is_contiguous(memory_format=LAYOUTS[case.layout]):
        strides = result.stride()
        raise MismatchError(f"{case.name}: the result must be {case.layout}, its strides are {strides}; not timed")


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype as in names of cases: "float32"."""
    return str(dtype).removeprefix("torch.")
