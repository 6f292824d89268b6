"""Policies of Uni-AdaFocus, the spatial one of where to look and the temporal one of when; what older ones share."""

import torch
from torch import Tensor, nn

from adafocus_ops.boxes import from_action

# Entry of nn.GRUCell -> that of nn.GRU with one layer.
GRU_LAYERS = {name: f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


class SpatialPolicy(nn.Module):
    """Deformable patches, from the glance's feature maps: one a video, or one a glance frame.

    Args:
        channels: of the feature maps.
        num_frames, map_size: T and the side F of the maps [B, channels, T, F, F].
        each_frame: an action for every frame; the last convolution then spans one of them, else all.

    Source: Uni-AdaFocus, Section 4.1.2 and Appendix H.1.
    """

    def __init__(
        self, channels: int, num_frames: int, map_size: int, *, each_frame: bool = False, hidden: int = 128
    ) -> None:
        super().__init__()
        self.each_frame = each_frame
        span = 1 if each_frame else num_frames
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
            nn.Conv3d(hidden, 4, (span, map_size, map_size), bias=False),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Actions [B, 4], or [B, T, 4] for each frame: (a_y, a_x, a_h, a_w) in (0, 1). Of maps [B, T, channels, F, F].

        Computed in float32 at least from the last convolution on: an action moves a box by up to 224
        pixels, so a rounding of 2^-11 would move it by a tenth of one.
        """
        scores = self.layers(maps.transpose(1, 2))  # [B, 4, 1 or T, 1, 1]
        scores = scores.flatten(2).transpose(1, 2) if self.each_frame else scores.flatten(1)
        return at_least_float32(scores).sigmoid()


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
        return at_least_float32(scores).softmax(1)


def state_encoder(
    channels: int, map_size: int, hidden: int, activation: type[nn.Module], *, width: int = 64
) -> nn.Sequential:
    """The first layers of the policies of AdaFocusV2 and AdaFocus-TSM: maps [M, channels, F, F] to [M, hidden].

    Source: AdaFocusV2, Section 4; the published implementations.
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        activation(),
        nn.Flatten(),
        nn.Linear(width * map_size**2, hidden),
        nn.BatchNorm1d(hidden),
        activation(),
    )


def run_gru(cell: nn.GRUCell, inputs: Tensor, state: Tensor | None) -> Tensor:
    """The states [B, n, hidden] after each of n more inputs [B, n, channels]; state [B, hidden] before, or None."""
    states = []
    for x in inputs.unbind(1):
        state = cell(x, state)
        states.append(state)
    return torch.stack(states, 1)


def fixed_boxes(actions: Tensor, frame_size: int, patch_size: int) -> Tensor:
    """Boxes [..., 4] of patch_size frame pixels a side, from the fractions [..., 2] (a_y, a_x) of their way."""
    whole_actions = nn.functional.pad(actions, (0, 2))  # sides that cannot vary
    return from_action(whole_actions, (frame_size, frame_size), patch_size, patch_size)


def fixed_corners(actions: Tensor, frame_size: int, patch_size: int) -> Tensor:
    """As `fixed_boxes`, with the corner moved up and left to whole pixels; rounded as the published code's float32."""
    corners = (actions.float() * (frame_size - patch_size)).floor().to(at_least_float32(actions).dtype)  # [..., 2]
    return torch.cat([corners + patch_size / 2, torch.full_like(corners, patch_size)], -1)


def at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
