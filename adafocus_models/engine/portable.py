"""Modules in torch's own operations alone, for whoever does not know ours: other runtimes and file formats."""

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from adafocus_ops import depthwise_conv3d, temporal_shift

from .layers import CONVOLUTIONS, trace

_PLAIN = {2: nn.Conv2d, 3: nn.Conv3d}


def portable(module: nn.Module) -> fx.GraphModule:
    """The module with its temporal shifts as slices and every convolution as torch's; it shares the weights.

    Raises:
        Exception: whatever torch.fx does with a forward that it cannot follow.
    """
    traced = trace(module)
    for node in traced.graph.nodes:
        if node.op == "call_function" and node.target is temporal_shift:
            node.target = shift_by_slices
        elif node.op == "call_function" and node.target is depthwise_conv3d:
            node.target = convolve_each_channel
        elif node.op == "call_module" and isinstance(traced.get_submodule(node.target), CONVOLUTIONS):
            traced.set_submodule(node.target, _plain(traced.get_submodule(node.target)))
    traced.recompile()
    return traced


def shift_by_slices(x: Tensor, num_frames: int, *, fold_div: int = 8, inverse: bool = False) -> Tensor:
    """As `adafocus_ops.temporal_shift`."""
    clips = x.unflatten(0, (-1, num_frames))  # [B, T, C, H, W]
    fold = x.shape[1] // fold_div
    first, second, rest = clips[:, :, :fold], clips[:, :, fold : 2 * fold], clips[:, :, 2 * fold :]
    later, earlier = (second, first) if inverse else (first, second)
    later = torch.cat([later[:, 1:], torch.zeros_like(later[:, :1])], 1)  # frame t + 1
    earlier = torch.cat([torch.zeros_like(earlier[:, :1]), earlier[:, :-1]], 1)  # frame t - 1
    moved = [earlier, later] if inverse else [later, earlier]
    return torch.cat([*moved, rest], 2).flatten(0, 1)


def convolve_each_channel(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride=1, padding=0) -> Tensor:
    """As `adafocus_ops.depthwise_conv3d`."""
    return functional.conv3d(x, weight, bias, stride, padding, groups=x.shape[1])


def _plain(convolution: nn.Module) -> nn.Module:
    """A convolution of torch's own class with the same weights: a subclass may compute by an op of ours."""
    plain_class = _PLAIN[len(convolution.kernel_size)]
    if type(convolution) is plain_class:
        return convolution
    plain = plain_class(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
        bias=convolution.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = convolution.weight, convolution.bias
    return plain
