"""Cases of exit_gate, beside the published code."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adafocus_ops import exit_gate
from bench.harness.case import OURS, Call, Case, MismatchError, Prepared, Targets, largest_difference
from bench.harness.scaling import Series


@dataclass(frozen=True)
class Gate:
    """exit_gate of float32 logits, of which about half leave."""

    num_rows: int
    num_classes: int

    op = "exit_gate"

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The gate as something to time."""
        return Case(
            op=self.op,
            name=f"exit_gate, {self.num_rows} x {self.num_classes}",
            input="logits",
            mode="forward",
            dtype="float32",
            layout="contiguous",
            reference="softmax, log, nonzero",
            rival="softmax, log, nonzero",
            tolerance=1e-5,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            rival_waits=True,
        )

    def smaller(self) -> "Gate":
        """The same of few rows."""
        return replace(self, num_rows=min(self.num_rows, 4096))

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
        logits = 3 * torch.randn(self.num_rows, self.num_classes, generator=torch.Generator().manual_seed(0))
        threshold = middle_of_a_gap(torch.distributions.Categorical(logits=logits.double()).entropy())
        logits = logits.to(device)
        # Lists of static size need no word from the device; on a CPU there is none to wait for.
        capacity = self.num_rows if device.type == "cuda" else None

        def ours() -> tuple[Tensor, ...]:
            gate = exit_gate(logits, threshold, capacity=capacity)
            return gate.score, gate.keep, gate.leave

        calls: dict[str, Call] = {
            OURS: ours,
            "softmax, log, nonzero": functools.partial(published_gate, logits, threshold),
        }
        # A score, a flag, and a place in one of the lists.
        return Prepared(calls, logits.nbytes + self.num_rows * (4 + 1 + 8), gate_error)


def gate_error(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    """The largest difference of a score.

    Raises:
        MismatchError: others stay or leave, or in another order.
    """
    for name, found, rows in zip(("stay", "leave"), results[1:], expected[1:], strict=True):
        if not torch.equal(found[: len(rows)], rows) or (found[len(rows) :] != -1).any():
            raise MismatchError(f"lets other rows {name}")
    return largest_difference(results[:1], expected[:1])


def published_gate(logits: Tensor, threshold: float) -> tuple[Tensor, ...]:
    """The entropy of each row, and the rows that stay and leave, as in the published code."""
    p = logits.softmax(1)
    score = -(p * p.log()).sum(1)
    exited = score <= threshold
    return score, (~exited).nonzero()[:, 0], exited.nonzero()[:, 0]


def middle_of_a_gap(values: Tensor) -> float:
    """A value that about half of them are below, and none so near that rounding could decide."""
    ordered = values.sort().values
    middle = ordered[len(values) // 4 : 3 * len(values) // 4 + 2]
    widest = middle.diff().argmax()
    return middle[widest : widest + 2].mean().item()


CASES = [
    Gate(128, 200).case({"cuda": Targets(microseconds=5)}, launch_bound=True),
    Gate(1024, 400).case({"cuda": Targets(microseconds=5)}, launch_bound=True),
    Gate(4096, 400).case({"cpu": Targets(ratio=4)}, launch_bound=True),
]


def gate_series(rows: Sequence[int]) -> list[Series]:
    """The series of exit_gate, for these numbers of rows."""
    return [Series("exit_gate: rows", 1, {n: Gate(n, 400) for n in rows})]


SERIES = {"cpu": gate_series([256, 1024, 4096]), "cuda": gate_series([128, 1024, 4096, 32768, 262144])}
