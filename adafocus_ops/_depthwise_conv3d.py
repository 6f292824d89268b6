"""depthwise_conv3d: each channel of a clip convolved with a kernel of its own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._autograd import differentiable, gradient
from ._layouts import is_clip_channels_last
from ._overridable import overridable
from .checks import FLOAT_DTYPES, check_same_device, check_tensor, describe, plain_int, require

MAX_KERNEL = 7  # on each axis
AXES = ("t", "h", "w")


@overridable
def depthwise_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int | tuple[int, int, int] = 1,
    padding: int | tuple[int, int, int] = 0,
    backend: str | None = None,
) -> Tensor:
    """Convolves each channel of clips with a small kernel of its own, as `conv3d(..., groups=C)` does.

    y[n, c, o] = bias[c] + sum over taps k of weight[c, 0, k] x[n, c, o * stride + k - padding], with o and k in
    (t, h, w), and x zero outside.

    Args:
        x: [N, C, T, H, W] floating point; any strides are read in place (contiguous and channels_last_3d are the
            fast ones).
        weight: [C, 1, kt, kh, kw] floating point, of 1 to 7 taps on each axis, as `torch.nn.Conv3d` has it. Its dtype
            need not be x's.
        bias: [C] floating point, or None.
        stride: places from one output to the next, on all axes or on each (t, h, w).
        padding: zeros on both sides of x, on all axes or on each (t, h, w); less than the taps of that axis.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [N, C, To, Ho, Wo] with To = (T + 2 padding - kt) // stride + 1, in x's dtype; channels_last_3d if the channels
        of x lie side by side, else contiguous. Sums are float32, or float64 if x is; so weight and bias are read.

    Gradients: to x, weight and bias, once, each in its tensor's dtype. Determinism: bitwise, gradients included, and
    for any number of threads: sums have one order.

    Raises:
        TypeError: a tensor is not floating point. ValueError: a shape, stride or padding that does not fit, or fewer
        places than taps.

    Source: X3D, the channelwise 3x3x3 convolutions and the 5x1x1 of its stem; the encoder of Uni-AdaFocus-X3D.
    """
    check_tensor("x", x, FLOAT_DTYPES)
    check_tensor("weight", weight, FLOAT_DTYPES)
    require(x.ndim == 5, lambda: f"x must be [N, C, T, H, W], got {describe(x)}")
    channels = x.shape[1]
    require(
        weight.ndim == 5 and weight.shape[0] == channels and weight.shape[1] == 1,
        lambda: f"weight must be [C, 1, kt, kh, kw] with C={channels} of x, got {describe(weight)}",
    )
    check_same_device("weight", weight, "x", x)
    if bias is not None:
        check_tensor("bias", bias, FLOAT_DTYPES)
        require(
            bias.ndim == 1 and bias.shape[0] == channels,
            lambda: f"bias must be [C] with C={channels} of x, got {describe(bias)}",
        )
        check_same_device("bias", bias, "x", x)
    geometry = _geometry(x, weight, _three("stride", stride, 1), _three("padding", padding, 0))
    backend = backends.choose("depthwise_conv3d", x.device, backend)
    call = _ConvCall(backend, geometry)
    # Weights and bias are small: they are taken in the type of the sums, and autograd takes their gradients back.
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = weight.to(compute).contiguous()
    bias = None if bias is None else bias.to(compute).contiguous()
    if differentiable("depthwise_conv3d", *(t for t in (x, weight, bias) if t is not None)):
        return _Conv.apply(x, weight, bias, call)
    return call.fwd(x.detach(), weight.detach(), None if bias is None else bias.detach())


def _three(name: str, value: Any, least: int) -> tuple[int, ...]:
    """One integer for each axis, from one for all or from three."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    require(len(values) == 3, lambda: f"{name} must be an int or three, (t, h, w), got {len(values)}")
    values = tuple(plain_int(name, each, "an int or three") for each in values)
    require(min(values) >= least, lambda: f"{name} must be at least {least}, got {values}")
    return values


def _geometry(
    x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> Mapping[str, int | torch.SymInt]:
    """Strides and paddings by the names that the raw ops have for them, once they fit the sizes."""
    for axis, size, taps, p in zip(AXES, x.shape[2:], weight.shape[2:], padding, strict=True):
        require(
            1 <= taps <= MAX_KERNEL,
            lambda axis=axis: f"weight must have 1 to {MAX_KERNEL} taps on each axis, got {describe(weight)} ({axis})",
        )
        require(
            p < taps,
            lambda axis=axis, taps=taps, p=p: f"padding must be less than the {taps} taps along {axis}, got {p}",
        )
        require(
            size >= 1 and size + 2 * p >= taps,
            lambda axis=axis, taps=taps, p=p: (
                f"x must have at least {max(1, taps - 2 * p)} places along {axis}, for {taps} taps and padding {p},"
                f" got {describe(x)}"
            ),
        )
    names = [*(f"stride_{axis}" for axis in AXES), *(f"padding_{axis}" for axis in AXES)]
    return dict(zip(names, (*stride, *padding), strict=True))


class _ConvCall(NamedTuple):
    """The kernels of one call, and their arguments besides its tensors."""

    backend: str
    geometry: Mapping[str, int | torch.SymInt]

    def fwd(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kernel = backends.kernel("depthwise_conv3d", "fwd", self.backend)
        return kernel(x, weight, bias, **self.geometry, channels_last=is_clip_channels_last(x))

    def bwd_x(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        kernel = backends.kernel("depthwise_conv3d", "bwd_x", self.backend)
        frames, height, width = x.shape[2:]
        size = {"frames": frames, "height": height, "width": width}
        return kernel(grad, weight, **size, **self.geometry, channels_last=is_clip_channels_last(x))

    def bwd_weight(self, grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return self._bwd_weight(grad, x, weight.shape[2:], self.geometry)

    def bwd_bias(self, grad: Tensor) -> Tensor:
        """The bias is the weight of an input that is one everywhere."""
        ones = grad.new_ones(()).expand(grad.shape)
        geometry = {name: 1 if name.startswith("stride") else 0 for name in self.geometry}
        return self._bwd_weight(grad, ones, (1, 1, 1), geometry).view(-1)

    def _bwd_weight(
        self, grad: Tensor, x: Tensor, taps: tuple[int, ...], geometry: Mapping[str, int | torch.SymInt]
    ) -> Tensor:
        kernel = backends.kernel("depthwise_conv3d", "bwd_weight", self.backend)
        kernel_t, kernel_h, kernel_w = taps
        return kernel(grad, x, kernel_t=kernel_t, kernel_h=kernel_h, kernel_w=kernel_w, **geometry)


class _Conv(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, call: _ConvCall) -> Tensor:
        return call.fwd(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, _, ctx.call = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        call, (of_x, of_weight, of_bias, _) = ctx.call, ctx.needs_input_grad
        op = "depthwise_conv3d"
        d_x = gradient(op, call.bwd_x, grad, x, weight) if of_x else None
        d_weight = gradient(op, call.bwd_weight, grad, x, weight) if of_weight else None
        d_bias = gradient(op, call.bwd_bias, grad) if of_bias else None
        return d_x, d_weight, d_bias, None
