"""The libraries that torch brings, oneDNN and cuDNN, with what they can do in the same pass as a convolution."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..facts import computes_with
from ..layers import Layer
from .runtime import Runtime

# Our activations as oneDNN's: name and numbers.
_ONEDNN = {None: (None, []), "relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0]), "silu": ("swish", [])}


class Library(Runtime):
    """Convolutions with bias, sum and activation in one pass, and products of matrices where they are the same."""

    name = "library"

    def layer_forms(self, layer: Layer, x: Tensor, other: Tensor | None = None) -> Mapping[str, nn.Module]:
        forms: dict[str, nn.Module] = {}
        if _spans_all(layer, x) and other is None:
            forms["one product"] = OneProduct(layer)
        elif _is_product(layer) and other is None and x.ndim == 4:
            forms["product"] = Product(layer)
        if x.device.type == "cpu" and _onednn_packs(x):
            forms["onednn"] = Packed(layer, x)
        if x.device.type == "cuda":
            forms |= _cudnn_forms(layer, x, other)
        return forms


def _spans_all(layer: Layer, x: Tensor) -> bool:
    """Tells if the convolution sees all of x at once, so that it gives one number a filter."""
    conv = layer.convolution
    spans = tuple(x.shape[2:]) == tuple(conv.kernel_size) and not any(conv.padding)
    return spans and conv.groups == 1 and set(conv.dilation) == {1}


def _is_product(layer: Layer) -> bool:
    """Tells if the convolution is a product of matrices: a filter sees one place."""
    conv = layer.convolution
    return set(conv.kernel_size) == set(conv.stride) == {1} and not any(conv.padding) and conv.groups == 1


class OneProduct(nn.Module):
    """A convolution over all of its input, as one product of matrices."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        conv = self.layer.convolution
        out = functional.linear(self.layer.shift(x).flatten(1), conv.weight.flatten(1), conv.bias)  # [M, C_out]
        return self.layer.activate(out.reshape(*out.shape, *[1] * (x.ndim - 2)))


class Product(nn.Module):
    """A 1x1 convolution as a product of matrices over pixels; on a GPU with ReLU in the same pass."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:  # [M, C, H, W], channels_last
        layer, conv = self.layer, self.layer.convolution
        pixels = layer.shift(x).permute(0, 2, 3, 1)  # [M, H, W, C]
        weight = conv.weight.flatten(1)  # [C_out, C]
        if x.is_cuda and layer.activation == "relu" and conv.bias is not None and hasattr(torch, "_addmm_activation"):
            out = torch._addmm_activation(conv.bias, pixels.flatten(0, 2), weight.t()).unflatten(0, pixels.shape[:3])
            return out.permute(0, 3, 1, 2)
        return layer.activate(functional.linear(pixels, weight, conv.bias).permute(0, 3, 1, 2))


class Packed(nn.Module):
    """oneDNN's convolution: weights in the order that it wants for this shape; bias, sum and activation in its pass."""

    def __init__(self, layer: Layer, x: Tensor) -> None:
        super().__init__()
        conv = layer.convolution
        self.layer = layer
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        pack = getattr(torch._C._nn, f"mkldnn_reorder_conv{x.ndim - 2}d_weight")
        self.weight = pack(conv.weight.detach().to_mkldnn(), *self.geometry, x.shape)
        self.bias = conv.bias
        self.activation, self.numbers = _ONEDNN[layer.activation]

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        x = self.layer.shift(x)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *self.geometry, self.activation or "none", self.numbers, ""
            )
        tail = "add", 1.0, self.activation, self.numbers, ""
        if self.layer.overwrites_other:
            return torch.ops.mkldnn._convolution_pointwise_.binary(
                other, x, self.weight, self.bias, *self.geometry, *tail
            )
        return torch.ops.mkldnn._convolution_pointwise.binary(x, other, self.weight, self.bias, *self.geometry, *tail)


def _onednn_packs(x: Tensor) -> bool:
    """Tells if oneDNN is there and takes the dtype on this processor."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return False
    return x.dtype in (torch.float32, torch.bfloat16) and computes_with(x.dtype)


def _cudnn_forms(layer: Layer, x: Tensor, other: Tensor | None) -> Mapping[str, nn.Module]:
    """cuDNN adds and clips at 0 in the pass of the convolution."""
    fits = torch.backends.cudnn.is_available() and x.dtype in (torch.float16, torch.bfloat16, torch.float32)
    name = "cudnn_convolution_relu" if other is None else "cudnn_convolution_add_relu"
    fits = fits and layer.activation == "relu" and layer.convolution.bias is not None and hasattr(torch, name)
    return {"cudnn": CudnnReLU(layer)} if fits else {}


class CudnnReLU(nn.Module):
    """relu(convolution + bias) or relu(convolution + bias + other) by one call of cuDNN."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        conv = self.layer.convolution
        geometry = conv.stride, conv.padding, conv.dilation, conv.groups
        x = self.layer.shift(x)
        if other is None:
            return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *geometry)
        return torch.cudnn_convolution_add_relu(x, conv.weight, other, 1.0, conv.bias, *geometry)
