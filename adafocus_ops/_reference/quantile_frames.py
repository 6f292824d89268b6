"""quantile_frames in plain PyTorch."""

import torch
from torch import Tensor


def quantile_frames(weights: Tensor, num_frames: int, k: int, jitter: Tensor | None) -> Tensor:
    """Frames at the quantiles (i + jitter) / k of the piecewise linear CDF of weights [B, T]; int64 [B, k]."""
    dtype = torch.promote_types(weights.dtype, torch.float32)
    weights = weights.to(dtype)
    weights = torch.where(weights > 0, weights, 0)  # negative and NaN count as zero
    bins = weights.shape[1]
    steps = torch.arange(k, device=weights.device)
    quantile = (
        steps.to(dtype) + (0.5 if jitter is None else jitter.to(dtype).nan_to_num(0.5).clamp(0, 1))
    ) / k  # [k] or [B, k]
    quantile = quantile.expand(weights.shape[0], k).contiguous()

    cdf = torch.nn.functional.pad(weights.cumsum(1), (1, 0))  # [B, T + 1], c_0 = 0
    cdf[:, -1] = 1
    # The first bin end, from 1 on, that reaches the quantile: bin - 1 .. bin.
    bin_ = torch.searchsorted(cdf[:, 1:].contiguous(), quantile).clamp(max=bins - 1) + 1
    low, high = cdf.gather(1, bin_ - 1), cdf.gather(1, bin_)
    inside = torch.where(high > low, (quantile - low) / (high - low), 0)
    position = num_frames / bins * ((bin_ - 1) + inside.clamp(0, 1))
    index = position.floor().long()

    # index_i = max(index_i, index_{i-1} + 1) from left to right is a running maximum of index_i - i.
    index = (index - steps).cummax(1).values + steps
    return torch.minimum(index, num_frames - k + steps)
