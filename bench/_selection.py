"""The cases of quantile_frames and exit_gate, with what they replace."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from _cases import OURS, Call, Case, MismatchError, Prepared, Targets, largest_difference
from adafocus_ops import exit_gate, quantile_frames

NUM_VIDEOS = 128
CLEAR = 1e-3  # of a frame: no position is so near to the next frame that rounding could decide


@dataclass(frozen=True)
class Frames:
    """quantile_frames of float32 weights."""

    segments: int  # T
    num_frames: int  # N
    k: int

    op = "quantile_frames"

    def case(self, targets: Mapping[str, Targets]) -> Case:
        """The choice as something to time."""
        return Case(
            op=self.op,
            name=f"quantile_frames, {self.k} of {self.num_frames} by {self.segments} weights",
            input="{} videos",
            mode="forward",
            dtype="float32",
            layout="contiguous",
            baseline="chain",
            tolerance=0,
            targets=targets,
            launch_bound=True,
            prepare=self.prepare,
        )

    def prepare(self, device: torch.device) -> Prepared:
        """Both contenders, ready to run, and the bytes that none can do without."""
        weights = self.weights().to(device)
        calls: dict[str, Call] = {
            OURS: lambda: (quantile_frames(weights, self.num_frames, self.k),),
            "chain": lambda: (quantile_chain(weights, self.num_frames, self.k),),
        }
        return Prepared(calls, weights.nbytes + NUM_VIDEOS * self.k * 8)

    def weights(self) -> Tensor:
        """[NUM_VIDEOS, T] random distributions, always the same."""
        rows = torch.randn(8 * NUM_VIDEOS, self.segments, generator=torch.Generator().manual_seed(0)).softmax(1)
        position = quantile_positions(rows.double(), self.num_frames, self.k)
        clear = ((position - position.round()).abs() > CLEAR).all(1)
        return rows[clear][:NUM_VIDEOS]


def quantile_positions(weights: Tensor, num_frames: int, k: int) -> Tensor:
    """[B, k]: where the piecewise linear distribution function reaches (i + 1/2) / k, in frames."""
    cdf = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
    cdf[:, -1] = 1
    positions = []
    for i in range(k):
        quantile = (i + 0.5) / k
        segment = (cdf[:, 1:] < quantile).sum(1, keepdim=True)
        low, high = cdf.gather(1, segment), cdf.gather(1, segment + 1)
        positions.append((segment + (quantile - low) / (high - low)) * (num_frames / weights.shape[1]))
    return torch.cat(positions, 1)


def quantile_chain(weights: Tensor, num_frames: int, k: int) -> Tensor:
    """[B, k]: one frame after the other, as in the published code."""
    frames = list(quantile_positions(weights, num_frames, k).floor().long().unbind(1))
    for i in range(1, k):
        frames[i] = torch.maximum(frames[i], frames[i - 1] + 1)
    last = torch.arange(num_frames - k, num_frames, device=weights.device)
    return torch.minimum(torch.stack(frames, 1), last)


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
            baseline="softmax, log, nonzero",
            tolerance=1e-5,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
            waits=True,
        )

    def smaller(self) -> "Gate":
        """Of few rows."""
        return replace(self, num_rows=min(self.num_rows, 4096))

    def prepare(self, device: torch.device) -> Prepared:
        """Both contenders, ready to run, and the bytes that none can do without."""
        logits = 3 * torch.randn(self.num_rows, self.num_classes, generator=torch.Generator().manual_seed(0))
        threshold = middle_of_a_gap(torch.distributions.Categorical(logits=logits.double()).entropy())
        logits = logits.to(device)
        # Lists of static size need no word from the device; on a CPU there is none to wait for.
        capacity = self.num_rows if device.type == "cuda" else None

        def ours() -> tuple[Tensor, ...]:
            gate = exit_gate(logits, threshold, capacity=capacity)
            return gate.score, gate.keep, gate.leave

        calls: dict[str, Call] = {OURS: ours, "softmax, log, nonzero": functools.partial(gate_chain, logits, threshold)}
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


def gate_chain(logits: Tensor, threshold: float) -> tuple[Tensor, ...]:
    """The entropy of each row, and which rows stay and leave, as in the published code."""
    p = logits.softmax(1)
    score = -(p * p.log()).sum(1)
    exited = score <= threshold
    return score, (~exited).nonzero()[:, 0], exited.nonzero()[:, 0]


def middle_of_a_gap(values: Tensor) -> float:
    """Where about half the values are below, and none is so near that rounding could decide."""
    ordered = values.sort().values
    middle = ordered[len(values) // 4 : 3 * len(values) // 4 + 2]
    widest = middle.diff().argmax()
    return middle[widest : widest + 2].mean().item()


CASES = [
    *(Frames(*sizes).case({"cuda": Targets(microseconds=5)}) for sizes in ((8, 36, 12), (16, 48, 16))),
    Gate(128, 200).case({"cuda": Targets(microseconds=5)}, launch_bound=True),
    Gate(1024, 400).case({"cuda": Targets(microseconds=5)}, launch_bound=True),
    Gate(4096, 400).case({"cpu": Targets(ratio=4)}, launch_bound=True),
]
