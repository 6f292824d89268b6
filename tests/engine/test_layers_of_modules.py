"""Modules as lists of layers, and in torch's own operations."""

import io

import pytest
import torch
from torch import nn

from adafocus_models import X3D, MobileNetV2, ResNet50, fold_batch_norm
from adafocus_models.engine import portable, write_onnx
from adafocus_models.engine.layers import as_layers, layers_of
from adafocus_ops import temporal_shift

ENCODERS = {
    "mobilenet_v2": lambda: MobileNetV2(3),
    "mobilenet_v2 unshifted": MobileNetV2,
    "resnet50": lambda: ResNet50(3),
    "x3d": lambda: X3D("s", 3),
}
LAYERS = {"mobilenet_v2": 52, "mobilenet_v2 unshifted": 52, "resnet50": 53}
each_encoder = pytest.mark.parametrize("name", ENCODERS)


def folded(name: str) -> nn.Module:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().eval()
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, -1, 1)
    return fold_batch_norm(encoder).requires_grad_(False).double()


@each_encoder
@torch.inference_mode()
def test_layers_compute_what_the_module_does(name):
    encoder = folded(name)
    x = torch.randn(6, 3, 64, 64, dtype=torch.float64)
    layered = as_layers(encoder)
    torch.testing.assert_close(layered(x), encoder(x))
    layers = layers_of(layered)
    assert len(layers) == LAYERS.get(name, len(layers))
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    assert len(layers) == len(convolutions)


def test_what_surrounds_a_convolution_is_part_of_its_layer():
    layers = layers_of(as_layers(folded("resnet50")))
    assert [name for name, layer in layers.items() if layer.num_frames] == [
        name for name in layers if "conv1_layer" in name and name != "conv1_layer"
    ]
    assert {layer.activation for name, layer in layers.items() if "downsample" not in name} == {"relu"}
    adds = [name for name, layer in layers.items() if layer.overwrites_other]
    assert "layer1_0_conv3_layer" in adds  # into the projection, which nobody else reads
    assert all("conv3" in name for name in adds)


class Shared(nn.Module):
    """Results that are read twice, sums of two convolutions, and a sum with itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.relu = nn.ReLU()

    def forward(self, x):
        a = self.a(x)
        b = self.b(a)
        total = self.relu(a + b)  # a is read again
        doubled = self.c(temporal_shift(total, 2, inverse=True))  # another shift than a layer's
        return doubled + doubled + a


@torch.inference_mode()
def test_nothing_is_merged_that_somebody_else_reads():
    module = Shared().double().eval()
    layered = as_layers(module)
    x = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(layered(x), module(x))
    layers = layers_of(layered)
    assert not any(layer.overwrites_other for layer in layers.values())
    assert not any(layer.num_frames for layer in layers.values())


@torch.inference_mode()
def test_a_sum_in_place_into_the_other_term_stays_where_it_is():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x):
            kept = x * 1
            kept.add_(self.conv(x))
            return kept * 2

    module = Overwrites().eval()
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(as_layers(module)(x), module(x))


@each_encoder
@torch.inference_mode()
def test_portable_modules_have_no_operation_of_ours(name):
    encoder = folded(name)
    plain = portable(encoder)
    x = torch.randn(6, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(plain(x), encoder(x))
    assert not any("adafocus_ops" in getattr(node.target, "__module__", "") for node in plain.graph.nodes)
    assert all(type(m).__module__.startswith("torch.") for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Conv3d))
    torch.testing.assert_close(plain(x[:3]), encoder(x[:3]))  # another batch: frames of a clip are not mixed up


@pytest.mark.parametrize("inverse", [False, True])
def test_shift_by_slices_is_the_shift(inverse):
    from adafocus_models.engine.portable import shift_by_slices

    x = torch.randn(6, 9, 2, 2)
    for fold_div in (2, 3, 8):
        ours = temporal_shift(x, 3, fold_div=fold_div, inverse=inverse)
        assert torch.equal(shift_by_slices(x, 3, fold_div=fold_div, inverse=inverse), ours)


def test_writing_an_onnx_model_leaves_the_module_as_it_is():
    pytest.importorskip("onnx", reason="onnx is an extra: adafocus[cpu]")
    encoder = MobileNetV2(2).eval().requires_grad_(False).to(torch.bfloat16)
    file = io.BytesIO()
    write_onnx(encoder, torch.randn(2, 3, 32, 32).to(torch.bfloat16), file)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert len(file.getvalue()) > 4 * sum(parameter.numel() for parameter in encoder.parameters())  # in float32


def test_a_forward_that_depends_on_values_has_no_layers():
    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(torch.fx.proxy.TraceError):
        as_layers(Branches())
