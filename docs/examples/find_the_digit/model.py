"""A small Uni-AdaFocus: the library's network with encoders, and a glance, of one's own."""

import math

import torch
from torch import Tensor, nn
from videos import FRAMES, SIDE

from adafocus_models import UniAdaFocus

PATCH = 10  # side in pixels of what the focus encoder sees
GLANCE_SIDE = 48
MIN_SIDE, MAX_SIDE = 10.0, 96.0  # of a box, in pixels of the frame; the largest is all of it


class Encoder(nn.Sequential):
    """Convolutions of 3 x 3, from frames [M, 3, h, w] to maps [M, C, h / reduction, w / reduction]."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        channels = zip((3, *widths[:-1]), widths, strides, strict=True)
        super().__init__(*(self._layer(*shape) for shape in channels))
        self.out_channels, self.reduction = widths[-1], math.prod(strides)

    @staticmethod
    def _layer(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ScoredEncoder(nn.Module):
    """An encoder whose last channel says how much each place of a map matters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.score = encoder, nn.Conv2d(encoder.out_channels, 1, 1)
        self.out_channels, self.reduction = encoder.out_channels + 1, encoder.reduction

    def forward(self, frames: Tensor) -> Tensor:
        maps = self.encoder(frames)
        return torch.cat([maps, self.score(maps)], 1)


def weigh(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Of a `ScoredEncoder`'s maps [M, C, h, w]: the same with the weights of places for the scores, and means by them
    [M, C]. A mean of all places would dilute a small digit."""
    weights = maps[:, -1].flatten(1).softmax(1)  # [M, h * w]
    features = torch.einsum("mp,mcp->mc", weights, maps.flatten(2))
    shown = (weights * (weights.shape[1] / 16)).unflatten(1, maps.shape[-2:])  # as large as the other channels
    return torch.cat([maps[:, :-1], shown[:, None]], 1), features


class FindTheDigit(UniAdaFocus):
    """Uni-AdaFocus with small encoders, whose glance weighs the places of its maps.

    About 8 million multiply-adds for the glance and its policies, 4 million for each patch.
    """

    mean, std = (0.15,) * 3, (0.2,) * 3

    def __init__(self) -> None:
        super().__init__(
            num_classes=10,
            patch_size=PATCH,
            num_glance_frames=8,
            num_focus_frames=4,
            num_candidate_frames=FRAMES,
            glance_encoder=ScoredEncoder(Encoder((8, 12, 24), (2, 2, 1))),
            focus_encoder=Encoder((24, 48, 64, 64), (1, 1, 1, 2)),
            frame_size=SIDE,
            glance_size=GLANCE_SIDE,
            min_side=MIN_SIDE,
            max_side=MAX_SIDE,
            policy_width=6,
            head_width=64,
        )

    def glance(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Stage: maps [B, T0, 25, 12, 12] and features [B, T0, 25], means over all places by the weights of each.

        The last channel of the maps holds these weights, of one sum in all frames: the policy reads a place off it.
        """
        return tuple(x.unflatten(0, (-1, self.num_glance_frames)) for x in weigh(self.glance_encoder(frames)))
