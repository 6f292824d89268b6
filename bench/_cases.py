"""What is timed: an op on one input, beside what it replaces, which it must agree with first."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

OURS = "adafocus_ops"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}

Call = Callable[[], tuple[Tensor, ...]]  # the results that are compared


class MismatchError(Exception):
    """A contender does not compute what the baseline computes."""


class Prepared(NamedTuple):
    """A case with its input in place."""

    calls: dict[str, Call]  # OURS, the baseline and peers
    bytes: int  # that must be read and written


@dataclass(frozen=True)
class Targets:
    """What one kind of device is meant to reach; None asks nothing."""

    ratio: float | None = None  # times faster than the baseline
    bandwidth: float | None = None  # share of the copy bandwidth
    microseconds: float | None = None


@dataclass(frozen=True)
class Case:
    """One op on one input, and what to compare it with."""

    op: str
    name: str
    input: str  # what there is of it, to follow a number: "boxes of ..."
    mode: str  # "forward", "backward" or "forward+backward"
    dtype: str
    layout: str
    baseline: str  # name of the contender that the op is checked against and must beat
    # Largest difference allowed, as a share of the baseline's largest value.
    tolerance: float
    targets: Mapping[str, Targets]  # by device type
    # So small that on a GPU launching is what takes the time: many calls are timed as one CUDA graph.
    launch_bound: bool
    prepare: Callable[[torch.device], Prepared]


def check(case: Case, name: str, results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference of any result, as a share of the expected one's largest value.

    Raises:
        MismatchError: it is larger than the case allows, or a shape differs.
    """
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (results, expected)]
    if shapes[0] != shapes[1]:
        raise MismatchError(f"{case.name}: {name} gives shapes {shapes[0]}, {case.baseline} {shapes[1]}; not timed")
    pairs = [(r.double(), e.double()) for r, e in zip(results, expected, strict=True)]
    error = max(float((r - e).abs().max() / e.abs().max()) for r, e in pairs)
    if not error <= case.tolerance:  # not "larger": NaN must not pass
        raise MismatchError(
            f"{case.name}: {name} differs from {case.baseline} by {error:.1e} of its largest value,"
            f" {case.tolerance:.0e} is allowed; not timed"
        )
    return error


def check_layout(case: Case, result: Tensor) -> None:
    """Images must be stored like the frames."""
    if result.ndim == 4 and not result.is_contiguous(memory_format=LAYOUTS[case.layout]):
        strides = result.stride()
        raise MismatchError(f"{case.name}: the result must be {case.layout}, its strides are {strides}; not timed")
