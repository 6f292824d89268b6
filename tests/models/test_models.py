"""Models by name, what they cost, and batch normalisation folded away."""

import copy
import importlib
import json
import pkgutil
from functools import cache

import pytest
import torch
from oracle_models import SMALL, fill, record_stages, small_model
from torch import nn

from adafocus_models import (
    STAGES,
    VideoModel,
    architectures,
    configurations,
    create_model,
    exit_costs,
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
    **{f"uni_adafocus_{size}_16+16": f"uni_adafocus/p{size}_16+16" for size in (96, 128, 160)},
    **{
        f"uni_adafocus_tsm_{sizes}": f"uni_adafocus_tsm/p{sizes}"
        for sizes in ("96_8+8", "96_8+12", "128_8+12", "128_8+16")
    },
    "uni_adafocus_x3d_128_16+32": "uni_adafocus_x3d/p128_16+32",
    **{f"adafocus_v2_{size}_16": f"adafocus_v2/p{size}_16" for size in (96, 128, 160)},
    **{f"adafocus_v2_tsm_{size}_8+12": f"adafocus_v2_tsm/p{size}_8+12" for size in (128, 144, 160, 176)},
    "tsm_8": "uni_adafocus_tsm/tsm_r50_8f",
    "tsm_plus_8+8": "uni_adafocus_tsm/tsm+_mn2_r50_8+8",
    "x3d_s_13": "uni_adafocus_x3d/x3d_s_13x160",
    "x3d_m_16": "uni_adafocus_x3d/x3d_m_16x224",
    "x3d_l_16": "uni_adafocus_x3d/x3d_l_16x312",
}
# Those whose multiply-adds nobody published.
UNCOUNTED = [f"adafocus_v1_{size}_16" for size in (96, 128, 160)]
UNCOUNTED += [f"adafocus_v1_tsm_{size}_8+12" for size in (144, 160, 176)]
ARCHITECTURES = {  # exits, a policy, a glance, frame size
    "uni_adafocus": (17, True, True, 224),
    "uni_adafocus_tsm": (2, True, True, 224),
    "uni_adafocus_x3d": (2, True, True, 224),
    "adafocus_v2": (16, True, True, 224),
    "adafocus_v2_tsm": (2, True, True, 224),
    "adafocus_v1": (16, True, True, 224),
    "adafocus_v1_tsm": (2, True, True, 224),
    "tsm": (1, False, False, 224),
    "tsm_plus": (1, False, True, 224),
    "x3d_s": (1, False, False, 160),
    "x3d_m": (1, False, False, 224),
    "x3d_l": (1, False, False, 312),
}


@pytest.fixture(scope="module")
def models() -> dict[str, VideoModel]:
    """Every configuration, on the device "meta": what is asked of them here is no weight."""
    with torch.device("meta"):
        return {name: create_model(name) for name in configurations()}


@cache
def counts(name: str) -> dict[str, int]:
    """Multiply-adds of a configuration."""
    with torch.device("meta"):
        return multiply_adds(create_model(name))


def test_list_models():
    assert list_models() == [*architectures(), *configurations()]
    assert list(architectures()) == list(ARCHITECTURES)
    assert set(configurations()) == {*COUNTED, *UNCOUNTED}


def test_figures_are_the_papers():
    """With the share that leaves early where one is stated."""
    stated = {name: made.paper for name, made in configurations().items() if made.table == "IV" and "_v" not in name}
    assert stated == {
        "uni_adafocus_tsm_96_8+8": (8.8, 569.4),
        "uni_adafocus_tsm_96_8+12": (11.8, 474.8),
        "uni_adafocus_tsm_128_8+12": (18.8, 366.4),
        "uni_adafocus_tsm_128_8+16": (24.2, 305.4),
        "tsm_8": (32.7, None),
        "tsm_plus_8+8": (35.1, 218.2),
    }
    early = {name: dict(made.paper_exits) for name, made in configurations().items() if made.paper_exits}
    assert early == {
        "uni_adafocus_128_16+16": {0.408: (18.1, None), 0.811: (9.1, None)},
        "uni_adafocus_tsm_96_8+12": {0.319: (8.8, 569.2)},
        "uni_adafocus_tsm_128_8+16": {0.248: (18.8, 366.8)},
        "uni_adafocus_x3d_128_16+32": {0.612: (4.9, None)},
    }
    assert {made.table for made in configurations().values()} == {"II", "IV", "V"}


@pytest.mark.parametrize("name", configurations())
def test_configurations_make_what_they_state(name, models):
    configuration = configurations()[name]
    assert configuration.name == name
    model = models[name]
    assert type(model) is architectures()[configuration.architecture]
    for argument, value in configuration.arguments.items():
        assert getattr(model, argument) == value
    count = counts(name)
    if configuration.paper is not None:
        assert count["total"] / 1e9 == pytest.approx(configuration.paper.gflops, abs=0.06)
    for share, figures in configuration.paper_exits.items():
        mean = count["total"] - share * (count["total"] - count["exit0"])
        assert mean / 1e9 == pytest.approx(figures.gflops, abs=0.06)


def test_what_is_collected_cannot_be_changed_from_outside():
    configurations().clear()
    architectures().clear()
    assert create_model("tsm_plus_8+8", num_classes=3).num_classes == 3


def test_every_network_is_registered():
    registered = architectures().values()
    found = [value for module in NETWORKS for value in vars(module).values() if isinstance(value, type)]
    networks = {value for value in found if issubclass(value, VideoModel) and "forward" in vars(value)}
    assert all(any(issubclass(made, network) for made in registered) for network in networks - {VideoModel})
    stated = {made.name for module in NETWORKS for made in getattr(module, "CONFIGURATIONS", ())}
    assert stated == set(configurations())
    assert {made.architecture for made in configurations().values()} == set(architectures())


def test_properties_of_the_networks():
    properties = {
        name: (made.num_exits, made.has_policy, made.has_glance, made.frame_size)
        for name, made in architectures().items()
    }
    assert properties == ARCHITECTURES
    assert all(made.has_early_exit == (made.num_exits > 1) for made in architectures().values())


@pytest.mark.parametrize("name", architectures())
def test_properties_are_what_the_model_does(name):
    network = architectures()[name]
    assert list(network.stage_methods) == [stage for stage in STAGES if stage in network.stage_methods]
    assert set(network.stage_modules) == set(network.stage_methods) - {"read"}
    with torch.device("meta"):
        model = create_model(name, num_classes=3, **SMALL[name]).eval()
        returned = record_stages(model)
        inputs = [torch.zeros(x.shape, dtype=torch.uint8) for x in inputs_of_meta(model)]
        with torch.inference_mode(), use_backend("reference"):
            output = model(*inputs)
    assert output.exit_logits.shape == (1, model.num_exits, 3)
    assert all(returned.values())  # no stage is listed that does not run
    assert model.has_policy == ("policy" in returned)


def inputs_of_meta(model: VideoModel) -> list[torch.Tensor]:
    counts = (model.num_candidate_frames, model.num_glance_frames)
    return [torch.empty(1, count, 3, model.frame_size, model.frame_size, device="meta") for count in counts if count]


SIZES = {  # classes, patch, glance, focus and candidate frames
    "uni_adafocus_128_16+16": (200, 128, 16, 16, 48),
    "uni_adafocus_tsm_96_8+8": (174, 96, 8, 8, 24),
    "uni_adafocus_tsm_96_8+12": (174, 96, 8, 12, 36),
    "uni_adafocus_tsm_128_8+12": (174, 128, 8, 12, 36),
    "uni_adafocus_tsm_128_8+16": (174, 128, 8, 16, 48),
    "uni_adafocus_x3d_128_16+32": (400, 128, 16, 32, 96),
    "adafocus_v2_160_16": (200, 160, 16, 16, 16),
    "adafocus_v2_tsm_144_8+12": (174, 144, 8, 12, 12),
    "adafocus_v1_96_16": (200, 96, 16, 16, 16),
    "adafocus_v1_tsm_176_8+12": (174, 176, 8, 12, 12),
    "tsm_8": (174, 224, 0, 8, 8),
    "tsm_plus_8+8": (174, 224, 8, 8, 8),
    "x3d_s_13": (400, 160, 0, 13, 13),
    "x3d_m_16": (400, 224, 0, 16, 16),
    "x3d_l_16": (400, 312, 0, 16, 16),
}


@pytest.mark.parametrize("name", SIZES)
def test_configurations(name, models):
    model = models[name]
    assert (
        model.num_classes,
        model.patch_size,
        model.num_glance_frames,
        model.num_focus_frames,
        model.num_candidate_frames,
    ) == SIZES[name]
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_overrides():
    model = create_model("uni_adafocus_tsm_96_8+8", num_classes=3, num_focus_frames=4, num_candidate_frames=9)
    sizes = (model.num_classes, model.patch_size, model.num_focus_frames, model.num_candidate_frames)
    assert sizes == (3, 96, 4, 9)
    with pytest.raises(TypeError, match="patch_sise"):
        create_model("uni_adafocus_tsm", patch_sise=96)


@pytest.mark.parametrize("name", ["adafocus_v1", "adafocus_v2", "adafocus_v1_tsm", "adafocus_v2_tsm"])
def test_networks_that_look_at_all_candidates(name):
    with torch.device("meta"):
        model = create_model(name, num_focus_frames=4, num_candidate_frames=4)
        assert model.num_candidate_frames == 4
        with pytest.raises(ValueError, match="num_candidate_frames must equal num_focus_frames=4, got 12"):
            create_model(name, num_focus_frames=4, num_candidate_frames=12)


def test_unknown_name():
    with pytest.raises(ValueError, match="got 'uni_adafocus_tsm_64'") as error:
        create_model("uni_adafocus_tsm_64")
    assert all(name in str(error.value) for name in list_models())


@pytest.mark.parametrize("name", COUNTED)
def test_multiply_adds(name, models):
    """Exactly, but for the classifiers of single glance frames, which only training needs, and what an exit at the
    glance needs no clip head for."""
    entry = json.loads((ORACLES / "flops.json").read_text())["configurations"][COUNTED[name]]
    want = entry["multiply_adds"]
    found = counts(name)
    stages = {"glance": "global_encoder", "focus": "local_encoder", "head": "classifier"}
    exact = {stage: want[key] for stage, key in stages.items() if key in want} | {"total": want["total"]}
    if "spatial_policy" in want:
        exact["policy"] = want["spatial_policy"] + want.get("temporal_policy", 0)
    if "exit0" in want:
        assert found["exit0"] == pytest.approx(want["exit0"], rel=0.003)
    if models[name].num_exits == 17:
        unused = 15 * models[name].glance_head.classifiers[0].weight.numel()
        exact["head"] -= unused
        exact["total"] -= unused
    assert {stage: found[stage] for stage in exact} == exact
    if "published" in entry:
        assert found["total"] / 1e9 == pytest.approx(entry["published"]["gflops"], abs=0.06)


@pytest.mark.parametrize("size", ["96", "128", "160"])
def test_costs_of_the_exits_are_the_published_table(size, models):
    tables = json.loads((ORACLES / "flops.json").read_text())["published_cost_tables_gflops"]["tables"]
    found = [cost / 1e9 for cost in exit_costs(models[f"uni_adafocus_{size}_16+16"])]
    assert found == pytest.approx(tables["uni_adafocus"][size], rel=0.003)


@pytest.mark.parametrize("name", ["adafocus_v1", "adafocus_v2"])
def test_costs_of_a_network_of_one_frame(name):
    """Which then has one exit."""
    with torch.device("meta"):
        model = create_model(name, num_focus_frames=1)
    counts = multiply_adds(model)
    assert "exit0" not in counts
    assert exit_costs(model) == [counts["total"]]


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


def test_folding_keeps_a_bias_and_the_dtype():
    module = fill(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))).to(torch.bfloat16)
    folded = fold_batch_norm(module)
    assert folded[0].weight.dtype == folded[0].bias.dtype == torch.bfloat16
    module, x = module.double(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(fold_batch_norm(module)(x), module(x), rtol=1e-12, atol=1e-12)


def test_folding_needs_a_convolution():
    with pytest.raises(ValueError, match=r"1\.0 must follow the convolution or linear layer that it is to be folded"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4))))
    with pytest.raises(ValueError, match="1 must follow"):
        fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(5)))
