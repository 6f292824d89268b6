"""The calls of raw ops that public calls make, forward and backward: recorded, not written down again."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adafocus_ops import backends
from adafocus_ops.examples import EXAMPLES, Example

PARTS = {f"adafocus::_{op}_{part}": (op, part) for op in backends.ops() for part in backends.parts(op)}


class RawCall(NamedTuple):
    """One call of a part of an op."""

    op: str
    part: str
    arguments: dict[str, Any]  # by the names of the schema


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[RawCall] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in PARTS:
            op, part = PARTS[func._schema.name]
            arguments = dict(zip(backends.kernel(op, part, "cpu").names, args, strict=True))
            if "out" in arguments:  # it is about to be written to
                arguments["out"] = arguments["out"].clone()
            self.calls.append(RawCall(op, part, arguments))
        return func(*args, **(kwargs or {}))


def raw_calls(op: str, example: Example) -> list[RawCall]:
    """The calls that an example makes: of the forward, the same into a tensor of zeros if the op does that, and of the
    gradient of every differentiable argument.

    An integer argument that would be differentiable is taken as float16 in the call of its gradient.
    """
    examples = EXAMPLES[op]
    with _Recorder() as forward:
        out = examples.call(*example.args, backend="reference", **example.kwargs)
        if examples.into:
            examples.into(torch.zeros_like(out), *example.args, backend="reference", **example.kwargs)
    found = forward.calls
    for position in examples.differentiable_of(example):
        args = list(example.args)
        if not args[position].is_floating_point():
            args[position] = args[position].half()
        args[position] = args[position].detach().requires_grad_()
        out = examples.call(*args, backend="reference", **example.kwargs)
        with _Recorder() as backward:
            torch.autograd.grad(out, args[position], _noise_like(out))
        found = found + backward.calls
    return found


def _noise_like(out: Tensor) -> Tensor:
    """In the memory format of `out`."""
    noise = torch.empty_like(out)
    return noise if out.is_meta else noise.copy_(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)))
