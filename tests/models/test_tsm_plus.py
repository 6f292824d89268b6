"""TSM+: the same encoders as Uni-AdaFocus-TSM's, on whole frames."""

import zlib

import pytest
import torch
from oracle_models import fill, load_case
from torch import nn

from adafocus_models import TSMPlus


def layer_checksums(encoder: nn.Module) -> dict[str, int]:
    """Name of every convolution -> checksum of what it returned last, filled by the next forward."""
    sums: dict[str, int] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: sums.update({name: zlib.crc32(output.numpy().tobytes())})
            )
    return sums


@torch.inference_mode()
def test_same_weights_give_the_features_of_uni_adafocus_tsm():
    """Layer by layer, and the answer of one layer on both features is the sum of two heads'."""
    case = load_case("uni_adafocus_tsm_p96_k8")
    uni = case.model(torch.float64)
    plus = TSMPlus().double().eval()
    state = {name: value for name, value in uni.state_dict().items() if "_encoder." in name}
    state["classifier.weight"] = torch.cat([uni.glance_head.weight, uni.focus_head.weight], 1)
    state["classifier.bias"] = uni.glance_head.bias + uni.focus_head.bias
    plus.load_checkpoint(state)

    frames, glance_frames = (x[:1, :8].double() for x in case.inputs)
    encoders = ("glance_encoder", "focus_encoder")
    sums = {(model, name): layer_checksums(getattr(model, name)) for model in (uni, plus) for name in encoders}
    output = plus(frames, glance_frames)
    _, glance_features = uni.glance(glance_frames[0])
    focus_features = uni.focus(frames[0])
    for name, layers in zip(encoders, (52, 53), strict=True):
        assert len(sums[uni, name]) == layers
        assert sums[uni, name] == sums[plus, name]
    torch.testing.assert_close(output.logits, uni.final_head(glance_features, focus_features), rtol=1e-10, atol=1e-10)


@torch.inference_mode()
def test_output():
    model = fill(TSMPlus(num_classes=5, num_glance_frames=2, num_focus_frames=2))
    frames = torch.randn(3, 2, 3, 224, 224)
    output = model(frames)
    assert output.logits.shape == (3, 5)
    assert torch.equal(output.exit_logits, output.logits[:, None])
    assert output.frame_index.tolist() == output.glance_index.tolist() == [[0, 1]] * 3
    assert output.boxes.tolist() == [[112, 112, 224, 224]] * 3
    assert output.weights.tolist() == [[0.5, 0.5]] * 3
    given = model(frames, frames)
    assert given.glance_index is None
    assert torch.equal(given.logits, output.logits)


def test_bad_input():
    model = TSMPlus(num_glance_frames=2, num_focus_frames=2)
    with pytest.raises(ValueError, match="gate must be None: this model has one exit"):
        model(torch.zeros(1, 2, 3, 224, 224), gate=lambda logits: None)
    with pytest.raises(ValueError, match=r"frames must be \[B, 2, 3, 224, 224\], got \(1, 3, 3, 224, 224\)"):
        model(torch.zeros(1, 3, 3, 224, 224))
    with pytest.raises(ValueError, match="num_focus_frames must equal num_glance_frames=8, got 4"):
        TSMPlus(num_focus_frames=4)
