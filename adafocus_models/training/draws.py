"""What is random in a batch, the same for a video whichever process it is on, and whatever part of the batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers for rows first, first + 1, ... of a batch of `total`, all of which are drawn.

    Args:
        generator: what they are drawn by; None for the device's.
        first, total: where these rows are in the whole batch, which other processes hold the rest of.
    """

    generator: torch.Generator | None
    first: int
    total: int

    def uniform(self, like: Tensor, *shape: int) -> Tensor:
        """[B, *shape] in [0, 1), of the rows, dtype and device of like [B, ...]."""
        drawn = torch.rand((self.total, *shape), generator=self.generator, device=like.device, dtype=like.dtype)
        return drawn[self.first : self.first + like.shape[0]]

    def normal(self, like: Tensor) -> Tensor:
        """Like [B, ...], of mean 0 and deviation 1."""
        shape = (self.total, *like.shape[1:])
        drawn = torch.randn(shape, generator=self.generator, device=like.device, dtype=like.dtype)
        return drawn[self.first : self.first + like.shape[0]]

    def keys(self, like: Tensor) -> dict[str, Any]:
        """Arguments of an op that draws for each row of like [B, ...] by itself."""
        seed = torch.randint(1 << 62, (), generator=self.generator, device=like.device)
        return {"seed": seed, "row_id": torch.arange(self.first, self.first + like.shape[0], device=like.device)}
