"""Checkpoints in the forms that people have them: what surrounds the weights and their names, heads, backbones."""

import numpy as np
import pytest
import torch
from checkpoint_data import OPTIONS, Small, assert_loads, prefixed, weights
from oracle_models import fill, small_model
from torch import nn

from adafocus_models import MobileNetV2, ResNet50, UniAdaFocusTSM, load_backbone
from adafocus_models.networks.checkpoints import load_checkpoint

NUMBERS = {
    "best_acc1": np.float64(71.25),
    "epoch": np.int64(50),
    "done": np.bool_(True),
    "half": np.float16(0.5),
    "name": np.str_("best"),
    "when": np.datetime64("2024-01-01"),
}
LIGHTNING = {
    "epoch": 3,
    "pytorch-lightning_version": "2.4.0",
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "a.ckpt", "best_model_score": None}},
    "loops": {"fit_loop": {"state_dict": {}}},
    "hyper_parameters": {"lr": 0.1},
    "optimizer_states": [{"state": {}, "param_groups": []}],
}
FORMS = {
    "plain": lambda w: w,
    "DataParallel": lambda w: prefixed("module.", w),
    "torch.compile": lambda w: prefixed("_orig_mod.", w),
    "compiled within DDP": lambda w: prefixed("module._orig_mod.", w),
    "DDP within compile": lambda w: prefixed("_orig_mod.module.", w),
    "compiled part": lambda w: {name.replace("body.", "body._orig_mod."): value for name, value in w.items()},
    "FSDP and checkpoint wrappers": lambda w: {
        "_fsdp_wrapped_module." + name.replace("body.0.", "body.0._checkpoint_wrapped_module."): value
        for name, value in w.items()
    },
    "Lightning": lambda w: {**LIGHTNING, "state_dict": prefixed("model.", w)},
    "Lightning with a loss": lambda w: {"state_dict": {**prefixed("model.", w), "criterion.weight": torch.ones(5)}},
    "Lightning, compiled": lambda w: {"state_dict": prefixed("model._orig_mod.", w)},
    "an attribute of another name": lambda w: prefixed("network.", w),
    "averaged": lambda w: {"n_averaged": torch.tensor(7), **prefixed("module.", w)},
    "SlowFast": lambda w: {"epoch": 3, "model_state": w, "optimizer_state": {}, "cfg": "TRAIN: ..."},
    "DeepSpeed": lambda w: {"module": w, "dp_world_size": 8, "optimizer": None},
    "nested": lambda w: {"state_dict": {"model": prefixed("module.", w), "epoch": 1}},
    "beside averaged ones": lambda w: {"ema": weights(seed=9), "state_dict_ema": weights(seed=9), "model": w},
    "with options": lambda w: {"state_dict": w, "args": OPTIONS},
    "with numbers of NumPy": lambda w: {"state_dict": w, **NUMBERS},
    "without batch counters": lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
    "Parameters": lambda w: {k: nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in w.items()},
    **{key: lambda w, key=key: {key: w, "epoch": 1} for key in ("state_dict", "model", "model_state_dict")},
    **{key: lambda w, key=key: {key: w, "decay": 0.9} for key in ("state_dict_ema", "model_ema", "ema")},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_checkpoints(form, tmp_path):
    content = FORMS[form](weights())
    assert_loads(content)
    for old in (False, True):
        torch.save(content, tmp_path / "any.pth", _use_new_zipfile_serialization=not old)
        assert_loads(tmp_path / "any.pth")


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model.pth.tar", "model.bin", "model"])
def test_names_of_files_say_nothing(name, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="our format needs safetensors")
    safetensors.save_file(weights(), tmp_path / name)
    assert_loads(tmp_path / name)
    for old in (False, True):
        torch.save(weights(), tmp_path / name, _use_new_zipfile_serialization=not old)
        assert_loads(str(tmp_path / name))


def test_weights_that_are_there_twice_are_not_chosen_from():
    both = prefixed("student.", weights()) | prefixed("teacher.", weights(seed=9))
    with pytest.raises(
        ValueError, match=r"has these weights more than once, under student\., teacher\.: pass one as a"
    ):
        load_checkpoint(Small(), both)
    with pytest.raises(ValueError, match=r"9 unexpected: ema\.body\.0\.bias, "):
        load_checkpoint(Small(), weights() | prefixed("ema.", weights()))


def test_a_checkpoint_that_contains_itself(tmp_path):
    content = {"epoch": 1}
    content["model"] = content
    torch.save(content, tmp_path / "circle.pth")
    with pytest.raises(ValueError, match="must hold tensors only; these entries are none: epoch, model"):
        load_checkpoint(Small(), tmp_path / "circle.pth")


def test_what_a_prefix_does_not_excuse():
    """Beneath the prefix every entry counts."""
    state = prefixed("model.", weights())
    with pytest.raises(ValueError, match=r": 1 unexpected: stranger$"):
        load_checkpoint(Small(), state | {"model.stranger": torch.zeros(1)})
    del state["model.head.bias"]
    with pytest.raises(ValueError, match=r": 1 missing: head\.bias$"):
        load_checkpoint(Small(), state)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [3, 5, None])
def test_new_heads_stay_and_are_listed(found):
    """Of another number of classes, of as many, or not there at all."""
    state = weights(found or 5)
    if found is None:
        state = {name: value for name, value in state.items() if not name.startswith("head.")}
    model = Small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_checkpoint(model, prefixed("module.", state), new_heads=True) == ["head.weight", "head.bias"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("head.") else state[name])
    if found != 5:
        with pytest.raises(ValueError, match=r"new_heads=True loads all but the heads$|2 missing: head\.weight, head"):
            load_checkpoint(model, state)
    with pytest.raises(ValueError, match=r"1 missing: body\.0\.bias"):
        load_checkpoint(model, {k: v for k, v in state.items() if k != "body.0.bias"}, new_heads=True)


def test_new_heads_of_a_network():
    with torch.device("meta"):
        model, trained = UniAdaFocusTSM(num_classes=7), UniAdaFocusTSM(num_classes=6)
    kept = model.load_checkpoint(trained.state_dict(), new_heads=True)
    heads = ("glance_head", "focus_head", "glance_aux_head", "focus_aux_head", "spatial_aux_head")
    assert kept == [f"{head}.{entry}" for head in heads for entry in ("weight", "bias")]


# --- backbones --------------------------------------------------------------------------------------------------------


def tsm_checkpoint(encoder: nn.Module) -> dict:
    """The encoder's weights as TSM publishes them: in its model, in DataParallel, without a classifier of their own."""
    names = encoder.published_layers()
    state = {}
    for name, value in encoder.state_dict().items():
        layer, _, entry = name.rpartition(".")
        state[f"module.base_model.{names.get(layer, layer)}.{entry}"] = value
    return {"epoch": 50, "arch": "resnet50", "best_prec1": torch.tensor(70.0), "state_dict": state}


@pytest.mark.parametrize("encoder", [MobileNetV2, ResNet50])
def test_backbones_of_tsm(encoder):
    trained = fill(encoder(num_frames=8))
    checkpoint = tsm_checkpoint(trained)
    shifted = "features.3.conv.0.net.weight" if encoder is MobileNetV2 else "layer1.0.conv1.net.weight"
    assert f"module.base_model.{shifted}" in checkpoint["state_dict"]
    checkpoint["state_dict"] |= {"module.new_fc.weight": torch.zeros(400, 9), "module.new_fc.bias": torch.zeros(400)}
    unshifted = {name.replace(".net.", "."): value for name, value in checkpoint["state_dict"].items()}
    for source in (checkpoint, unshifted):
        backbone = encoder(num_frames=8)
        load_backbone(backbone, source)
        for name, value in trained.state_dict().items():
            assert torch.equal(backbone.state_dict()[name], value), name
    inside = checkpoint["state_dict"] | {"module.base_model.layer1.0.se.fc.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r": 1 unexpected: layer1\.0\.se\.fc\.weight$"):
        load_backbone(encoder(num_frames=8), inside)
    with pytest.raises(ValueError, match=r"missing: .*; \d+ unexpected: .*\.net\.weight"):
        load_backbone(encoder(num_frames=0), checkpoint)


def test_backbones_of_a_whole_model():
    model = small_model(torch.float32)
    state = model.state_dict()
    for name, backbone in (("glance_encoder", MobileNetV2(2)), ("focus_encoder", ResNet50(2))):
        load_backbone(backbone, prefixed("module.", state))
        for entry, value in backbone.state_dict().items():
            assert torch.equal(value, state[f"{name}.{entry}"])
