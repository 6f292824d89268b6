"""The objectives of AdaFocus: stages that take turns, since its policy chooses among places and has no gradient."""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from adafocus_ops.checks import require

from ..networks import AdaFocusV1, AdaFocusV1TSM
from ..networks.policies import fixed_corners, run_gru
from .draws import Draws
from .losses import Losses, cross_entropy_of_each
from .policy_gradient import ppo_loss

# Stage -> the parts of the network that learn in it; all others are in evaluation mode.
V1_STAGES = (
    ("glance_encoder", "glance_aux_head", "focus_encoder", "focus_aux_head"),
    ("focus_encoder", "head"),
    ("spatial_policy",),
    ("head",),
)
V1_TSM_STAGES = (
    ("glance_encoder", "glance_head", "focus_encoder", "focus_head"),
    ("focus_encoder", "focus_head"),
    ("spatial_policy",),
    ("focus_encoder", "focus_head"),
)
# Standard deviation of the place that is tried, around the one that the policy names, as a share of the way.
PLACE_DEVIATION = 0.1


def v1_objective(
    model: AdaFocusV1,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    stage: int,
    discount: float = 0.7,
    draws: Draws,
) -> Losses:
    """The losses of a batch in one of the stages, as the published code has them.

    0: each encoder for itself, on whole frames (where they do not come from elsewhere). 1: the focus encoder and the
    head, on patches at random places. 2: the policy, by proximal policy optimisation; the reward of a place is the
    confidence in the right class after looking there, minus that after looking at a random one (Eq. 26, its
    expectation estimated by one draw). 3: the head, on patches where the policy looks.

    Args:
        model, frames, glance_frames, labels: as `objective` takes them. What does not learn in a stage
            (`V1_STAGES`) should be in evaluation mode.
        stage: 0 to 3.
        discount: gamma of Eq. 25.

    Source: Wang et al., AdaFocus, 2021; Uni-AdaFocus, Appendix B, Eqs. 24 to 26.
    """
    _check_stage(stage)
    glanced = frames if glance_frames is None else glance_frames
    if stage == 0:
        return _encoders_alone(model, frames, glanced, labels)
    with torch.no_grad():
        whole = model.read_whole(glanced, None, model.glance_encoder)
        maps, features = (x.unflatten(0, frames.shape[:2]) for x in model.glance(whole))  # [B, K, ...]
    random = _patches_at(model, draws.uniform(features, model.num_focus_frames, 2))  # [B, K, 4]
    if stage == 2:
        return _v1_policy_loss(model, frames, maps, features, labels, random, discount, draws)
    with torch.set_grad_enabled(stage == 1):
        boxes = random if stage == 1 else model.policy(maps, model.all_candidates(frames), None).boxes
        seen = _look(model, frames, boxes)  # [B, K, 2048]
    logits, _ = model.final_head(features, seen, None)  # [B, K, C]
    return Losses.of(classification=cross_entropy_of_each(logits, labels))


def v1_tsm_objective(
    model: AdaFocusV1TSM,
    frames: Tensor,
    glance_frames: Tensor | None,
    labels: Tensor,
    *,
    stage: int,
    draws: Draws,
) -> Losses:
    """As `v1_objective`, of one place a video, which is anywhere: stages 1 and 3 train the focus encoder and its head
    on the sum of both heads' answers; in stage 2 places are drawn around the one that the policy names.

    Source: Wang et al., AdaFocus, 2021, in the published implementation's form for TSM.
    """
    _check_stage(stage)
    glance_index = model.pick_glance_frames(frames) if glance_frames is None else None
    glanced = frames if glance_frames is None else glance_frames
    with torch.set_grad_enabled(stage == 0):
        maps, features = model.glance(model.read_whole(glanced, glance_index, model.glance_encoder))
        early = model.early_head(features)  # [B, C]
    if stage == 0:
        seen = model.focus(model.read_whole(frames, None, model.focus_encoder))
        own = model.focus_head(seen).mean(1)
        return Losses.of(
            glance=nn.functional.cross_entropy(early, labels), focus=nn.functional.cross_entropy(own, labels)
        )

    def answer(boxes: Tensor) -> Tensor:  # [B, C] of boxes [B, 4]
        videos = torch.arange(frames.shape[0], device=frames.device)
        patches = model.read_patches(frames, boxes, model.all_candidates(frames), videos)
        return early + model.focus_head(model.focus(patches)).mean(1)

    random = _patches_at(model, draws.uniform(early, 2))  # [B, 4]
    if stage != 2:
        boxes = random if stage == 1 else model.policy(maps, features).boxes
        return Losses.of(classification=nn.functional.cross_entropy(answer(boxes.detach()), labels))
    means, values = model.spatial_policy.act(maps.flatten(1, 2))  # [B, 2], [B]
    places = Independent(Normal(means, PLACE_DEVIATION), 1)
    with torch.no_grad():
        actions = (means + PLACE_DEVIATION * draws.normal(means)).clamp(0, 1)
        chosen = _patches_at(model, actions)
        rewards = _confidence(answer(chosen), labels) - _confidence(answer(random), labels)  # [B]
    terms = (places.log_prob(actions), values, places.entropy(), rewards)
    return Losses.of(spatial=ppo_loss(*(x[:, None] for x in terms), discount=0.0))  # of a single step


def _check_stage(stage: object) -> None:
    require(stage in range(len(V1_STAGES)), lambda: f"stage must be 0, 1, 2 or 3, got {stage!r}")


def _encoders_alone(model: AdaFocusV1, frames: Tensor, glanced: Tensor, labels: Tensor) -> Losses:
    """Each on whole frames, by the mean of its frames' answers."""
    _, features = model.glance(model.read_whole(glanced, None, model.glance_encoder))
    seen = model.focus(model.read_whole(frames, None, model.focus_encoder))
    answers = (model.glance_aux_head(features), model.focus_aux_head(seen))  # [B * K, C] each
    glance, focus = (nn.functional.cross_entropy(x.unflatten(0, frames.shape[:2]).mean(1), labels) for x in answers)
    return Losses.of(glance=glance, focus=focus)


def _v1_policy_loss(
    model: AdaFocusV1,
    frames: Tensor,
    maps: Tensor,
    features: Tensor,
    labels: Tensor,
    random: Tensor,
    discount: float,
    draws: Draws,
) -> Losses:
    """Of maps [B, K, C, F, F] and features [B, K, C] of the glance, and boxes at random places [B, K, 4]."""
    scores, values = model.spatial_policy.act(maps)  # [B, K, places], [B, K]
    distribution = Categorical(logits=scores)
    with torch.no_grad():
        below = distribution.probs.cumsum(2) < draws.uniform(values, values.shape[1])[..., None]
        places = below.sum(2).clamp(max=scores.shape[2] - 1)  # [B, K]
        boxes = _patches_at(model, model.spatial_policy.actions(places))
        chosen, other = (torch.cat([features, _look(model, frames, x)], 2) for x in (boxes, random))
        # After the frames before, at the places that the policy chose, this one at either.
        gru, fc = model.head.gru, model.head.fc
        states = run_gru(gru, chosen, None)  # [B, K, hidden]
        before = nn.functional.pad(states, (0, 0, 1, 0))[:, :-1]  # zeros before the first
        beside = gru(other.flatten(0, 1), before.flatten(0, 1)).unflatten(0, places.shape)
        each = labels[:, None].expand(places.shape)
        rewards = _confidence(fc(states), each) - _confidence(fc(beside), each)  # [B, K]
    terms = (distribution.log_prob(places), values, distribution.entropy(), rewards)
    return Losses.of(spatial=ppo_loss(*terms, discount=discount))


def _look(model: AdaFocusV1, frames: Tensor, boxes: Tensor) -> Tensor:
    """Features [B, K, 2048] of the patches at boxes [B, K, 4]."""
    videos = torch.arange(frames.shape[0], device=frames.device)
    patches = model.read_patches(frames, boxes, model.all_candidates(frames), videos)
    return model.focus(patches).unflatten(0, frames.shape[:2])


def _patches_at(model: AdaFocusV1 | AdaFocusV1TSM, actions: Tensor) -> Tensor:
    """Boxes [..., 4] of whole pixels, from actions [..., 2]."""
    return fixed_corners(actions, model.frame_size, model.patch_size)


def _confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """[...]: the probability of the right class [...], of logits [..., C]."""
    return logits.softmax(-1).gather(-1, labels[..., None])[..., 0]
