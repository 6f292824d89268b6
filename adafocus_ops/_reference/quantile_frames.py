"""quantile_frames in plain PyTorch."""

import torch
from torch import Tensor

from . import race


def fwd(
    weights: Tensor, num_frames: int, k: int, jitter: Tensor | None, seed: Tensor | None, row_id: Tensor | None
) -> Tensor:
    """Frames at the quantiles (i + jitter) / k of the piecewise linear CDF of weights [B, T]; int64 [B, k].

    Every operation on float32 is a single one, so that all backends agree; the CDF is summed in float64 first.
    """
    weights = race.clean_weights(weights)
    rows, bins = weights.shape
    dtype, steps = weights.dtype, torch.arange(k, device=weights.device)
    if seed is not None:
        row_id = torch.arange(rows, device=weights.device) if row_id is None else row_id
        jitter = 1 - race.uniform(race.random_words(seed, row_id, race.JITTER, 1, k)[:, 0])
    jitter = torch.full((), 0.5, device=weights.device) if jitter is None else jitter.nan_to_num(0.5).clamp(0, 1)
    quantile = ((steps.to(dtype) + jitter.to(dtype)) / k).expand(rows, k).contiguous()

    cdf = torch.nn.functional.pad(weights.double().cumsum(1).to(dtype), (1, 0))  # [B, T + 1], c_0 = 0
    cdf[:, -1] = 1
    # The first bin end, from 1 on, that reaches the quantile: bin .. bin + 1.
    bin_ = torch.searchsorted(cdf[:, 1:].contiguous(), quantile).clamp(max=bins - 1)
    low, high = cdf.gather(1, bin_), cdf.gather(1, bin_ + 1)
    inside = torch.where(high > low, (quantile - low) / (high - low), 0)
    index = (num_frames / bins * (bin_ + inside.clamp(0, 1))).long()

    # index_i = max(index_i, index_{i-1} + 1) from left to right is a running maximum of index_i - i.
    index = (index - steps).cummax(1).values + steps
    return torch.minimum(index, num_frames - k + steps)
