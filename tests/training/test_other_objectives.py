"""The objectives of the older networks and the baselines."""

import copy

import pytest
import torch
from tiny_models import tiny, tiny_clips
from torch.distributions import Categorical

from adafocus_models.networks.policies import fixed_corners
from adafocus_models.training import Losses, objective
from adafocus_models.training.adafocus_v1 import V1_STAGES, V1_TSM_STAGES
from adafocus_models.training.policy_gradient import discounted, ppo_loss

BASELINES = ("tsm", "tsm_plus", "x3d_s")
STAGES = {"adafocus_v1": V1_STAGES, "adafocus_v1_tsm": V1_TSM_STAGES}


def batch(name: str, videos: int = 4):
    model = copy.deepcopy(tiny(name))
    return model, *tiny_clips(model, videos), torch.arange(videos) % model.num_classes


def run(name: str, seed: int = 0, **options) -> tuple[Losses, dict[str, set[str]]]:
    """The losses, and which parts each of them reaches."""
    model, frames, glance_frames, labels = batch(name)
    losses = objective(model, frames, glance_frames, labels, generator=torch.Generator().manual_seed(seed), **options)
    reached = {}
    for term, value in losses._asdict().items():
        if value.requires_grad:
            model.zero_grad()
            value.backward(retain_graph=True)
            found = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
            reached[term] = found
        else:
            assert value == 0
    return losses, reached


def test_v2_learns_its_places_from_the_patches_pixels():
    _, reached = run("adafocus_v2")
    both = {"glance_encoder", "focus_encoder"}
    assert reached == {
        "classification": both | {"head", "spatial_policy"},
        "glance": {"glance_encoder", "glance_aux_head"},
        "focus": {"focus_encoder", "focus_aux_head", "spatial_policy"},
    }
    _, reached = run("adafocus_v2_tsm")
    assert reached == {
        "classification": {"glance_head", "focus_head"},
        "glance": {"glance_encoder", "glance_aux_head"},
        "focus": {"focus_encoder", "focus_aux_head", "spatial_policy"},
    }


@pytest.mark.parametrize("name", ["adafocus_v2", "adafocus_v2_tsm"])
def test_v2_without_random_patches_is_its_own_answers_loss(name):
    model, frames, glance_frames, labels = batch(name)
    losses = objective(model, frames, glance_frames, labels, diversity=False)
    output = model(frames, glance_frames)
    each = output.exit_logits if name == "adafocus_v2" else output.logits[:, None]  # [B, n, C]
    expected = torch.nn.functional.cross_entropy(each.flatten(0, 1), labels.repeat_interleave(each.shape[1]))
    assert losses.classification.item() == pytest.approx(expected.item(), rel=1e-5)
    other = objective(model, frames, glance_frames, labels)
    assert other.classification != losses.classification


@pytest.mark.parametrize("name", STAGES)
def test_each_stage_of_v1_trains_what_it_says(name):
    for stage, parts in enumerate(STAGES[name]):
        losses, reached = run(name, stage=stage)
        assert set().union(*reached.values()) == set(parts), stage
        assert set(reached) == [{"glance", "focus"}, {"classification"}, {"spatial"}, {"classification"}][stage]
        assert losses.total.isfinite()
    with pytest.raises(ValueError, match="stage must be 0, 1, 2 or 3, got 4"):
        run(name, stage=4)


def test_stage_three_of_v1_is_the_loss_of_its_answers():
    model, frames, glance_frames, labels = batch("adafocus_v1")
    losses = objective(model, frames, glance_frames, labels, stage=3)
    answers = model(frames, glance_frames).exit_logits  # [B, K, C]
    expected = torch.nn.functional.cross_entropy(answers.flatten(0, 1), labels.repeat_interleave(answers.shape[1]))
    assert losses.classification.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rewards_are_discounted_towards_the_past():
    rewards = torch.tensor([[1.0, 2, 4], [0, 0, 8]])
    assert discounted(rewards, 0.5).tolist() == [[3, 4, 4], [2, 4, 8]]


def test_ppo_is_the_plain_policy_gradient_in_its_first_update_and_clipped_later():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    rewards = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    actions = torch.randint(4, (5, 3), generator=generator)
    log_probabilities = Categorical(logits=scores).log_prob(actions)
    no_entropy = torch.zeros(5, 3, dtype=torch.float64)

    def gradient(old):
        loss = ppo_loss(log_probabilities, values, no_entropy, rewards, discount=0.7, old_log_probabilities=old)
        return torch.autograd.grad(loss, scores, retain_graph=True)[0]

    returns = discounted(rewards, 0.7)
    returns = (returns - returns.mean()) / (returns.std() + 1e-5)
    plain = torch.autograd.grad(-((returns - values) * log_probabilities).mean(), scores, retain_graph=True)[0]
    torch.testing.assert_close(gradient(None), plain)
    # What is twice as likely as it was gains nothing more from a good reward.
    twice = gradient(log_probabilities.detach() - torch.tensor(2.0).log())
    good = returns - values > 0
    assert not twice[good].any()
    assert twice[~good].any()


def test_v1_learns_to_look_where_the_reward_is():
    """A policy that is asked for one place among four, with the reward on one of them."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([scores], 0.1)
    for _ in range(60):
        distribution = Categorical(logits=scores.expand(32, 1, 4))
        places = torch.multinomial(distribution.probs[:, 0], 1, generator=generator)
        rewards = (places == 2).float()
        terms = (distribution.log_prob(places), torch.zeros(32, 1), distribution.entropy(), rewards)
        optimizer.zero_grad()
        ppo_loss(*terms, discount=0.7).backward()
        optimizer.step()
    assert scores.softmax(0)[2] > 0.9


def test_random_patches_of_v1_are_whole_pixels_of_the_frame():
    model = tiny("adafocus_v1")
    boxes = fixed_corners(torch.rand(100, 2), model.frame_size, model.patch_size)
    corners = boxes[:, :2] - boxes[:, 2:] / 2
    assert torch.equal(corners, corners.round())
    assert corners.min() >= 0
    assert (corners + model.patch_size).max() <= model.frame_size


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_minimise_the_cross_entropy_of_their_answers(name):
    model, frames, glance_frames, labels = batch(name)
    losses = objective(model, frames, glance_frames, labels)
    logits = model(frames, glance_frames).logits
    assert losses.total.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert losses.total == losses.classification
