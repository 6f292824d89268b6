"""Cases of quantile_frames, beside the published code."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from adafocus_ops import quantile_frames
from bench.harness.case import OURS, Call, Case, Prepared, Targets

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
            reference="chain",
            rival="chain",
            tolerance=0,
            targets=targets,
            launch_bound=True,
            prepare=self.prepare,
        )

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
        weights = self.weights().to(device)
        calls: dict[str, Call] = {
            OURS: lambda: (quantile_frames(weights, self.num_frames, self.k),),
            "chain": lambda: (published_frames(weights, self.num_frames, self.k),),
        }
        return Prepared(calls, weights.nbytes + NUM_VIDEOS * self.k * 8)

    def weights(self) -> Tensor:
        """[NUM_VIDEOS, T] random distributions, always the same."""
        rows = torch.randn(8 * NUM_VIDEOS, self.segments, generator=torch.Generator().manual_seed(0)).softmax(1)
        position = quantile_positions(rows.double(), self.num_frames, self.k)
        clear = ((position - position.round()).abs() > CLEAR).all(1)
        return rows[clear][:NUM_VIDEOS]


def quantile_positions(weights: Tensor, num_frames: int, k: int) -> Tensor:
    """[B, k]: positions, in frames, at which the piecewise linear distribution function reaches (i + 1/2) / k."""
    cdf = torch.nn.functional.pad(weights.cumsum(1), (1, 0))
    cdf[:, -1] = 1
    positions = []
    for i in range(k):
        quantile = (i + 0.5) / k
        segment = (cdf[:, 1:] < quantile).sum(1, keepdim=True)
        low, high = cdf.gather(1, segment), cdf.gather(1, segment + 1)
        positions.append((segment + (quantile - low) / (high - low)) * (num_frames / weights.shape[1]))
    return torch.cat(positions, 1)


def published_frames(weights: Tensor, num_frames: int, k: int) -> Tensor:
    """[B, k]: frames one after the other, as in the published code."""
    frames = list(quantile_positions(weights, num_frames, k).floor().long().unbind(1))
    for i in range(1, k):
        frames[i] = torch.maximum(frames[i], frames[i - 1] + 1)
    last = torch.arange(num_frames - k, num_frames, device=weights.device)
    return torch.minimum(torch.stack(frames, 1), last)


CASES = [Frames(*sizes).case({"cuda": Targets(microseconds=5)}) for sizes in ((8, 36, 12), (16, 48, 16))]
