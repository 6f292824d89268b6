"""The autograd form of the crops: a call that names its kernels and their arguments, and its gradients."""

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from ._affine import affine_of
from ._autograd import differentiable, gradient
from ._layouts import is_channels_last
from ._memory import check_apart, mark_written
from .checks import require


class CropCall(NamedTuple):
    """The kernels of one call, and their arguments besides its tensors."""

    op: str
    backend: str
    forward: Mapping[str, Any]  # arguments of the part "fwd"
    backward: Mapping[str, Any]  # those of "bwd_boxes" and "bwd_frames"

    def fwd(self, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None) -> Tensor:
        kernel = backends.kernel(self.op, "fwd", self.backend)
        return kernel(frames, boxes, frame_index, affine, **self.forward)

    def bwd_boxes(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        kernel = backends.kernel(self.op, "bwd_boxes", self.backend)
        return kernel(grad, frames, boxes, frame_index, affine, **self.backward)

    def bwd_frames(
        self, grad: Tensor, frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None
    ) -> Tensor:
        kernel = backends.kernel(self.op, "bwd_frames", self.backend)
        lead = frames.shape[:-3]
        gradient = kernel(
            grad,
            boxes,
            frame_index,
            affine,
            num_frames=prod(lead),
            height=frames.shape[-2],
            width=frames.shape[-1],
            frames_dtype=frames.dtype,
            channels_last=is_channels_last(frames),
            **self.backward,
        )  # [N, C, H, W]
        return gradient.unflatten(0, lead) if len(lead) > 1 else gradient


def run(
    call: CropCall,
    out_dtype: torch.dtype,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    mean: Any,
    std: Any,
) -> Tensor:
    """The call's result, differentiable if it may be."""
    boxes, frame_index, affine = _as_kernels_take(frames, boxes, frame_index, mean, std)
    if out_dtype.is_floating_point and differentiable(call.op, frames, boxes):
        return _Crop.apply(frames, boxes, frame_index, affine, call)
    return call.fwd(*_detached(frames, boxes), frame_index, affine)


def run_into(
    out: Tensor,
    op: str,
    backend: str,
    frames: Tensor,
    boxes: Tensor,
    frame_index: Tensor | None,
    mean: Any,
    std: Any,
    **how: Any,
) -> Tensor:
    """`out` with an op's result in it, which has no gradient; `how` are the arguments of the part "fwd_out" besides its
    tensors."""
    require(
        not (out.is_floating_point() and differentiable(op, frames, boxes, out)),
        lambda: f"{op} has no gradient with out=: use torch.no_grad(), or leave out= away",
        RuntimeError,
    )
    check_apart(out, frames=frames, boxes=boxes, frame_index=frame_index, mean=mean, std=std)
    boxes, frame_index, affine = _as_kernels_take(frames, boxes, frame_index, mean, std)
    kernel = backends.kernel(op, "fwd_out", backend)
    kernel(out, *_detached(frames, boxes), frame_index, affine, **how)
    mark_written(out)
    return out


def _as_kernels_take(
    frames: Tensor, boxes: Tensor, frame_index: Tensor | None, mean: Any, std: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """boxes [K, 4], frame_index [K] or None, and [2, C] of mean and std, or None."""
    compute = torch.float64 if torch.float64 in (frames.dtype, boxes.dtype) else torch.float32
    affine = affine_of(mean, std, frames, compute)
    boxes = boxes.to(compute).contiguous()  # sets the dtype of all arithmetic
    return boxes, frame_index if frame_index is None else frame_index.contiguous(), affine


def _detached(frames: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Both for a call of which nothing is differentiated: integer output, or no_grad."""
    if frames.requires_grad or boxes.requires_grad:
        return frames.detach(), boxes.detach()
    return frames, boxes


class _Crop(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        frames: Tensor, boxes: Tensor, frame_index: Tensor | None, affine: Tensor | None, call: CropCall
    ) -> Tensor:
        return call.fwd(frames, boxes, frame_index, affine)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.call = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple:
        if grad.ndim == 2:  # of means, [K, C], which is small; that of crops is read in any strides
            grad = grad.contiguous()
        inputs, call = (grad, *ctx.saved_tensors), ctx.call
        d_frames = gradient(call.op, call.bwd_frames, *inputs) if ctx.needs_input_grad[0] else None
        d_boxes = gradient(call.op, call.bwd_boxes, *inputs) if ctx.needs_input_grad[1] else None
        return d_frames, d_boxes, None, None, None
