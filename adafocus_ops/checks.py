"""Argument checks: every message names the argument, the rule, and what arrived."""

import os
from collections.abc import Callable, Sequence
from numbers import Integral

import torch

__all__ = ["set_debug"]  # the rest is for these two packages

FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INDEX_DTYPES = (torch.int32, torch.int64)


def _flag(variable: str) -> bool:
    """An environment variable that is on or off."""
    value = os.environ.get(variable, "").strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise ValueError(f"{variable} must be 1 (on) or 0 (off), got {os.environ[variable]!r}")


_debug = _flag("ADAFOCUS_DEBUG")


def set_debug(enabled: bool) -> None:
    """Turns on (or off) the checks of values, which synchronise with the device.

    With it on, NaN or infinite boxes, indices out of range, negative or NaN weights, and weights that
    do not sum to 1 where an op takes a distribution raise ValueError instead of giving the defined
    result that each function documents. The environment variable ADAFOCUS_DEBUG=1 turns it on from the
    start.
    """
    global _debug
    _debug = bool(enabled)


def checks_values(tensor: torch.Tensor) -> bool:
    """Tells if the values of a call's tensors are to be looked at: in debug mode, where there are values."""
    if not _debug or torch.compiler.is_compiling():
        return False
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)  # a fake tensor, for one, has no values
    return plain and not tensor.is_meta and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def require(condition: bool, message: Callable[[], str], error: type[Exception] = ValueError) -> None:
    """Raises `error` with the message unless the condition holds.

    The message is made only when it is needed: making it costs time in every call, and a size that is
    put into a string would be fixed by torch.compile.
    """
    if not condition:
        raise error(message())


def describe(value: object) -> str:
    """A value for an error message: the shape and dtype of a tensor, the type of all else."""
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def names(dtypes: Sequence[torch.dtype]) -> str:
    """The dtypes as a list in words."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_tensor(name: str, value: object, dtypes: Sequence[torch.dtype]) -> None:
    """`value` must be a strided tensor of one of the dtypes."""
    if isinstance(value, torch.Tensor) and value.dtype in dtypes and _is_dense(value):
        return  # at once: every call comes here
    require(isinstance(value, torch.Tensor), lambda: f"{name} must be a tensor, got {describe(value)}", TypeError)
    layout = "a nested tensor" if value.is_nested else f"layout {value.layout}"
    require(_is_dense(value), lambda: f"{name} must be dense, got {layout}", TypeError)
    raise TypeError(f"{name} must have dtype {names(dtypes)}, got {names([value.dtype])}")


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def check_in_range(name: str, index: torch.Tensor, count: int, of: str) -> None:
    """Debug mode: every value of `index` must number one of `count` things, which the argument `of` has."""
    if not checks_values(index) or not index.numel():
        return
    low, high = int(index.min()), int(index.max())
    require(
        low >= 0 and high < count, lambda: f"{name} must be in [0, {count}) ({of}), got values from {low} to {high}"
    )


def check_same_device(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Two tensors of one call must lie on one device."""
    require(
        value.device == other.device,
        lambda: f"{name} must be on the device of {other_name} ({other.device}), got {value.device}",
    )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """`value` must be one of the named choices."""
    require(value in choices, lambda: f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def check_bool(name: str, value: object) -> None:
    """`value` must be True or False."""
    require(isinstance(value, bool), lambda: f"{name} must be a bool, got {describe(value)}", TypeError)


def plain_int(name: str, value: object, kind: str = "an int") -> int | torch.SymInt:
    """`value`, which must be an integer of any kind, as a Python int (or a symbolic integer of torch.compile).

    Those of numpy have limits that arithmetic with them would meet.
    """
    if type(value) is int or isinstance(value, torch.SymInt):
        return value
    is_int = isinstance(value, Integral) and not isinstance(value, bool)
    require(is_int, lambda: f"{name} must be {kind}, got {describe(value)}", TypeError)
    return int(value)


def positive_int(name: str, value: object) -> int | torch.SymInt:
    """`value`, which must be an integer >= 1, as a Python int (or a symbolic integer of torch.compile)."""
    value = plain_int(name, value)
    require(value >= 1, lambda: f"{name} must be at least 1, got {value}")
    return value


def check_positive_ints(**values: object) -> None:
    """Every value must be an integer >= 1; the names are those of the arguments."""
    for name, value in values.items():
        positive_int(name, value)
