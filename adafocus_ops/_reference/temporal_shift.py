"""temporal_shift in plain PyTorch."""

import torch
from torch import Tensor


def temporal_shift(x: Tensor, num_frames: int, fold: int) -> Tensor:
    """x [B * num_frames, C, H, W]: channels [0, fold) from frame t + 1, [fold, 2 fold) from frame t - 1."""
    clips = x.unflatten(0, (-1, num_frames))  # [B, T, C, H, W]
    out = torch.empty_like(clips)  # keeps channels_last
    out[:, :-1, :fold] = clips[:, 1:, :fold]
    out[:, -1:, :fold] = 0
    out[:, 1:, fold : 2 * fold] = clips[:, :-1, fold : 2 * fold]
    out[:, :1, fold : 2 * fold] = 0
    out[:, :, 2 * fold :] = clips[:, :, 2 * fold :]
    return out.flatten(0, 1)
