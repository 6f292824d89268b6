"""Cases of gather_rows, beside index_select."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adafocus_ops import gather_rows
from bench.harness.case import OURS, Call, Case, Prepared, Targets, dtype_name


@dataclass(frozen=True)
class Gather:
    """gather_rows of some rows of a batch, in their order."""

    num_rows: int  # N, of the batch
    num_gathered: int  # M
    width: int  # values of a row
    dtype: torch.dtype

    op: ClassVar[str] = "gather_rows"
    input: ClassVar[str] = "rows taken out of a batch"
    rival: ClassVar[str] = "index_select"

    def case(self, targets: Mapping[str, Targets], launch_bound: bool = False) -> Case:
        """The copy as something to time."""
        dtype = dtype_name(self.dtype)
        return Case(
            op=self.op,
            name=f"{self.op} {dtype}, {self.num_gathered} of {self.num_rows} rows of {self.width}",
            input=self.input,
            mode="forward",
            dtype=dtype,
            layout="contiguous",
            reference=self.rival,
            rival=self.rival,
            tolerance=0,
            targets=targets,
            launch_bound=launch_bound,
            prepare=self.prepare,
        )

    def prepare(self, device: torch.device) -> Prepared:
        """Both calls, ready to run, and the bytes that none can do without."""
        batch, index = self.batch(device), self.index(device)
        calls: dict[str, Call] = {
            OURS: lambda: (gather_rows(batch, index),),
            self.rival: lambda: (batch.index_select(0, index),),
        }
        return Prepared(calls, self.bytes(batch, index))

    def batch(self, device: torch.device) -> Tensor:
        """[N, width] random numbers, always the same."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(1, 256, (self.num_rows, self.width), generator=generator).to(device, self.dtype)

    def index(self, device: torch.device) -> Tensor:
        """[M] int64: which rows, always the same, in their order as an exit gate lists them."""
        order = torch.randperm(self.num_rows, generator=torch.Generator().manual_seed(1))
        return order[: self.num_gathered].sort().values.to(device)

    def bytes(self, batch: Tensor, index: Tensor) -> int:
        """Bytes of the index and of the rows, which are read and written."""
        return index.nbytes + 2 * self.num_gathered * batch[0].nbytes


# Half the videos of a batch, by their features and by a whole frame of each.
SIZES = {"features": (128, 64, 1280, torch.float32), "frames": (128, 64, 3 * 224 * 224, torch.uint8)}

CASES = [Gather(*SIZES["features"]).case({}, launch_bound=True), Gather(*SIZES["frames"]).case({})]
