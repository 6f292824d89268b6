"""Policies: the spatial one of where to look, and the temporal one of when."""

import torch
from torch import Tensor, nn


class SpatialPolicy(nn.Module):
    """One deformable patch per video, from the glance's feature maps.

    Args:
        channels: of the feature maps.
        num_frames, map_size: T and the side F of the maps [B, channels, T, F, F], all of which the last
            convolution spans.

    Source: Uni-AdaFocus, Section 4.1.2 and Appendix H.1.
    """

    def __init__(self, channels: int, num_frames: int, map_size: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(channels, hidden, 1, bias=False),
            nn.BatchNorm3d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm3d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, hidden, 3, padding=1, bias=False),
            nn.BatchNorm3d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, 4, (num_frames, map_size, map_size), bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Actions [B, 4], (a_y, a_x, a_h, a_w) in (0, 1), from feature maps [B, T, channels, F, F].

        Computed in float32 at least from the last convolution on: an action moves a box by up to 224
        pixels, so a rounding of 2^-11 would move it by a tenth of one.
        """
        scores = self.layers(maps.transpose(1, 2)).flatten(1)
        return _at_least_float32(scores).sigmoid()


class TemporalPolicy(nn.Module):
    """A weight for every glance frame, from the pooled features: how much its part of the video matters.

    Source: Uni-AdaFocus, Section 4.2 and Appendix H.1.
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        # (3, 1) kernels over [B, channels, T, 1]: convolutions along time, in the published layout.
        self.layers = nn.Sequential(
            nn.Conv2d(channels, hidden, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 1, 1, bias=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Weights [B, T] of sum 1, float32 at least, from features [B, T, channels]."""
        scores = self.layers(features.transpose(1, 2).unsqueeze(-1)).flatten(1)
        return _at_least_float32(scores).softmax(1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
