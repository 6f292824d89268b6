"""The parts of autograd that all ops share: the question whether it watches, and gradients that have none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def differentiable(*tensors: Tensor) -> bool:
    """Tells if autograd watches a result of these tensors, in reverse or forward mode."""
    # A tensor that vmap maps does not say whether what it wraps requires grad.
    may_require_grad = any(map(torch._C._functorch.is_batchedtensor, tensors)) or any(t.requires_grad for t in tensors)
    forward_mode = torch.autograd.forward_ad._current_level >= 0
    return forward_mode or (may_require_grad and torch.is_grad_enabled())


class Gradient(torch.autograd.Function):
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
