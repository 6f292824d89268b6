"""The objectives of the Uni-AdaFocus networks: where, when and how closely to look, learned from end to end."""

import torch
from torch import Tensor, nn

from adafocus_ops import quantile_frames
from adafocus_ops.boxes import for_frames, from_action
from adafocus_ops.checks import positive_int

from ..networks import UniAdaFocus, UniAdaFocusTSM, UniAdaFocusX3D, VideoModel
from .draws import Draws
from .losses import Losses, cross_entropy_of_each, size_loss, spatial_loss, temporal_loss

Network = UniAdaFocus | UniAdaFocusTSM | UniAdaFocusX3D


def uni_objective(
    model: Network,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    size_weight: float = 1.0,
    diversity: bool = True,
    num_samples: int | None = 128,
    policies: bool = True,
    weigh_frames: bool = False,
    cells: int | None = None,
    draws: Draws,
) -> Losses:
    """The losses of a batch, as the published code has them.

        total = (classification + focus of the policy's patches + those of random patches) / 2
                + glance + temporal + spatial + size_weight * mean of ((1 - a_h)^2 + (1 - a_w)^2) / 2

    The policy's boxes are detached where patches are read: it learns where to look from the deep features of the
    glance inside them, alone (Eqs. 13 and 14). When to look it learns from the expected answer of frames drawn by its
    weights (Eq. 21). In `uni_adafocus` the answers of all steps train both encoders; in the other two they train the
    heads alone, and the auxiliary losses the encoders.

    The spatial loss needs features and a layer on them that mean something (`policies` waits for that), and it teaches
    places better than sizes where objects are small against the encoder's receptive field.

    In training mode glance frames (where none are given) and the positions of quantiles are random within their
    segments; in evaluation mode they are those of `forward`.

    Args:
        model, frames, glance_frames, labels: as `objective` takes them.
        size_weight: lambda of Eq. 15; 0.25 to 1 in the published runs.
        diversity: also learn from patches of the patch size at random places (Eq. 12).
        num_samples: of the temporal loss, a video; None for the expectation itself, of which they are an estimate.
        policies: False leaves them as they are, until the features mean something: the temporal, spatial and size
            terms are 0.
        weigh_frames: weigh the frames of the spatial loss by the temporal policy's weights (detached), where most of
            them show nothing; False for the published mean.
        cells: samples a side of the boxes on the glance's maps, which are then cut where the patches are; None for the
            published number, int(P F / S) on maps of F x F (X3D: rounded), and boxes that fit it.

    Source: Uni-AdaFocus, Section 4, Eqs. 11 to 21.
    """
    for name, count in (("num_samples", num_samples), ("cells", cells)):
        if count is not None:
            positive_int(name, count)

    # A glance, and what the policies make of it.
    glance_index = _glance_index(model, frames, draws) if glance_frames is None else None
    glanced = frames if glance_frames is None else glance_frames
    whole = model.read_whole(glanced, glance_index, model.glance_encoder, size=model.glance_size)
    maps, features = model.glance(whole)  # [B, T0, C, F, F], [B, T0, C]
    each_frame = isinstance(model, UniAdaFocus)
    weights = model.temporal_policy(features if each_frame else features.detach())  # [B, T0]
    actions = model.spatial_policy(maps.detach())  # [B, T0, 4] or [B, 4]
    glance_logits = model.glance_aux_head(_dropped(model, features))  # [B, T0, classes]

    # A closer look where the policy says, and at random places.
    passes = []
    for looked in [actions, *([_random_actions(model, actions, draws)] if diversity else [])]:
        index = quantile_frames(
            weights.detach(),
            model.num_candidate_frames,
            model.num_focus_frames,
            jitter=draws.uniform(weights, model.num_focus_frames) if model.training else False,  # as `forward`
        )
        passes.append(_focus_losses(model, frames, features, looked.detach(), index, labels))
    classification, focus = (torch.stack(terms).mean() for terms in zip(*passes, strict=True))

    glance = _auxiliary(model, glance_logits, labels)
    if not policies:
        return Losses.of(classification=classification, glance=glance, focus=focus)
    third = model.num_glance_frames / 3
    num_draws = max(1, round(third) if isinstance(model, UniAdaFocusX3D) else int(third))
    drawn = glance_logits if each_frame else glance_logits.detach()
    frame_weights = weights.detach() if weigh_frames else None
    return Losses(
        classification=classification,
        glance=glance,
        focus=focus,
        temporal=temporal_loss(drawn, weights, labels, num_draws, num_samples, draws),
        spatial=spatial_loss(model, maps, actions, labels, frame_weights, *_feature_crop(model, maps, cells)),
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
    boxes = from_action(actions, (model.frame_size,) * 2, *model.sides)
    seen = model.focus(model.read_patches(frames, boxes, frame_index, videos))
    if isinstance(model, UniAdaFocus):
        seen = seen.unflatten(0, frame_index.shape)  # [B, K, 2048]
        maxima = model.glance_head.pool(features)
        glanced = model.glance_head.answer(maxima)  # [B, T0, classes]
        looked, _ = model.final_head(seen, maxima[-1], None, slice(0, model.num_focus_frames))
        classification = cross_entropy_of_each(torch.cat([glanced, looked], 1), labels)
    else:
        answers = model.final_head(features.detach(), seen.detach())  # [B, classes]
        classification = nn.functional.cross_entropy(answers, labels)
    return classification, _auxiliary(model, model.focus_aux_head(_dropped(model, seen)), labels)


def _auxiliary(model: Network, logits: Tensor, labels: Tensor) -> Tensor:
    """[]: of logits [B, n, classes] of an auxiliary head: of each frame, or of a clip's mean."""
    if isinstance(model, UniAdaFocus):
        return cross_entropy_of_each(logits, labels)
    return nn.functional.cross_entropy(logits.mean(1), labels)


def _feature_crop(model: Network, maps: Tensor, cells: int | None) -> tuple[int, float]:
    """Samples a side of a box on the maps, and a pixel of the frame in their pixels."""
    scale = maps.shape[-1] / model.frame_size
    if cells is not None:
        return cells, scale
    side = model.patch_size * scale
    cells = max(1, round(side) if isinstance(model, UniAdaFocusX3D) else int(side))
    return cells, cells / model.patch_size


def _dropped(model: Network, features: Tensor) -> Tensor:
    """Features as auxiliary heads see them; the other two networks drop them out for all heads, or within these."""
    return model.dropout(features) if isinstance(model, UniAdaFocus) else features


def _glance_index(model: VideoModel, frames: Tensor, draws: Draws) -> Tensor:
    """[B, T0]: a random candidate of each of T0 segments in training, else those of `forward`."""
    if not model.training:
        return model.pick_glance_frames(frames)
    segment = model.num_candidate_frames / model.num_glance_frames
    like = torch.empty(frames.shape[0], device=frames.device)
    places = torch.arange(model.num_glance_frames, device=frames.device) + draws.uniform(like, model.num_glance_frames)
    return (places * segment).long().clamp(max=model.num_candidate_frames - 1)


def _random_actions(model: Network, actions: Tensor, draws: Draws) -> Tensor:
    """Like actions [..., 4]: boxes of the patch size at random places."""
    places = draws.uniform(actions, *actions.shape[1:-1], 2)
    smallest, largest = model.sides
    fixed = (model.patch_size - smallest) / (largest - smallest)
    return torch.cat([places, torch.full_like(places, fixed)], -1)
