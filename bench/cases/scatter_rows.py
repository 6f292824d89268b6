"""Cases of scatter_rows, beside index_copy_."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from adafocus_ops import scatter_rows
from bench.cases.gather_rows import SIZES, Gather
from bench.harness.case import OURS, Call, Prepared


@dataclass(frozen=True)
class Scatter(Gather):
    """scatter_rows of the rows that a gather took out."""

    op: ClassVar[str] = "scatter_rows"
    input: ClassVar[str] = "rows put back into a batch"
    rival: ClassVar[str] = "index_copy_"

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
        batch, index = self.batch(device), self.index(device)
        rows = batch.flip(0).index_select(0, index)  # [M, width], not those that are there already
        ours, theirs = batch.clone(), batch.clone()  # [N, width], changed in place
        calls: dict[str, Call] = {
            OURS: lambda: (scatter_rows(ours, index, rows),),
            self.rival: lambda: (theirs.index_copy_(0, index, rows),),
        }
        return Prepared(calls, self.bytes(batch, index))


CASES = [Scatter(*SIZES["features"]).case({}, launch_bound=True), Scatter(*SIZES["frames"]).case({})]
