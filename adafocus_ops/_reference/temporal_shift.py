"""temporal_shift in plain PyTorch."""

import torch
from torch import Tensor

from .._layouts import memory_format_of


def fwd(x: Tensor, num_frames: int, fold: int, inverse: bool) -> Tensor:
    """x [B * num_frames, C, H, W]: channels [0, fold) from frame t + 1, [fold, 2 fold) from t - 1, or inverted."""
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=memory_format_of(x))
    clips, out = (t.unflatten(0, (-1, num_frames)) for t in (x, result))  # [B, T, C, H, W]
    later, earlier = slice(0, fold), slice(fold, 2 * fold)  # channels that come from the frame after, before
    if inverse:
        later, earlier = earlier, later
    out[:, :-1, later] = clips[:, 1:, later]
    out[:, -1:, later] = 0
    out[:, 1:, earlier] = clips[:, :-1, earlier]
    out[:, :1, earlier] = 0
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return result
