"""crop_resize: batched, deformable, differentiable crop-and-resize."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _fake, _schema, _vmap, backends  # noqa: F401  (the first three declare the raw ops used below)
from ._checks import (
    check_choice,
    check_positive_int,
    check_same_device,
    check_tensor,
    checks_values,
    describe,
    names,
    require,
)
from ._reference import crop_resize as reference

FRAME_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
BOX_DTYPES = FRAME_DTYPES[1:]
INDEX_DTYPES = (torch.int32, torch.int64)
PADDINGS = ("zeros", "border")
MAX_FRAME_DIMS = 8
MAX_CONSTANT_AFFINES = 64

_raw = torch.ops.adafocus
_compiled = (
    _raw._crop_resize_fwd.default,
    _raw._crop_resize_bwd_boxes.default,
    _raw._crop_resize_bwd_frames.default,
)
backends.register(
    "crop_resize",
    reference=(reference.fwd, reference.bwd_boxes, reference.bwd_frames),
    cpu=_compiled,
    cuda=_compiled,
)


def crop_resize(
    frames: Tensor,
    boxes: Tensor,
    output_size: int | tuple[int, int],
    *,
    frame_index: Tensor | None = None,
    mean: float | Sequence[float] | Tensor | None = None,
    std: float | Sequence[float] | Tensor | None = None,
    padding: str = "zeros",
    antialias: bool = False,
    out_dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    backend: str | None = None,
) -> Tensor:
    """Cuts one box per output from a batch of frames and resizes it bilinearly to a common size.

    Output pixel (i, j) of box (cy, cx, h, w) samples the frame, whose pixel (r, c) covers
    [r, r+1) x [c, c+1), with bilinear weights at

        y_i = cy + ((i + 1/2) / P_h - 1/2) h - 1/2,    x_j = cx + ((j + 1/2) / P_w - 1/2) w - 1/2

    as pixel indices: the positions of affine_grid and grid_sample with align_corners=False.

    Args:
        frames: [N, C, H, W], or [..., C, H, W] with leading dimensions flattened to N; uint8, float16,
            bfloat16, float32 or float64. Any strides are read in place; contiguous and channels_last
            are the fast ones.
        boxes: [K, 4] floating point (cy, cx, h, w): centre row, centre column, height, width in pixels
            of the frame. Their dtype is independent of the frames'.
        output_size: P or (P_h, P_w) in pixels.
        frame_index: [K] int32 or int64 into the flattened frames; None cuts box k from frame k (K == N).
        mean, std: per channel (a number, C numbers or a tensor [C]), for frames scaled to [0, 1]:
            uint8 pixels become (x / 255 - mean) / std, floating-point pixels (x - mean) / std, inside
            the read. Without both, pixels keep their scale. They are constants without gradient; tensors
            should lie on the device of the frames, or every call copies them.
        padding: "zeros" (0 outside the frame, after normalisation) or "border" (the nearest edge pixel).
        antialias: not available in this version.
        out_dtype: any dtype that frames may have; default the frames' if floating point, else float32.
            uint8 output is rounded and saturated and has no gradient.
        memory_format: torch.contiguous_format or torch.channels_last; default like the frames.
        backend: "cuda", "cpu", "triton" or "reference"; default the best that can run.

    Returns:
        [K, C, P_h, P_w] of out_dtype. In channels_last, K consecutive crops are also a
        channels_last_3d video, without a copy.

    Gradients: to boxes (all four numbers) and to frames (floating point), each only if asked for; once
    differentiable, in reverse mode. A sample exactly on a pixel takes the derivative on its right-hand side.

    Determinism: forward and both gradients are bitwise reproducible.

    Defined for all values: a box partly or wholly outside reads padding; h or w of 0 or less collapses
    or mirrors as the formula says; a box with NaN or infinity, or a frame_index out of range, gives a
    patch of NaN (0 in integer output) and zero gradients. Coordinates and accumulation are float32
    (float64 if frames or boxes are), whatever the dtype of the frames.

    Raises:
        TypeError: a dtype or type that is not listed above.
        ValueError: a shape, device or choice that is not; under set_debug(True) also a non-finite box
            and an index out of range.
        RuntimeError: the backend asked for cannot run; the message says why.

    Source: Uni-AdaFocus, Sections 3.1 and 4.1.2 (Eqs. 5 to 9, 13).
    """
    check_tensor("frames", frames, FRAME_DTYPES)
    require(
        4 <= frames.ndim <= MAX_FRAME_DIMS,
        lambda: f"frames must be [..., C, H, W] with 4 to {MAX_FRAME_DIMS} dimensions, got {describe(frames)}",
    )
    check_tensor("boxes", boxes, BOX_DTYPES)
    require(boxes.ndim == 2 and boxes.shape[1] == 4, lambda: f"boxes must be [K, 4], got {describe(boxes)}")
    check_same_device("boxes", boxes, "frames", frames)
    out_h, out_w = _output_size(output_size)
    check_choice("padding", padding, PADDINGS)
    require(not antialias, lambda: "antialias must be False: antialiasing is not available in this version")
    if out_dtype is None:
        out_dtype = frames.dtype if frames.is_floating_point() else torch.float32
    require(out_dtype in FRAME_DTYPES, lambda: f"out_dtype must be {names(FRAME_DTYPES)}, got {out_dtype}", TypeError)
    _check_frame_index(frames, boxes, frame_index)
    if checks_values(frames):
        _check_values(frames, boxes, frame_index)

    compute = torch.float64 if torch.float64 in (frames.dtype, boxes.dtype) else torch.float32
    affine = _affine(mean, std, frames, compute)
    call = _Call(
        backend=backends.choose("crop_resize", frames.device.type, backend),
        out_h=out_h,
        out_w=out_w,
        padding=padding,
        out_dtype=out_dtype,
        channels_last=_wants_channels_last(frames, memory_format),
    )
    boxes = boxes.to(compute).contiguous()  # [K, 4]: what sets the dtype of all arithmetic
    if frame_index is not None:
        frame_index = frame_index.contiguous()
    differentiable = frames.requires_grad or boxes.requires_grad
    forward_mode = torch.autograd.forward_ad._current_level >= 0  # not available: the Function below says so
    if out_dtype.is_floating_point and (forward_mode or (differentiable and torch.is_grad_enabled())):
        return _CropResize.apply(frames, boxes, frame_index, affine, call)
    if differentiable:  # integer output, or no_grad: there is nothing to differentiate
        frames, boxes = frames.detach(), boxes.detach()
    return call.fwd(frames, boxes, frame_index, affine)


class _Call(NamedTuple):
    """What one call fixes besides its tensors, shared by its forward and backward."""

    backend: str
    out_h: int
    out_w: int
    padding: str
    out_dtype: torch.dtype
    channels_last: bool

    def fwd(self, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None) -> Tensor:
        kernel, _, _ = backends.kernels("crop_resize", self.backend)
        return kernel(frames, boxes, frame_index, affine, *self[1:])

    def bwd_boxes(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        _, kernel, _ = backends.kernels("crop_resize", self.backend)
        return kernel(grad, frames, boxes, frame_index, affine, self.padding)

    def bwd_frames(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        _, _, kernel = backends.kernels("crop_resize", self.backend)
        lead, (height, width) = frames.shape[:-3], frames.shape[-2:]
        layout = (frames.dtype, _wants_channels_last(frames, None))
        gradient = kernel(grad, boxes, frame_index, affine, prod(lead), height, width, self.padding, *layout)
        return gradient.unflatten(0, lead) if len(lead) > 1 else gradient


class _CropResize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None, call: _Call
    ) -> Tensor:
        return call.fwd(frames, boxes, frame_index, affine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.call = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        inputs = (grad, *ctx.saved_tensors)
        d_frames = _Gradient.apply(*inputs, ctx.call.bwd_frames) if ctx.needs_input_grad[0] else None
        d_boxes = _Gradient.apply(*inputs, ctx.call.bwd_boxes) if ctx.needs_input_grad[1] else None
        return d_frames, d_boxes, None, None, None


class _Gradient(torch.autograd.Function):
    """A gradient of crop_resize, which has no derivative of its own: asking for one raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad: Tensor,
        frames: Tensor,
        boxes: Tensor,
        frame_index: Tensor | None,
        affine: Tensor | None,
        kernel: Callable,
    ) -> Tensor:
        return kernel(grad, frames, boxes, frame_index, affine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        raise RuntimeError("crop_resize is once differentiable: its gradient has no derivative")


def _output_size(output_size: Any) -> tuple[int, int]:
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
    with torch.inference_mode(False):
        affine = _build_affine(mean, std, *what)
    if len(_constant_affines) >= MAX_CONSTANT_AFFINES:
        _constant_affines.clear()
    if not torch._C._functorch.is_functorch_wrapped_tensor(affine):
        _constant_affines[key] = affine  # a transform's tensors die with it
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


def _wants_channels_last(frames: Tensor, memory_format: torch.memory_format | None) -> bool:
    if memory_format in (None, torch.preserve_format):
        return not frames.is_contiguous() and frames.stride(-3) == 1 and frames.shape[-3] > 1
    require(
        memory_format in (torch.contiguous_format, torch.channels_last),
        lambda: f"memory_format must be torch.contiguous_format or torch.channels_last, got {memory_format}",
    )
    return memory_format == torch.channels_last
