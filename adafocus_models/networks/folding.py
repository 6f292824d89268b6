"""Batch normalisation folded into the layers before it, for inference."""

import copy

import torch
from torch import nn

from adafocus_ops.checks import require

WEIGHTED = (nn.Conv2d, nn.Conv3d, nn.Linear)
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy for inference in which every convolution or linear layer does the work of the BatchNorm after it.

        w' = w g / sqrt(v + eps),    b' = beta - (m - b) g / sqrt(v + eps)

    with the running mean m and variance v, the scale g and the shift beta; computed in float64.

    Args:
        module: one whose submodules register each BatchNorm right after the layer whose output it takes, as
            all models here (and torchvision's MobileNetV2 and ResNet) do.

    Returns:
        a copy in eval mode with the same outputs up to rounding; an Identity stands in each BatchNorm's place.

    Raises:
        ValueError: a BatchNorm that does not follow a convolution or linear layer of as many channels, or has no
            weights or no running statistics.
    """
    module = copy.deepcopy(module).eval()
    for parent_name, parent in list(module.named_modules()):
        before = None
        for name, child in parent.named_children():
            if isinstance(child, NORMALISATIONS):
                _check_foldable(f"{parent_name}.{name}", before, child)
                _fold(before, child)
                setattr(parent, name, nn.Identity())
            before = child
    return module


def _check_foldable(name: str, before: nn.Module | None, norm: nn.Module) -> None:
    fits = isinstance(before, WEIGHTED) and before.weight.shape[0] == norm.num_features
    require(fits, lambda: f"{name} must follow the convolution or linear layer that it is to be folded into")
    whole = norm.affine and norm.track_running_stats
    require(whole, lambda: f"{name} must have weights and running statistics to be folded")


@torch.no_grad()
def _fold(layer: nn.Conv2d | nn.Conv3d | nn.Linear, norm: nn.Module) -> None:
    weight = layer.weight  # [C_out, C_in, ...]
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()  # [C_out]
    mean = norm.running_mean.double() - (0 if layer.bias is None else layer.bias.double())
    bias = norm.bias.double() - mean * scale
    weight.copy_(weight.double() * scale.view(-1, *[1] * (weight.ndim - 1)))  # keeps the memory format
    layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)
