"""What the crops share: their arguments, and how they join autograd."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _schema, backends
from ._autograd import Gradient, differentiable
from ._layouts import is_channels_last
from .checks import (
    FLOAT_DTYPES,
    INDEX_DTYPES,
    check_choice,
    check_positive_int,
    check_same_device,
    check_tensor,
    checks_values,
    describe,
    require,
)

FRAME_DTYPES = (torch.uint8, *FLOAT_DTYPES)
PADDINGS = ("zeros", "border")
MAX_CONSTANT_AFFINES = 64


class Call(NamedTuple):
    """What one call fixes besides its tensors, shared by its forward and backward."""

    op: str
    backend: str
    forward: tuple  # the last arguments of the raw op, and those of its gradients
    backward: tuple

    def fwd(self, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None) -> Tensor:
        kernel, _, _ = backends.kernels(self.op, self.backend)
        return kernel(frames, boxes, frame_index, affine, *self.forward)

    def bwd_boxes(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        _, kernel, _ = backends.kernels(self.op, self.backend)
        return kernel(grad, frames, boxes, frame_index, affine, *self.backward)

    def bwd_frames(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        _, _, kernel = backends.kernels(self.op, self.backend)
        lead, size = frames.shape[:-3], frames.shape[-2:]
        layout = (frames.dtype, is_channels_last(frames))
        gradient = kernel(grad, boxes, frame_index, affine, prod(lead), *size, *self.backward, *layout)
        return gradient.unflatten(0, lead) if len(lead) > 1 else gradient


def run(
    call: Call, out_dtype: torch.dtype, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, mean: Any, std: Any
) -> Tensor:
    """The call's result, differentiable if it may be."""
    compute = torch.float64 if torch.float64 in (frames.dtype, boxes.dtype) else torch.float32
    affine = _affine(mean, std, frames, compute)
    boxes = boxes.to(compute).contiguous()  # [K, 4]: what sets the dtype of all arithmetic
    if frame_index is not None:
        frame_index = frame_index.contiguous()
    if out_dtype.is_floating_point and differentiable(frames, boxes):
        return _Crop.apply(frames, boxes, frame_index, affine, call)
    if frames.requires_grad or boxes.requires_grad:  # integer output, or no_grad: nothing is differentiated
        frames, boxes = frames.detach(), boxes.detach()
    return call.fwd(frames, boxes, frame_index, affine)


class _Crop(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None, call: Call) -> Tensor:
        return call.fwd(frames, boxes, frame_index, affine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.call = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        if grad.ndim == 2:  # of means, [K, C], which is small; that of crops is read in any strides
            grad = grad.contiguous()
        inputs = (grad, *ctx.saved_tensors)
        op, call = ctx.call.op, ctx.call
        d_frames = Gradient.apply(op, call.bwd_frames, *inputs) if ctx.needs_input_grad[0] else None
        d_boxes = Gradient.apply(op, call.bwd_boxes, *inputs) if ctx.needs_input_grad[1] else None
        return d_frames, d_boxes, None, None, None


def check_arguments(frames: Tensor, boxes: Tensor, frame_index: Tensor | None, padding: str) -> None:
    """The arguments that all crops have."""
    check_tensor("frames", frames, FRAME_DTYPES)
    require(
        4 <= frames.ndim <= _schema.MAX_FRAME_DIMS,
        lambda: f"frames must be [..., C, H, W] with 4 to {_schema.MAX_FRAME_DIMS} dimensions, got {describe(frames)}",
    )
    check_tensor("boxes", boxes, FLOAT_DTYPES)
    require(boxes.ndim == 2 and boxes.shape[1] == 4, lambda: f"boxes must be [K, 4], got {describe(boxes)}")
    check_same_device("boxes", boxes, "frames", frames)
    check_choice("padding", padding, PADDINGS)
    _check_frame_index(frames, boxes, frame_index)
    if checks_values(frames):
        _check_values(frames, boxes, frame_index)


def check_output_size(output_size: Any) -> tuple[int, int]:
    """(P_h, P_w) of either form."""
    if not isinstance(output_size, Sequence):
        output_size = (output_size, output_size)
    require(len(output_size) == 2, lambda: f"output_size must be P or (P_h, P_w), got {output_size!r}")
    for name, value in zip(("output_size height", "output_size width"), output_size, strict=True):
        check_positive_int(name, value)
    return tuple(side if isinstance(side, torch.SymInt) else int(side) for side in output_size)


def _check_frame_index(frames: Tensor, boxes: Tensor, frame_index: Tensor | None) -> None:
    boxes_count, frames_count = boxes.shape[0], prod(frames.shape[:-3])
    if frame_index is None:
        require(
            boxes_count == frames_count,
            lambda: (
                f"boxes must be [K, 4] with K == N == {frames_count} (frames) unless frame_index is given,"
                f" got {describe(boxes)}"
            ),
        )
        return
    check_tensor("frame_index", frame_index, INDEX_DTYPES)
    require(
        frame_index.ndim == 1 and frame_index.shape[0] == boxes_count,
        lambda: f"frame_index must be [K] with K={boxes_count} (boxes), got {describe(frame_index)}",
    )
    check_same_device("frame_index", frame_index, "frames", frames)


def _check_values(frames: Tensor, boxes: Tensor, frame_index: Tensor | None) -> None:
    """Debug mode: what the kernels define without looking at it first."""
    finite = boxes.isfinite().all(1)
    require(
        bool(finite.all()),
        lambda: f"boxes must be finite; the first that is not is box {int((~finite).int().argmax())}",
    )
    if frame_index is not None and frame_index.numel():
        low, high, count = int(frame_index.min()), int(frame_index.max()), prod(frames.shape[:-3])
        require(
            low >= 0 and high < count,
            lambda: f"frame_index must be in [0, {count}) (frames), got values from {low} to {high}",
        )


def _affine(mean: Any, std: Any, frames: Tensor, dtype: torch.dtype) -> Tensor | None:
    """[2, C]: the scale and the shift that normalise a pixel, or None to leave it."""
    if mean is None and std is None:
        return None
    what = (frames.shape[-3], frames.dtype == torch.uint8, frames.device, dtype)
    plain = type(frames) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    if not (plain and _is_constant(mean) and _is_constant(std)):
        return _build_affine(mean, std, *what)
    # Constants are sent to the device once: later calls, and captures of CUDA graphs, find them there.
    key = (*(tuple(value) if isinstance(value, Sequence) else value for value in (mean, std)), *what)
    if key in _constant_affines:
        return _constant_affines[key]
    channels, integer, device, dtype = what
    with torch.inference_mode(False):  # one copy that is waited for: other streams will read it
        affine = _build_affine(mean, std, channels, integer, torch.device("cpu"), dtype).to(device)
    # A transform's tensors die with it. Nothing is ever dropped: captured graphs point to what is here.
    if len(_constant_affines) < MAX_CONSTANT_AFFINES and not torch._C._functorch.is_functorch_wrapped_tensor(affine):
        _constant_affines[key] = affine
    return affine


# The affines of constant mean and std by all that they depend on; a program has a handful of them.
_constant_affines: dict[tuple, Tensor] = {}


def _is_constant(value: Any) -> bool:
    numbers = value if isinstance(value, Sequence) else (value,)
    return all(number is None or isinstance(number, int | float) for number in numbers)


def _build_affine(
    mean: Any, std: Any, channels: int, integer: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    mean = _per_channel("mean", 0.0 if mean is None else mean, channels, device)
    std = _per_channel("std", 1.0 if std is None else std, channels, device)
    scale = 1 / (std * 255) if integer else 1 / std
    return torch.stack([scale, -mean / std]).to(dtype)


def _per_channel(name: str, value: Any, channels: int, device: torch.device) -> Tensor:
    """[C] float64, a constant."""
    value = torch.as_tensor(value, dtype=torch.float64).detach().to(device)
    if value.ndim == 0:
        return value.expand(channels)
    require(
        value.ndim == 1 and value.shape[0] == channels,
        lambda: f"{name} must be a number or one value for each of {channels} channels, got {describe(value)}",
    )
    return value


def wants_channels_last(frames: Tensor, memory_format: torch.memory_format | None) -> bool:
    """Whether the result is channels_last: as asked, else like the frames."""
    if memory_format in (None, torch.preserve_format):
        return is_channels_last(frames)
    require(
        memory_format in (torch.contiguous_format, torch.channels_last),
        lambda: f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format}",
    )
    return memory_format == torch.channels_last
