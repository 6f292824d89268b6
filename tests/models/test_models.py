"""Models by name, what they cost, and batch normalisation folded away."""

import copy
import json

import pytest
import torch
from oracle_models import fill, small_model
from torch import nn

from adafocus_models import TSMPlus, create_model, fold_batch_norm, list_models, multiply_adds
from adafocus_ops import use_backend
from conftest import ORACLES

# Configuration -> its name in flops.json.
CONFIGURATIONS = {
    "uni_adafocus_tsm_96_8+8": "p96_8+8",
    "uni_adafocus_tsm_96_8+12": "p96_8+12",
    "uni_adafocus_tsm_128_8+12": "p128_8+12",
    "uni_adafocus_tsm_128_8+16": "p128_8+16",
    "tsm_plus_8+8": "tsm+_mn2_r50_8+8",
}


def test_list_models():
    assert list_models() == ["uni_adafocus_tsm", "tsm_plus", *CONFIGURATIONS]


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


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_multiply_adds(name):
    configurations = json.loads((ORACLES / "flops.json").read_text())["configurations"]
    entry = configurations[f"uni_adafocus_tsm/{CONFIGURATIONS[name]}"]
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
