"""weighted_sample in plain PyTorch."""

from torch import Tensor

from . import race


def fwd(weights: Tensor, k: int, num_samples: int, seed: Tensor, row_id: Tensor | None) -> Tensor:
    """k draws without replacement from each row of weights [B, T], num_samples times: [B, num_samples, k] int64."""
    return race.draw(weights, k, num_samples, seed, row_id)
