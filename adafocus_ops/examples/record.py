"""The form of an op's examples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .tensors import FLOATS


class Example(NamedTuple):
    """One call of an op, `EXAMPLES[op].call(*args, **kwargs)`."""

    name: str
    args: tuple
    kwargs: dict[str, Any] = {}
    conditioning: float = 1.0  # how many epsilons of the result a rounding of the inputs is worth
    gradcheck: bool = True  # whether the gradient is that of the forward


@dataclass(frozen=True)
class OpExamples:
    """The calls of one op.

    Args:
        call: the public function, or one of its signature without side effects.
        small: (dtype, layout) -> examples; layout is how the tensors lie in memory.
        any_size: (count) -> a float32 example of so many boxes, items or rows.
        real_size: examples on the device "meta", which hold no memory, of the dtypes and layouts of real use.
        traced: names of the small examples that show torch.library.opcheck every optional argument, given and not.
        dtypes, layouts: of `small`.
        into: the call that writes its result into its first argument and returns that; None if there is none.
        differentiable: positions in Example.args; where an example has None there, it is left out.
        batched: those of `differentiable` whose first dimension is a batch of any size; by default all.
    """

    call: Callable
    small: Callable[[torch.dtype, str], Iterator[Example]]
    any_size: Callable[[int], Example]
    real_size: Callable[[], Iterator[Example]]
    traced: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...] = FLOATS
    layouts: tuple[str, ...] = ("contiguous",)
    into: Callable | None = None
    differentiable: tuple[int, ...] = ()
    batched: tuple[int, ...] | None = None

    def differentiable_of(self, example: Example) -> tuple[int, ...]:
        """The positions of an example's differentiable arguments."""
        return tuple(position for position in self.differentiable if example.args[position] is not None)

    @property
    def batched_arguments(self) -> tuple[int, ...]:
        return self.differentiable if self.batched is None else self.batched
