"""The objectives of the Uni-AdaFocus networks: what one step of training minimises."""

import torch
from torch import Tensor, nn

from adafocus_ops import quantile_frames
from adafocus_ops.boxes import for_frames, from_action
from adafocus_ops.checks import describe, positive_int, require

from ..networks import UniAdaFocus, UniAdaFocusTSM, UniAdaFocusX3D, VideoModel
from ..networks.video_model import MAX_SIDE, MIN_SIDE
from .losses import Losses, cross_entropy_of_each, size_loss, spatial_loss, temporal_loss

Network = UniAdaFocus | UniAdaFocusTSM | UniAdaFocusX3D


def objective(
    model: Network,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    size_weight: float = 1.0,
    diversity: bool = True,
    num_samples: int | None = 128,
    generator: torch.Generator | None = None,
) -> Losses:
    """The losses of a batch, as the published code has them.

        total = (classification + focus of the policy's patches + those of random patches) / 2
                + glance + temporal + spatial + size_weight * mean of ((1 - a_h)^2 + (1 - a_w)^2) / 2

    The policy's boxes are detached where patches are read: it learns where to look from the deep features of the
    glance inside them, alone (Eqs. 13 and 14). When to look it learns from the expected answer of frames drawn by its
    weights (Eq. 21). In `uni_adafocus` the answers of all steps train both encoders; in the other two they train the
    heads alone, and the auxiliary losses the encoders.

    Args:
        model: uni_adafocus, uni_adafocus_tsm or uni_adafocus_x3d. In training mode glance frames (where none are
            given) and the positions of quantiles are random within their segments; in evaluation mode they are
            those of `forward`.
        frames, glance_frames: as `forward` takes them.
        labels: [B] int64, a class a video.
        size_weight: lambda of Eq. 15; 0.25 to 1 in the published runs.
        diversity: also learn from patches of the patch size at random places (Eq. 12).
        num_samples: of the temporal loss, a video; None for the expectation itself, of which they are an estimate.
        generator: for all that is random; default the device's.

    Returns:
        Losses, whose `total` is to be minimised.

    Gradients: to all weights that learn from a term, as published, and to floating-point frames of the encoders.

    Raises:
        TypeError, ValueError: another network, or inputs or labels that do not fit.

    Source: Uni-AdaFocus, Section 4, Eqs. 11 to 21.
    """
    require(
        isinstance(model, Network), lambda: f"model must be a Uni-AdaFocus network, got {describe(model)}", TypeError
    )
    model.check_inputs(frames, glance_frames)
    fits = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == frames.shape[:1]
    require(fits, lambda: f"labels must be [B] int64 with B={frames.shape[0]} (frames), got {describe(labels)}")
    if num_samples is not None:
        positive_int("num_samples", num_samples)

    # A glance, and what the policies make of it.
    glance_index = _glance_index(model, frames, generator) if glance_frames is None else None
    glanced = frames if glance_frames is None else glance_frames
    size = getattr(model, "glance_size", None)  # of X3D, in which it sees smaller frames
    whole = model.read_whole(glanced, glance_index, model.glance_encoder, size=size)
    maps, features = model.glance(whole)  # [B, T0, C, F, F], [B, T0, C]
    each_frame = isinstance(model, UniAdaFocus)
    weights = model.temporal_policy(features if each_frame else features.detach())  # [B, T0]
    actions = model.spatial_policy(maps.detach())  # [B, T0, 4] or [B, 4]
    glance_logits = model.glance_aux_head(features)  # [B, T0, classes]

    # A closer look where the policy says, and at random places.
    jitter = model.training  # else the midpoints of `forward`
    passes = []
    for looked in [actions, *([_random_actions(model, actions, generator)] if diversity else [])]:
        index = quantile_frames(
            weights.detach(),
            model.num_candidate_frames,
            model.num_focus_frames,
            jitter=jitter,
            generator=generator if jitter else None,
        )
        passes.append(_focus_losses(model, frames, features, looked.detach(), index, labels))
    classification, focus = (torch.stack(terms).mean() for terms in zip(*passes, strict=True))

    draws = model.num_glance_frames / 3
    num_draws = max(1, round(draws) if isinstance(model, UniAdaFocusX3D) else int(draws))
    drawn = glance_logits if each_frame else glance_logits.detach()
    side = model.patch_size / (model.frame_size / maps.shape[-1])  # of a patch on the maps
    crop_size = max(1, round(side) if isinstance(model, UniAdaFocusX3D) else int(side))
    return Losses(
        classification=classification,
        glance=_auxiliary(model, glance_logits, labels),
        focus=focus,
        temporal=temporal_loss(drawn, weights, labels, num_draws, num_samples, generator),
        spatial=spatial_loss(model, maps, actions, labels, crop_size),
        size=size_weight * size_loss(actions),
    )


def _focus_losses(
    model: Network, frames: Tensor, features: Tensor, actions: Tensor, frame_index: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Classification and auxiliary loss [] of one look at patches: actions [B, T0, 4] or [B, 4], frames [B, K]."""
    videos = torch.arange(frames.shape[0], device=frames.device)
    if isinstance(model, UniAdaFocus):
        chosen, _ = for_frames(actions, frame_index, model.num_candidate_frames)  # [B * K, 4]
        actions = chosen.unflatten(0, frame_index.shape)
    boxes = from_action(actions, (model.frame_size,) * 2, MIN_SIDE, MAX_SIDE)
    seen = model.focus(model.read_patches(frames, boxes, frame_index, videos))
    if isinstance(model, UniAdaFocus):
        seen = seen.unflatten(0, frame_index.shape)  # [B, K, 2048]
        maxima = model.glance_head.pool(features)
        glanced = [layer(x) for layer, x in zip(model.glance_head.classifiers, maxima, strict=True)]
        looked, _ = model.final_head(seen, maxima[-1], None, slice(0, model.num_focus_frames))
        classification = cross_entropy_of_each(torch.cat([torch.stack(glanced, 1), looked], 1), labels)
    else:
        answers = model.final_head(features.detach(), seen.detach())  # [B, classes]
        classification = nn.functional.cross_entropy(answers, labels)
    return classification, _auxiliary(model, model.focus_aux_head(seen), labels)


def _auxiliary(model: Network, logits: Tensor, labels: Tensor) -> Tensor:
    """[]: of logits [B, n, classes] of an auxiliary head: of each frame, or of a clip's mean."""
    if isinstance(model, UniAdaFocus):
        return cross_entropy_of_each(logits, labels)
    return nn.functional.cross_entropy(logits.mean(1), labels)


def _glance_index(model: VideoModel, frames: Tensor, generator: torch.Generator | None) -> Tensor:
    """[B, T0]: a random candidate of each of T0 segments in training, else those of `forward`."""
    if not model.training:
        return model.pick_glance_frames(frames)
    shape = frames.shape[0], model.num_glance_frames
    segment = model.num_candidate_frames / model.num_glance_frames
    places = torch.arange(shape[1], device=frames.device) + torch.rand(shape, generator=generator, device=frames.device)
    return (places * segment).long().clamp(max=model.num_candidate_frames - 1)


def _random_actions(model: Network, actions: Tensor, generator: torch.Generator | None) -> Tensor:
    """Like actions [..., 4]: boxes of the patch size at random places."""
    places = torch.rand((*actions.shape[:-1], 2), generator=generator, device=actions.device, dtype=actions.dtype)
    fixed = (model.patch_size - MIN_SIDE) / (MAX_SIDE - MIN_SIDE)
    return torch.cat([places, torch.full_like(places, fixed)], -1)
