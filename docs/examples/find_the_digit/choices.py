"""What is trained: learned policies, and fixed choices in the place of one of them or of all."""

import math
from dataclasses import dataclass

import torch
from model import MAX_SIDE, MIN_SIDE
from torch import Tensor, nn
from videos import LONGEST, SHORTEST

from adafocus_models import UniAdaFocus
from adafocus_ops import weighted_sample

LEARNED = "learned"


@dataclass(frozen=True)
class Row:
    """One training: what is learned and what is fixed.

    place: learned, random, centre or gaussian (random about the centre).
    size: learned, random, whole (the frame, shrunk to a patch) or a side in pixels of the frame.
    frames: learned, uniform, random, centre (four in a row) or gaussian.
    """

    place: str = LEARNED
    size: str = LEARNED
    frames: str = LEARNED


ROWS = {
    "learned": Row(),
    **{f"place_{kind}": Row(place=kind) for kind in ("random", "centre", "gaussian")},
    **{f"size_{kind}": Row(size=kind) for kind in ("24", "32", "42", "random", "whole")},
    **{f"frames_{kind}": Row(frames=kind) for kind in ("uniform", "random", "centre", "gaussian")},
    "nothing": Row(size="whole", frames="uniform"),
}


def fix(model: UniAdaFocus, row: Row) -> None:
    """Puts the fixed choices of a row into the place of the model's policies."""
    if row.size == "whole":
        model.spatial_policy = WholeFrames()
    elif row.size != LEARNED:
        model.spatial_policy = FixedSize(model.spatial_policy, row.size)
    if row.place != LEARNED:
        model.spatial_policy = FixedPlace(model.spatial_policy, row.place)
    if row.frames != LEARNED:
        model.temporal_policy = FixedFrames(row.frames)


class FixedPlace(nn.Module):
    """The policy's sizes at other places."""

    def __init__(self, policy: nn.Module, kind: str) -> None:
        super().__init__()
        self.policy, self.kind = policy, kind

    def forward(self, maps: Tensor) -> Tensor:
        actions = self.policy(maps)  # [B, T, 4]
        places = actions[..., :2]
        if self.kind == "random":
            places = torch.rand_like(places)
        elif self.kind == "gaussian":
            places = (0.5 + torch.randn_like(places) / 6).clamp(0, 1)
        else:
            places = torch.full_like(places, 0.5)
        return torch.cat([places, actions[..., 2:]], -1)


class FixedSize(nn.Module):
    """The policy's places with other sizes."""

    def __init__(self, policy: nn.Module, kind: str) -> None:
        super().__init__()
        self.policy, self.kind = policy, kind

    def forward(self, maps: Tensor) -> Tensor:
        actions = self.policy(maps)  # [B, T, 4]
        sizes = actions[..., 2:]
        if self.kind == "random":
            sides = SHORTEST * (torch.rand_like(sizes) * math.log(LONGEST / SHORTEST)).exp()  # as the digits have them
        else:
            sides = torch.full_like(sizes, float(self.kind))
        sizes = (sides - MIN_SIDE) / (MAX_SIDE - MIN_SIDE)
        return torch.cat([actions[..., :2], sizes], -1)


class WholeFrames(nn.Module):
    """Boxes of the largest size in the middle."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.new_tensor([0.5, 0.5, 1.0, 1.0]).expand(*maps.shape[:2], 4)


class FixedFrames(nn.Module):
    """Weights of frames that do not depend on what they show."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        videos, frames = features.shape[:2]
        if self.kind == "uniform":
            return features.new_full((videos, frames), 1 / frames)
        from_centre = (torch.arange(frames, device=features.device) - (frames - 1) / 2).abs()
        if self.kind == "centre":
            return ((from_centre < 1) / 2.0).expand(videos, frames)
        # Four of eight parts of the video, one frame of each, drawn anew for each video.
        weights = (-((from_centre / (frames / 6)) ** 2) / 2).exp() if self.kind == "gaussian" else from_centre * 0 + 1
        picked = weighted_sample(weights.expand(videos, frames), frames // 2).view(videos, -1)
        return features.new_zeros(videos, frames).scatter(1, picked.long(), 2 / frames)
