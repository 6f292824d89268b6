"""depthwise_conv3d in plain PyTorch: a sum over the taps of the kernel, each the whole clip shifted and weighed.

The arithmetic is in the dtype of the weight. Places of the padding are zeros.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._layouts import convolved_size, empty_clips


def fwd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
    channels_last: bool,
) -> Tensor:
    """x [N, C, T, H, W], weight [C, 1, kt, kh, kw], bias [C]: [N, C, To, Ho, Wo] in x's dtype."""
    stride, padding = (stride_t, stride_h, stride_w), (padding_t, padding_h, padding_w)
    kernel = weight.shape[2:]
    size = convolved_size(x.shape[2:], kernel, stride, padding)
    padded = _padded(x.to(weight.dtype), padding)
    total = weight.new_zeros((*x.shape[:2], *size))
    if bias is not None:
        total += bias.view(-1, 1, 1, 1)
    for tap, places in _taps(kernel, stride, size):
        total += padded[places] * _of_tap(weight, tap)
    return empty_clips(x, total.shape, x.dtype, channels_last).copy_(total)


def bwd_x(
    grad: Tensor,
    weight: Tensor,
    frames: int,
    height: int,
    width: int,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
    channels_last: bool,
) -> Tensor:
    """The gradient of x [N, C, frames, height, width], given that of the result: each tap goes back where it came
    from."""
    stride, padding = (stride_t, stride_h, stride_w), (padding_t, padding_h, padding_w)
    size = (frames, height, width)
    d_padded = weight.new_zeros((*grad.shape[:2], *(n + 2 * p for n, p in zip(size, padding, strict=True))))
    upstream = grad.to(weight.dtype)
    for tap, places in _taps(weight.shape[2:], stride, grad.shape[2:]):
        d_padded[places] += upstream * _of_tap(weight, tap)
    inside = tuple(slice(p, p + n) for n, p in zip(size, padding, strict=True))
    d_x = d_padded[(..., *inside)]
    return empty_clips(grad, d_x.shape, grad.dtype, channels_last).copy_(d_x)


def bwd_weight(
    grad: Tensor,
    x: Tensor,
    kernel_t: int,
    kernel_h: int,
    kernel_w: int,
    stride_t: int,
    stride_h: int,
    stride_w: int,
    padding_t: int,
    padding_h: int,
    padding_w: int,
) -> Tensor:
    """The gradient of the weight [C, 1, kt, kh, kw], float32 (float64 of float64)."""
    stride, padding = (stride_t, stride_h, stride_w), (padding_t, padding_h, padding_w)
    compute = torch.promote_types(x.dtype, torch.float32)
    padded, upstream = _padded(x.to(compute), padding), grad.to(compute)
    d_weight = upstream.new_empty((x.shape[1], 1, kernel_t, kernel_h, kernel_w))
    for tap, places in _taps(d_weight.shape[2:], stride, grad.shape[2:]):
        d_weight[(slice(None), 0, *tap)] = (upstream * padded[places]).sum((0, 2, 3, 4))
    return d_weight


def _padded(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    return pad(x, [p for padding_of_axis in reversed(padding) for p in (padding_of_axis, padding_of_axis)])


def _taps(kernel: tuple[int, ...], stride: tuple[int, ...], size: tuple[int, ...]) -> Iterator[tuple]:
    """Each tap (kt, kh, kw) with the places of the padded clip that it reads, one for each of the result."""
    for tap in product(*map(range, kernel)):
        places = tuple(slice(k, k + s * (n - 1) + 1, s) for k, s, n in zip(tap, stride, size, strict=True))
        yield tap, (..., *places)


def _of_tap(weight: Tensor, tap: tuple[int, ...]) -> Tensor:
    """[C, 1, 1, 1]: one weight of each channel."""
    return weight[(slice(None), 0, *tap)].view(-1, 1, 1, 1)
