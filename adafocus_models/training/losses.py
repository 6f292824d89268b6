"""Terms of the objectives, that several networks share."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import adafocus_ops
from adafocus_ops.boxes import from_action

from ..networks import VideoModel
from .draws import Draws


class Losses(NamedTuple):
    """Terms of an objective, each a mean over the videos [] as it counts in the total; 0 for those it does not have."""

    classification: Tensor  # of the answers, of all steps or exits that are trained
    glance: Tensor  # of the glance encoder for itself: auxiliary, Eq. 11
    focus: Tensor  # of the focus encoder, the same
    temporal: Tensor  # of the temporal policy, Eq. 21
    spatial: Tensor  # of the spatial policy, Eqs. 13 and 14; of AdaFocus by reinforcement, Eqs. 25 and 26
    size: Tensor  # Eq. 15, times its weight

    @classmethod
    def of(cls, **terms: Tensor) -> "Losses":
        """Of the terms that there are."""
        nothing = torch.zeros_like(next(iter(terms.values())), requires_grad=False)
        return cls(**{name: terms.get(name, nothing) for name in cls._fields})

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return torch.stack(self).sum()


def cross_entropy_of_each(logits: Tensor, labels: Tensor) -> Tensor:
    """[]: the mean over all rows of logits [B, n, C], each of its video's label [B]."""
    each = labels[:, None].expand(logits.shape[:2])
    return nn.functional.cross_entropy(logits.flatten(0, 1), each.flatten())


def temporal_loss(
    logits: Tensor,
    weights: Tensor,
    labels: Tensor,
    num_draws: int,
    num_samples: int | None,
    draws: Draws,
) -> Tensor:
    """[]: the loss of the mean logits of frames drawn by their weights without replacement, as published.

    Args:
        logits: [B, T, C] of the auxiliary head.
        weights: [B, T] of the temporal policy.
        labels: [B].
        num_draws: k, frames a sample.
        num_samples: samples a video; None for the expectation itself.
        draws: what they are drawn by.
    """
    mode = {"mode": "exact"} if num_samples is None else {"num_samples": num_samples, **draws.keys(weights)}
    expected = adafocus_ops.expected_value(logits, weights.to(logits.dtype), num_draws, **mode)  # [B, C]
    return nn.functional.cross_entropy(expected, labels)


def spatial_loss(
    model: VideoModel,
    maps: Tensor,
    actions: Tensor,
    labels: Tensor,
    frame_weights: Tensor | None,
    cells: int,
    scale: float,
) -> Tensor:
    """[]: the loss of an auxiliary head on the deep features inside the boxes; only the actions and the head learn.

    Args:
        maps: of the glance, [B, T, C, F, F].
        actions: [B, 4] for all frames of a video, or [B, T, 4].
        labels: [B].
        frame_weights: [B, T] of sum 1, of the frames' features; None for their mean.
        cells: samples a side of a box.
        scale: a pixel of the frame in pixels of the maps.
    """
    boxes = from_action(actions, maps.shape[-2:], *(side * scale for side in model.sides))
    boxes = boxes if boxes.ndim == 3 else boxes[:, None].expand(-1, maps.shape[1], -1)  # [B, T, 4]
    flat = adafocus_ops.crop_mean(maps.detach(), boxes.flatten(0, 1), cells)  # [B * T, C]
    inside = flat.unflatten(0, maps.shape[:2])
    features = inside.mean(1) if frame_weights is None else torch.einsum("btc,bt->bc", inside, frame_weights)
    return nn.functional.cross_entropy(model.spatial_aux_head(features), labels)


def size_loss(actions: Tensor) -> Tensor:
    """[]: the mean of ((1 - a_h)^2 + (1 - a_w)^2) / 2 over all boxes, which without it would shrink."""
    return (1 - actions[..., 2:]).square().mean()
