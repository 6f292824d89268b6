"""A loop over exits: who is still inside, and the answers of those who left."""

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from adafocus_ops import ExitGate
from adafocus_ops.checks import describe, positive_int, require

from .arguments import check_thresholds
from .thresholds import Thresholds


@runtime_checkable
class Decider(Protocol):
    """Decides at every exit but the last, as `Thresholds` do; it may be relied on to sort every row."""

    def gate(self, logits: Tensor, exit_number: int) -> ExitGate:
        """Sorts the rows of logits [B', C] into those that leave at this exit and those that go on."""


Gate = Decider | Callable[[Tensor], ExitGate]


class ExitLoop:
    """A batch of B rows on its way through E exits, which becomes smaller where rows are sure.

        exits = ExitLoop(gate, num_exits=len(heads))
        for layer, head in zip(layers, heads):
            x = layer(x)
            exits.answer(head(x))  # the sure rows leave
            x = exits.keep(x)  # of the others
            if exits.is_empty:
                break
        return exits.logits, exits.exit_index

    Args:
        gate: `Thresholds` of E exits; or a function that is called with the logits [B', C] of each exit but the last
            and returns an `adafocus_ops.ExitGate` (without capacity); or None, with which all go on to the last exit.
        num_exits: E.
        batch: a tensor [B, ...], for a network that asks who is inside before it answers.

    Attributes:
        rows: [B'] int64, the numbers in the batch of the rows that are still inside, in order.
        logits: [B, C], each row's answer at the last exit that it reached.
        exit_index: [B] int64, that exit; of rows still inside the last one.

    Gradients: to the answers, and through `keep` and `in_batch`. With a gate each exit waits for the device.

    Raises:
        TypeError, ValueError: a gate, or what it returns, that does not fit.
    """

    def __init__(self, gate: Gate | None, num_exits: int, batch: Tensor | None = None) -> None:
        num_exits = positive_int("num_exits", num_exits)
        if isinstance(gate, Thresholds):
            check_thresholds(gate, num_exits, "num_exits")
        require(
            gate is None or isinstance(gate, Decider) or callable(gate),
            lambda: (
                "gate must be Thresholds, a function from logits [B, C] to adafocus_ops.ExitGate, or None,"
                f" got {describe(gate)}"
            ),
            TypeError,
        )
        self.num_exits = num_exits
        self._gate = gate
        self._answers: list[Tensor] = []  # [B, C] an exit, NaN for the rows that did not reach it
        self._kept: Tensor | None = None  # [B'] of the rows before the last answer; None for all
        if batch is not None:
            self._begin(batch)

    def _begin(self, batch: Tensor) -> None:
        self.rows = torch.arange(batch.shape[0], device=batch.device)
        self.exit_index = torch.full_like(self.rows, self.num_exits - 1)

    def answer(self, logits: Tensor) -> None:
        """Takes the answers [B', C] of all rows inside at the next exit, and lets the sure ones leave."""
        exit_number = len(self._answers)
        require(exit_number < self.num_exits, lambda: f"there are {self.num_exits} exits, and all have answered")
        if exit_number == 0:
            self.logits = logits
            self._begin(logits)
        require(
            logits.shape[0] == self.rows.shape[0],
            lambda: f"logits must be [B', C] with B'={self.rows.shape[0]} rows still inside, got {describe(logits)}",
        )
        self._answers.append(self.in_batch(logits, torch.nan))
        self.logits = logits if self._gate is None else self.logits.index_copy(0, self.rows, logits)
        self._kept = None
        if self._gate is not None and exit_number < self.num_exits - 1:
            decision = decide(self._gate, logits, exit_number)
            self.exit_index[self.rows[decision.leave]] = exit_number
            self._kept = decision.keep
            self.rows = self.rows[decision.keep]

    def answer_each(self, logits: Tensor) -> None:
        """Takes the answers [B', n, C] of all rows inside at the next n exits; n > 1 without a gate only."""
        for at_one_exit in logits.unbind(1):
            self.answer(at_one_exit)

    def steps(self, count: int) -> Iterator[slice]:
        """Steps 0 to count - 1 of a network that has an exit after each: all at once where there is no gate, else one
        after the other while there are rows inside."""
        if self._gate is None:
            yield slice(0, count)
            return
        for step in range(count):
            if self._answers and self.is_empty:
                return
            yield slice(step, step + 1)

    def keep(self, x: Tensor) -> Tensor:
        """[B'', ...]: the rows that stayed at the last exit, of x [B', ...] with all that had been inside before it."""
        return x if self._kept is None else x[self._kept]

    def in_batch(self, values: Tensor, fill: float) -> Tensor:
        """[B, ...]: values [B', ...] of the rows inside in their places in the batch, and fill in the others."""
        if self._gate is None:
            return values
        batch = values.new_full((self.exit_index.shape[0], *values.shape[1:]), fill)
        return batch.index_copy(0, self.rows, values)

    @property
    def is_empty(self) -> bool:
        """Tells that all rows have left; never without a gate, so that no traced size is looked at."""
        return self._gate is not None and self.rows.shape[0] == 0

    @property
    def exit_logits(self) -> Tensor:
        """[B, E, C]: the answers at every exit, NaN where a row did not reach it."""
        unreached = [torch.full_like(self.logits, torch.nan)] * (self.num_exits - len(self._answers))
        return torch.stack([*self._answers, *unreached], 1)


def decide(gate: Gate, logits: Tensor, exit_number: int) -> ExitGate:
    """Who of the rows of logits [B', C] leaves at this exit, once it is clear that every other one stays."""
    if isinstance(gate, Decider):
        return gate.gate(logits, exit_number)
    decision = gate(logits)
    require(
        isinstance(decision, ExitGate),
        lambda: f"gate must return an adafocus_ops.ExitGate, got {describe(decision)}",
        TypeError,
    )
    keep, leave = decision.keep, decision.leave
    if logits.is_meta:  # has no values that could be wrong
        return decision
    listed = torch.cat([keep, leave]).sort().values
    require(
        torch.equal(listed, torch.arange(logits.shape[0], device=listed.device)),
        lambda: (
            f"gate must sort each of the {logits.shape[0]} videos into keep or leave (no capacity, no active),"
            f" got {keep.tolist()} and {leave.tolist()}"
        ),
    )
    return decision
