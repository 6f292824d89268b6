"""The objectives: gradients as the published code's, and what each term may and may not reach."""

import copy

import pytest
import torch
from oracle_models import CASES, Case, load_case, load_info, manifest
from tiny_models import tiny, tiny_clips

from adafocus_models import VideoModel
from adafocus_models.training import Losses, objective
from adafocus_models.training.draws import Draws
from adafocus_models.training.losses import temporal_loss

UNI = ("uni_adafocus", "uni_adafocus_tsm", "uni_adafocus_x3d")
# Our term -> what the oracles call it, of which the first that is there counts.
TERMS = {
    "classification": ("loss_steps", "loss_target"),
    "glance": ("loss_global",),
    "focus": ("loss_local",),
    "temporal": ("loss_temporal",),
    "spatial": ("loss_spatial",),
    "size": ("loss_size",),
}
WITH_GRADIENTS = [name for name in CASES if "losses" in load_info(name)]
PLAIN = {"diversity": False, "num_samples": None}  # as the oracles were computed


def entries(case: Case, model: VideoModel) -> dict[str, int]:
    """Our parameter -> its number in the published state dict: what a checkpoint of numbers puts there."""
    shapes = manifest(case.architecture)
    numbers = {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(shapes.items())}
    twin = case.model(torch.float32)
    twin.load_checkpoint(numbers)
    return {name: int(value.flatten()[0]) for name, value in twin.named_parameters()}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if "x3d" in name else pytest.mark.slow) for name in WITH_GRADIENTS]
)
def test_gradients_are_the_published_ones(name):
    """In float64; of every entry the norm, or that there is none."""
    case = load_case(name)
    model = case.model(torch.float64)
    inputs = [x.double() for x in case.inputs]
    frames, glance_frames = inputs if len(inputs) == 2 else (inputs[0], None)
    losses = objective(model, frames, glance_frames, torch.from_numpy(case.arrays["labels"]).long(), **PLAIN)
    numbers = entries(case, model)
    parameters = dict(model.named_parameters())
    assert len(set(numbers.values())) == len(parameters)
    info = load_info(name)["losses"]
    for term, names in TERMS.items():
        theirs = next(each for each in names if each in info)
        assert getattr(losses, term).item() == pytest.approx(info[theirs], rel=1e-4)
        norms = case.arrays[f"f64_gradnorm_{theirs}"]
        found = torch.autograd.grad(getattr(losses, term), parameters.values(), retain_graph=True, allow_unused=True)
        reached = set()
        for (ours, number), gradient in zip(numbers.items(), found, strict=True):
            assert (gradient is None) == (norms[number] == -1), (term, ours)
            if gradient is not None:
                reached.add(number)
                assert gradient.norm().item() == pytest.approx(norms[number], rel=1e-6, abs=1e-12), (term, ours)
        assert reached == {i for i, norm in enumerate(norms) if norm >= 0}, term


def batch(name: str, videos: int = 4):
    model = copy.deepcopy(tiny(name))
    return model, *tiny_clips(model, videos), torch.arange(videos) % model.num_classes


@pytest.mark.parametrize("name", UNI)
def test_each_term_reaches_what_it_should(name):
    model, frames, glance_frames, labels = batch(name)
    losses = objective(model, frames, glance_frames, labels, generator=torch.Generator().manual_seed(0))
    reached = {}
    for term, value in losses._asdict().items():
        model.zero_grad()
        value.backward(retain_graph=True)
        reached[term] = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    each_frame = name == "uni_adafocus"
    heads, encoders = {"glance_head", "focus_head"}, {"glance_encoder", "focus_encoder"}
    assert reached["classification"] == heads | (encoders if each_frame else set())
    assert reached["glance"] == {"glance_encoder", "glance_aux_head"}
    assert reached["focus"] == {"focus_encoder", "focus_aux_head"}
    also = {"glance_encoder", "glance_aux_head"} if each_frame else set()
    assert reached["temporal"] == {"temporal_policy"} | also
    assert reached["spatial"] == {"spatial_policy", "spatial_aux_head"}
    assert reached["size"] == {"spatial_policy"}
    assert losses.total.item() == pytest.approx(sum(value.item() for value in losses))


@pytest.mark.parametrize("name", UNI)
def test_what_is_random_comes_from_the_generator(name):
    model, frames, glance_frames, labels = batch(name)

    def run(seed: int, **options) -> Losses:
        return objective(model, frames, glance_frames, labels, generator=torch.Generator().manual_seed(seed), **options)

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.classification, other.classification)  # random patches
    assert torch.equal(first.spatial, other.spatial)
    assert run(0, size_weight=0.25).size.item() == pytest.approx(first.size.item() / 4)
    alone = run(0, diversity=False)
    assert not torch.equal(alone.focus, first.focus)
    assert torch.equal(alone.glance, first.glance)


def test_the_temporal_loss_estimates_the_expectation():
    generator = torch.Generator().manual_seed(0)
    logits, weights = torch.randn(3, 6, 5, generator=generator), torch.randn(3, 6, generator=generator).softmax(1)
    labels = torch.tensor([0, 3, 4])
    draws = Draws(generator, 0, 3)
    exact = temporal_loss(logits, weights, labels, 2, None, draws)
    few, other, many = (temporal_loss(logits, weights, labels, 2, n, draws) for n in (4, 4, 20_000))
    assert few != other
    assert many.item() == pytest.approx(exact.item(), rel=5e-3)


def test_what_does_not_fit():
    model, frames, glance_frames, labels = batch("uni_adafocus_tsm")
    with pytest.raises(TypeError, match="model must be of create_model, got Identity"):
        objective(torch.nn.Identity(), frames, glance_frames, labels)
    with pytest.raises(TypeError, match="stage"):
        objective(model, frames, glance_frames, labels, stage=1)
    with pytest.raises(ValueError, match=r"labels must be \[B\] int64 with B=4"):
        objective(model, frames, glance_frames, labels[:2])
    with pytest.raises(ValueError, match="num_samples must be"):
        objective(model, frames, glance_frames, labels, num_samples=0)


def test_training_glances_at_random_frames_of_each_segment():
    model, frames, _, labels = batch("uni_adafocus")
    model.train()
    losses = [objective(model, frames, None, labels, diversity=False, num_samples=None).glance for _ in range(4)]
    assert len({value.item() for value in losses}) > 1
