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
    if torch.autograd.forward_ad._current_level >= 0 and any(map(_has_tangent, tensors)):
        raise NotImplementedError(
            f"{op} has no forward-mode derivative: use reverse mode (backward, torch.func.vjp, jacrev)"
        )
    return torch.is_grad_enabled() and any(map(_requires_grad, tensors))


def _has_tangent(tensor: Tensor) -> bool:
    return torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None


def _requires_grad(tensor: Tensor) -> bool:
    """Also of a tensor that vmap maps, which does not say so of what it wraps."""
    while torch._C._functorch.is_batchedtensor(tensor) and not tensor.requires_grad:
        if torch.compiler.is_compiling():  # which would take the tensor's word for it, and drop the gradient
            torch._dynamo.graph_break("an op of adafocus_ops under vmap: use torch.no_grad(), or map outside compile")
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.requires_grad


def gradient(op: str, kernel: Callable, *arguments: Any) -> Tensor:
    """A gradient of an op, from the kernel that computes it; it has no derivative, and asking for one raises."""
    if not torch.is_grad_enabled():  # nobody can; and the dynamo of torch 2.11 cannot trace the function
        return kernel(*arguments)
    return _Gradient.apply(op, kernel, *arguments)


class _Gradient(torch.autograd.Function):
    """A function that is once differentiable, and says so by the name of its op."""

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
