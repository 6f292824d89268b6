"""The parts of autograd that all ops share: the question whether it watches, and gradients that have none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def differentiable(op: str, *tensors: Tensor) -> bool:
    """Tells if autograd watches a result of these tensors.

    Raises:
        NotImplementedError: in forward mode, in which no op has derivatives.
    """
    _forbid_forward_mode(op, tensors)
    return torch.is_grad_enabled() and any(map(_requires_grad, tensors))


def gradient(op: str, kernel: Callable, *arguments: Any) -> Tensor:
    """A gradient of an op, by its kernel; it is once differentiable.

    Raises:
        NotImplementedError: in forward mode (over reverse mode).
    """
    _forbid_forward_mode(op, arguments)
    return _Gradient.apply(op, kernel, *arguments)


def _forbid_forward_mode(op: str, arguments: tuple) -> None:
    if torch.autograd.forward_ad._current_level < 0:
        return
    if any(isinstance(value, Tensor) and _has_tangent(value) for value in arguments):
        raise NotImplementedError(
            f"{op} has no forward-mode derivative: use reverse mode (backward, torch.func.vjp, jacrev)"
        )


def _has_tangent(tensor: Tensor) -> bool:
    """Also within the wrappers of torch.func."""
    if torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None:
        return True
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return wrapped and _has_tangent(torch._C._functorch.get_unwrapped(tensor))


def _requires_grad(tensor: Tensor) -> bool:
    """Also of a tensor that vmap maps, which does not say so of what it wraps."""
    while torch._C._functorch.is_batchedtensor(tensor) and not tensor.requires_grad:
        if torch.compiler.is_compiling():  # which would take the tensor's word for it, and drop the gradient
            torch._dynamo.graph_break("an op of adafocus_ops under vmap: use torch.no_grad(), or map outside compile")
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


class _Gradient(torch.autograd.Function):
    """A gradient of an op, which has no derivative of its own: asking for one raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(op: str, kernel: Callable, *arguments: Any) -> Tensor:
        return kernel(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.op = inputs[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        raise RuntimeError(f"{ctx.op} is once differentiable: its gradient has no derivative")
