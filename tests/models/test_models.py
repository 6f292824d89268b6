"""Models by name, what they cost, and batch normalisation folded away."""

import copy
import importlib
import json
import pkgutil

import pytest
import torch
from oracle_models import fill, record_stages, small_model
from torch import nn

from adafocus_models import (
    STAGES,
    TSMPlus,
    VideoModel,
    architectures,
    configurations,
    create_model,
    fold_batch_norm,
    list_models,
    multiply_adds,
    networks,
)
from adafocus_ops import use_backend
from conftest import ORACLES

# Files of adafocus_models.networks.
NETWORKS = [
    importlib.import_module(f"{networks.__name__}.{info.name}") for info in pkgutil.iter_modules(networks.__path__)
]
# Configuration -> its name in flops.json.
COUNTED = {
    "uni_adafocus_tsm_96_8+8": "p96_8+8",
    "uni_adafocus_tsm_96_8+12": "p96_8+12",
    "uni_adafocus_tsm_128_8+12": "p128_8+12",
    "uni_adafocus_tsm_128_8+16": "p128_8+16",
    "tsm_plus_8+8": "tsm+_mn2_r50_8+8",
}


def test_list_models():
    assert list_models() == ["uni_adafocus_tsm", "tsm_plus", *COUNTED]
    assert list_models() == [*architectures(), *configurations()]


def test_figures_are_the_papers():
    """Table IV, with the share that leaves early where one is stated."""
    stated = {name: made.paper for name, made in configurations().items()}
    assert stated == {
        "uni_adafocus_tsm_96_8+8": (8.8, 569.4),
        "uni_adafocus_tsm_96_8+12": (11.8, 474.8),
        "uni_adafocus_tsm_128_8+12": (18.8, 366.4),
        "uni_adafocus_tsm_128_8+16": (24.2, 305.4),
        "tsm_plus_8+8": (35.1, 218.2),
    }
    early = {name: dict(made.paper_exits) for name, made in configurations().items() if made.paper_exits}
    assert early == {
        "uni_adafocus_tsm_96_8+12": {0.319: (8.8, 569.2)},
        "uni_adafocus_tsm_128_8+16": {0.248: (18.8, 366.8)},
    }


@pytest.mark.parametrize("name", configurations())
def test_configurations_make_what_they_state(name):
    configuration = configurations()[name]
    assert configuration.name == name
    model = create_model(name)
    assert type(model) is architectures()[configuration.architecture]
    for argument, value in configuration.arguments.items():
        assert getattr(model, argument) == value
    counts = multiply_adds(model)
    if configuration.paper is not None:
        assert counts["total"] / 1e9 == pytest.approx(configuration.paper.gflops, abs=0.06)
    for share, figures in configuration.paper_exits.items():
        mean = counts["total"] - share * (counts["total"] - counts["exit0"])
        assert mean / 1e9 == pytest.approx(figures.gflops, abs=0.06)


def test_what_is_collected_cannot_be_changed_from_outside():
    configurations().clear()
    architectures().clear()
    assert create_model("tsm_plus_8+8", num_classes=3).num_classes == 3


def test_every_network_is_registered():
    registered = architectures().values()
    found = [value for module in NETWORKS for value in vars(module).values() if isinstance(value, type)]
    networks = {value for value in found if issubclass(value, VideoModel) and value is not VideoModel}
    assert networks == set(registered)
    stated = {made.name for module in NETWORKS for made in getattr(module, "CONFIGURATIONS", ())}
    assert stated == set(configurations())
    assert {made.architecture for made in configurations().values()} == set(architectures())


def test_properties_of_the_networks():
    properties = {
        name: (made.num_exits, made.has_early_exit, made.has_policy) for name, made in architectures().items()
    }
    assert properties == {"uni_adafocus_tsm": (2, True, True), "tsm_plus": (1, False, False)}


@pytest.mark.parametrize("name", architectures())
def test_properties_are_what_the_model_does(name):
    network = architectures()[name]
    assert network.has_early_exit == bool(network.exit0_modules)
    assert list(network.stage_methods) == [stage for stage in STAGES if stage in network.stage_methods]
    assert set(network.stage_modules) == set(network.stage_methods) - {"read"}
    model = fill(network(num_classes=3, num_glance_frames=2, num_focus_frames=2))
    returned = record_stages(model)
    with torch.inference_mode():
        output = model(torch.zeros(1, model.num_candidate_frames, 3, 224, 224, dtype=torch.uint8))
    assert output.exit_logits.shape == (1, model.num_exits, 3)
    assert model.has_policy == ("policy" in returned)
    assert all(returned.values())  # no stage is listed that does not run
    assert len(returned["head"]) == model.num_exits


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("uni_adafocus_tsm_96_8+8", (174, 96, 8, 8, 24)),
        ("uni_adafocus_tsm_96_8+12", (174, 96, 8, 12, 36)),
        ("uni_adafocus_tsm_128_8+12", (174, 128, 8, 12, 36)),
        ("uni_adafocus_tsm_128_8+16", (174, 128, 8, 16, 48)),
        ("tsm_plus_8+8", (174, 224, 8, 8, 8)),
    ],
)
def test_configurations(name, sizes):
    model = create_model(name)
    assert (
        model.num_classes,
        model.patch_size,
        model.num_glance_frames,
        model.num_focus_frames,
        model.num_candidate_frames,
    ) == sizes
    assert (model.frame_size, model.mean, model.std) == (224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_overrides():
    model = create_model("uni_adafocus_tsm_96_8+8", num_classes=3, num_focus_frames=4, num_candidate_frames=9)
    sizes = (model.num_classes, model.patch_size, model.num_focus_frames, model.num_candidate_frames)
    assert sizes == (3, 96, 4, 9)
    with pytest.raises(TypeError, match="patch_sise"):
        create_model("uni_adafocus_tsm", patch_sise=96)


def test_unknown_name():
    with pytest.raises(ValueError, match="got 'uni_adafocus_tsm_64'") as error:
        create_model("uni_adafocus_tsm_64")
    assert all(name in str(error.value) for name in list_models())


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds(name):
    configurations = json.loads((ORACLES / "flops.json").read_text())["configurations"]
    entry = configurations[f"uni_adafocus_tsm/{COUNTED[name]}"]
    want = entry["multiply_adds"]
    model = create_model(name)
    found = multiply_adds(model)
    stages = {
        "glance": want["global_encoder"],
        "focus": want["local_encoder"],
        "head": want["classifier"],
        "total": want["total"],
    }
    if "spatial_policy" in want:
        stages |= {"policy": want["spatial_policy"] + want["temporal_policy"], "exit0": want["exit0"]}
    assert found == stages
    assert round(found["total"] / 1e9, 1) == entry["published"]["gflops"]


def test_multiply_adds_leaves_the_model_as_it_was():
    model = small_model(torch.float32).train()
    before = copy.deepcopy(model.state_dict())
    with use_backend("reference"):
        counts = multiply_adds(model)
    assert counts == multiply_adds(fold_batch_norm(model))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@torch.inference_mode()
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("make", [small_model, lambda: fill(TSMPlus(6, 2, 2)).double()], ids=["uni", "plus"])
def test_folding_changes_no_result(make, memory_format):
    model = make().to(memory_format=memory_format)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    assert not folded.training
    assert folded.focus_encoder.conv1.weight.is_contiguous(memory_format=memory_format)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])

    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, model.num_candidate_frames, 3, 224, 224, generator=generator, dtype=torch.float64)
    want, found = model(frames), folded(frames)
    assert torch.equal(found.frame_index, want.frame_index)
    for field in ("logits", "exit_logits", "boxes", "weights"):
        a, b = getattr(found, field), getattr(want, field)
        assert (a - b).norm() / b.norm() <= 1e-10, field


def test_folding_keeps_a_bias_and_the_dtype():
    module = fill(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(torch.bfloat16)
    folded = fold_batch_norm(module)
    assert folded[0].weight.dtype == folded[0].bias.dtype == torch.bfloat16
    module, x = module.double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(module)(x), module(x), rtol=1e-12, atol=1e-12)


def test_folding_needs_a_convolution():
    with pytest.raises(ValueError, match=r"1\.0 must follow the convolution that it is to be folded into"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4))))
    with pytest.raises(ValueError, match="1 must follow"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)))
