"""Mean and standard deviation as the scale and shift that crops read pixels with."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .checks import describe, require

MAX_CONSTANTS = 64  # that are kept on a device


def affine_of(mean: Any, std: Any, frames: Tensor, dtype: torch.dtype) -> Tensor | None:
    """[2, C]: the scale and the shift that normalise a pixel, or None to leave it."""
    if mean is None and std is None:
        return None
    what = (frames.shape[-3], frames.dtype == torch.uint8, frames.device, dtype)
    plain = type(frames) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    if not (plain and _is_constant(mean) and _is_constant(std)):
        return _build_affine(mean, std, *what)
    # Constants are sent to the device once: later calls, and captures of CUDA graphs, find them there.
    key = (*(tuple(value) if isinstance(value, Sequence) else value for value in (mean, std)), *what)
    if key in _constant_affines:
        return _constant_affines[key]
    channels, integer, device, dtype = what
    with torch.inference_mode(False):  # one copy that is waited for: other streams will read it
        affine = _build_affine(mean, std, channels, integer, torch.device("cpu"), dtype)
        require(
            bool(affine.isfinite().all()),
            lambda: f"std must not be 0, and mean and std must be finite, got mean={mean!r} and std={std!r}",
        )
        affine = affine.to(device)
    # A transform's tensors die with it. Nothing is ever dropped: captured graphs point to what is here.
    if len(_constant_affines) < MAX_CONSTANTS and not torch._C._functorch.is_functorch_wrapped_tensor(affine):
        _constant_affines[key] = affine
    return affine


# The affines of constant mean and std by all that they depend on; a program has a handful of them.
_constant_affines: dict[tuple, Tensor] = {}


def _is_constant(value: Any) -> bool:
    numbers = value if isinstance(value, Sequence) else (value,)
    return all(number is None or isinstance(number, int | float) for number in numbers)


def _build_affine(
    mean: Any, std: Any, channels: int, integer: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    mean = _per_channel("mean", 0.0 if mean is None else mean, channels, device)
    std = _per_channel("std", 1.0 if std is None else std, channels, device)
    scale = 1 / (std * 255) if integer else 1 / std
    return torch.stack([scale, -mean / std]).to(dtype)


def _numbers(name: str, value: Any, device: torch.device) -> Tensor:
    kwargs = {"dtype": torch.float64, "device": device}
    try:
        # Written there: a constant of the host would be copied, and waited for, by every call of a compiled program.
        if isinstance(value, int | float):
            return torch.full((), value, **kwargs)
        if isinstance(value, Sequence) and value and _is_constant(value):
            return torch.stack([torch.full((), number, **kwargs) for number in value])
        return torch.as_tensor(value, **kwargs)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"{name} must be a number, a sequence of numbers or a tensor, got {value!r}") from error


def _per_channel(name: str, value: Any, channels: int, device: torch.device) -> Tensor:
    """[C] float64, a constant."""
    if not isinstance(value, Tensor):
        value = _numbers(name, value, device)
    value = value.detach().to(device, torch.float64)
    if value.ndim == 0:
        return value.expand(channels)
    require(
        value.ndim == 1 and value.shape[0] == channels,
        lambda: (
            f"{name} must be a number or one value for each of {channels} channels (C of frames [..., C, H, W]),"
            f" got {describe(value)}"
        ),
    )
    return value
