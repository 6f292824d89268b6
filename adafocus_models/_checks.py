"""Argument checks: every message names the argument, the rule, and what arrived."""

import torch


def require(condition: bool, message: str, error: type[Exception] = ValueError) -> None:
    """Raises `error` with the message unless the condition holds."""
    if not condition:
        raise error(message)


def describe(value: object) -> str:
    """What arrived, for an error message: the shape and dtype of a tensor, the type of all else."""
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def check_positive_ints(**values: object) -> None:
    """Every value must be an integer of at least 1."""
    for name, value in values.items():
        is_int = isinstance(value, int) and not isinstance(value, bool)
        require(is_int, f"{name} must be an int, got {describe(value)}", TypeError)
        require(value >= 1, f"{name} must be at least 1, got {value}")
