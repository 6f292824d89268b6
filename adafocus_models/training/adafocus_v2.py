"""The objectives of AdaFocusV2: a place of fixed size, learned through the pixels that are cut there."""

import torch
from torch import Tensor, nn

from ..networks import AdaFocusV2, AdaFocusV2TSM
from ..networks.policies import at_least_float32, fixed_boxes
from .draws import Draws
from .losses import Losses, cross_entropy_of_each


def v2_objective(
    model: AdaFocusV2,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    diversity: bool = True,
    draws: Draws,
) -> Losses:
    """The losses of a batch, as the published code has them.

        total = glance + (classification + focus of the policy's patches + those of random patches) / 2

    of every frame and every step. The policy sees detached maps, and learns from the gradient that the patches'
    pixels have to its boxes.

    Args:
        model, frames, glance_frames, labels: as `objective` takes them.
        diversity: also learn from patches at random places.

    Source: AdaFocusV2, Section 3; Uni-AdaFocus, Eqs. 10 to 12.
    """
    glanced = frames if glance_frames is None else glance_frames
    whole = model.read_whole(glanced, None, model.glance_encoder)  # [B * K, 3, S, S]
    maps, features = (x.unflatten(0, frames.shape[:2]) for x in model.glance(whole))  # [B, K, ...]
    actions, _ = model.spatial_policy(maps.detach(), None)  # [B, K, 2]
    index, videos = model.all_candidates(frames), torch.arange(frames.shape[0], device=frames.device)
    classification, focus = [], []
    for looked in _with_random(actions, diversity, draws):
        boxes = fixed_boxes(looked, model.frame_size, model.patch_size)  # [B, K, 4]
        seen = model.focus(model.read_patches(frames, boxes, index, videos)).unflatten(0, frames.shape[:2])
        logits, _ = model.final_head(features, seen, None, slice(0, model.num_focus_frames))  # [B, K, C]
        classification.append(cross_entropy_of_each(logits, labels))
        focus.append(cross_entropy_of_each(model.focus_aux_head(model.dropout(seen)), labels))
    return Losses.of(
        classification=torch.stack(classification).mean(),
        glance=cross_entropy_of_each(model.glance_aux_head(model.dropout(features)), labels),
        focus=torch.stack(focus).mean(),
    )


def v2_tsm_objective(
    model: AdaFocusV2TSM,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    diversity: bool = True,
    draws: Draws,
) -> Losses:
    """As `v2_objective`, of whole videos: the answers train the heads alone, the auxiliary losses the encoders, and
    that of the focus the policy.

    Source: AdaFocusV2, Section 3, in the published implementation's form for TSM.
    """
    glance_index = model.pick_glance_frames(frames) if glance_frames is None else None  # [B, T0]
    glanced = frames if glance_frames is None else glance_frames
    maps, features = model.glance(model.read_whole(glanced, glance_index, model.glance_encoder))
    actions = at_least_float32(model.spatial_policy(maps.detach().flatten(1, 2))).sigmoid()  # [B, 2]
    index, videos = model.all_candidates(frames), torch.arange(frames.shape[0], device=frames.device)
    classification, focus = [], []
    for looked in _with_random(actions, diversity, draws):
        boxes = fixed_boxes(looked, model.frame_size, model.patch_size)  # [B, 4]
        seen = model.focus(model.read_patches(frames, boxes, index, videos))  # [B, K, channels]
        answers = model.final_head(features.detach(), seen.detach())  # [B, C]
        classification.append(nn.functional.cross_entropy(answers, labels))
        focus.append(nn.functional.cross_entropy(model.focus_aux_head(seen).mean(1), labels))
    return Losses.of(
        classification=torch.stack(classification).mean(),
        glance=nn.functional.cross_entropy(model.glance_aux_head(features).mean(1), labels),
        focus=torch.stack(focus).mean(),
    )


def _with_random(actions: Tensor, diversity: bool, draws: Draws) -> list[Tensor]:
    """The actions, and random ones like them."""
    return [actions, draws.uniform(actions, *actions.shape[1:])] if diversity else [actions]
