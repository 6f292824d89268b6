"""Checkpoints: the names, what does not fit, and that nothing is half loaded."""

import datetime
import re

import pytest
import torch
from oracle_models import MANIFESTS, SMALL, fill, manifest, published_weights, small_model

from adafocus_models import X3D, MobileNetV2, ResNet50, UniAdaFocusTSM, architectures, create_model, load_backbone
from adafocus_models.networks.checkpoints import published_names

CONV = ("weight",)
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_names(layers: list[tuple[str, tuple[str, ...]]]) -> list[str]:
    return [f"{layer}.{entry}" for layer, entries in layers for entry in entries]


def torchvision_mobilenet_v2() -> list[str]:
    layers = [("features.0.0", CONV), ("features.0.1", NORM)]
    layers += [("features.1.conv.0.0", CONV), ("features.1.conv.0.1", NORM)]
    layers += [("features.1.conv.1", CONV), ("features.1.conv.2", NORM)]
    for block in range(2, 18):
        for conv, norm in (("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")):
            layers += [(f"features.{block}.conv.{conv}", CONV), (f"features.{block}.conv.{norm}", NORM)]
    return torchvision_names([*layers, ("features.18.0", CONV), ("features.18.1", NORM)])


def torchvision_resnet50() -> list[str]:
    layers = [("conv1", CONV), ("bn1", NORM)]
    for number, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name = f"layer{number}.{block}"
            for i in (1, 2, 3):
                layers += [(f"{name}.conv{i}", CONV), (f"{name}.bn{i}", NORM)]
            if block == 0:
                layers += [(f"{name}.downsample.0", CONV), (f"{name}.downsample.1", NORM)]
    return torchvision_names(layers)


@pytest.mark.parametrize(
    ("encoder", "names"), [(MobileNetV2, torchvision_mobilenet_v2), (ResNet50, torchvision_resnet50)]
)
@pytest.mark.parametrize("num_frames", [0, 8])
def test_encoders_have_torchvision_names(encoder, names, num_frames):
    assert sorted(encoder(num_frames).state_dict()) == sorted(names())


# Architecture -> entries of its manifest that no part here is for.
EXTRAS = {
    "uni_adafocus": {
        f"{part}.{entry}" for part in ("global_CNN.classifier", "local_CNN.fc") for entry in (*CONV, "bias")
    },
    "adafocus_v2": {
        f"{part}.{entry}" for part in ("global_CNN.classifier", "local_CNN.fc") for entry in (*CONV, "bias")
    },
}


@pytest.mark.parametrize("architecture", MANIFESTS)
def test_published_names_are_the_manifest(architecture):
    with torch.device("meta"):
        model = create_model(architecture)
    naming, state = published_names(model), model.state_dict()
    assert naming.keys() == state.keys()
    found = {naming[name]: tuple(value.shape) for name, value in state.items()}
    assert len(found) == len(naming)
    wanted = manifest(architecture)
    extras = {name for name in wanted if name.startswith(model.published_extras)} if model.published_extras else set()
    assert {name for name in extras if ".policy.policy." not in name} == EXTRAS.get(architecture, set())
    assert found == {name: shape for name, shape in wanted.items() if name not in extras}


def test_published_names_of_layers():
    naming = published_names(UniAdaFocusTSM())
    assert naming["glance_encoder.features.3.conv.1.1.bias"] == "global_CNN.base_model.features.3.conv.4.bias"
    assert naming["glance_encoder.features.1.conv.1.weight"] == "global_CNN.base_model.features.1.conv.3.weight"


@pytest.mark.parametrize("architecture", ["adafocus_v1", "adafocus_v1_tsm"])
@pytest.mark.parametrize("whole", [True, False])
def test_published_parts(architecture, whole):
    """The files of AdaFocus hold state dicts of the parts, with or without that of the whole beside them."""
    weights = published_weights(architecture)
    policy = "focuser.policy.policy_old."
    parts = {"glancer": "glancer.", "focuser": "focuser.", "fc": "classifier.", "policy": policy}
    source = {
        key: {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        for key, prefix in parts.items()
    }
    source["focuser"] = {name: value for name, value in source["focuser"].items() if not name.startswith("policy.")}
    if whole:
        source["model_state_dict"] = {
            n: v for n, v in weights.items() if architecture == "adafocus_v1" or policy not in n
        }
    model = create_model(architecture)
    model.load_checkpoint({"epoch": 50, "best_acc": torch.tensor(70.0), "optimizer": None, **source})
    for ours, theirs in published_names(model).items():
        assert torch.equal(model.state_dict()[ours], weights[theirs])


def test_files_of_slowfast():
    """X3D's own, whose names ours are, and its encoder within Uni-AdaFocus-X3D."""
    first = create_model("x3d_s", num_classes=5)
    published = {theirs: first.state_dict()[ours] for ours, theirs in published_names(first).items()}
    assert {"s1.pathway0_stem.conv_xy.weight", "head.conv_5.weight", "head.lin_5.weight"} <= set(published)
    second = create_model("x3d_s", num_classes=5)
    second.load_checkpoint({"model_state": published, "epoch": 3})
    encoder = X3D("s", 16)
    load_backbone(encoder, {"model_state": published})
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    for name, value in first.focus_encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name])


@pytest.mark.parametrize("name", ["ckpt.best.pth.tar", "weights.pth", "weights.pt"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_published_file(tmp_path, name, wrap):
    weights = {f"module.{key}": value for key, value in published_weights().items()}
    torch.save({wrap: weights, "epoch": 50, "best_prec1": torch.tensor(1.0)} if wrap else weights, tmp_path / name)
    model = UniAdaFocusTSM()
    model.load_checkpoint(str(tmp_path / name))
    for ours, theirs in published_names(model).items():
        assert torch.equal(model.state_dict()[ours], published_weights()[theirs])


@pytest.mark.parametrize("architecture", [name for name in architectures() if name not in ("x3d_m", "x3d_l")])
def test_round_trip(tmp_path, architecture):
    pytest.importorskip("safetensors", reason="our format needs safetensors")
    first = create_model(architecture, num_classes=6, **SMALL[architecture]).to(memory_format=torch.channels_last)
    first.save_checkpoint(tmp_path / "model.safetensors")
    with torch.device("meta"):
        second = create_model(architecture, num_classes=6, **SMALL[architecture])
    second = second.to_empty(device="cpu").to(memory_format=torch.channels_last)
    second.load_checkpoint(tmp_path / "model.safetensors")
    assert not next(second.focus_encoder.parameters()).is_contiguous()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_load_keeps_the_dtype():
    model = small_model(torch.float64)
    model.load_checkpoint(small_model(torch.float32).state_dict())
    assert model.focus_head.weight.dtype == torch.float64


def changed(state: dict, change: str) -> dict:
    state = dict(state)
    if change == "missing":
        del state["aux_fc.bias"], state["local_CNN.new_fc.weight"]
    elif change == "unexpected":
        state["global_CNN.stranger"] = torch.zeros(1)
    elif change == "reshaped":
        state["spatial_policy.encoder.9.weight"] = torch.zeros(4, 128, 16, 7, 7)
    elif change == "unshifted":
        for name in list(state):
            state[name.replace(".net.", ".")] = state.pop(name)
    return state


MESSAGES = {
    "missing": r"the checkpoint does not fit this UniAdaFocusTSM: 2 missing: local_CNN.new_fc.weight, aux_fc.bias$",
    "unexpected": r": 1 unexpected: global_CNN.stranger$",
    "reshaped": r": 1 of another shape: spatial_policy.encoder.9.weight must be \(4, 128, 8, 7, 7\),"
    r" got \(4, 128, 16, 7, 7\)$",
    "unshifted": r"26 missing: .*\.net\.weight and 6 more; 26 unexpected: .* and 6 more$",
}


@pytest.mark.parametrize("change", MESSAGES)
def test_what_does_not_fit_is_listed_and_nothing_is_loaded(change):
    model = UniAdaFocusTSM()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=MESSAGES[change]):
        model.load_checkpoint(changed(published_weights(), change))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_another_class_count_is_named():
    model = small_model(num_classes=7)
    message = "5 of another shape|10 of another shape"
    with pytest.raises(ValueError, match=message) as error:
        model.load_checkpoint(small_model(num_classes=6).state_dict())
    assert str(error.value).endswith(
        "; it seems to be for num_classes=6, this model has 7; new_heads=True loads all but the heads"
    )
    assert "focus_head.weight must be (7, 2048), got (6, 2048)" in str(error.value)


def test_a_checkpoint_of_another_model():
    with pytest.raises(ValueError, match=r"2 missing: classifier.weight, classifier.bias; \d+ unexpected: .* more$"):
        create_model("tsm_plus").load_checkpoint(UniAdaFocusTSM().state_dict())


def test_only_safe_files_are_read(tmp_path):
    path = tmp_path / "unsafe.pth"
    torch.save({"state_dict": {}, "when": datetime.date(2024, 1, 1)}, path)
    with pytest.raises(ValueError, match=re.escape(f"{path} must hold tensors and plain containers only")):
        UniAdaFocusTSM().load_checkpoint(path)


def test_what_is_no_state_dict(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="a checkpoint must hold a state dict, got list"):
        UniAdaFocusTSM().load_checkpoint(tmp_path / "list.pth")
    with pytest.raises(ValueError, match="must hold tensors only; these entries are none: epoch, arch"):
        UniAdaFocusTSM().load_checkpoint({"epoch": 1, "arch": "resnet50"})


@pytest.mark.parametrize(("encoder", "classifier"), [(MobileNetV2, "classifier.1"), (ResNet50, "fc")])
def test_load_backbone(encoder, classifier):
    weights = fill(encoder()).state_dict()
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    for state in (weights, old):
        backbone = encoder(num_frames=8)
        load_backbone(
            backbone, state | {f"{classifier}.weight": torch.zeros(1000), f"{classifier}.bias": torch.zeros(1000)}
        )
        for name, value in weights.items():
            assert torch.equal(backbone.state_dict()[name], value)
    del old[next(iter(old))]
    with pytest.raises(ValueError, match=f"does not fit this {encoder.__name__}: 1 missing: "):
        load_backbone(encoder(), old)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar", ".pth"])
@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint at all", b"PK\x03\x04 a broken archive", b"\x80\x02}q\x00."]
)
def test_a_damaged_file_is_a_clear_error(tmp_path, suffix, content):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    model = UniAdaFocusTSM(num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"broken.* is not a checkpoint: it (is|begins with)"):
        model.load_checkpoint(path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
