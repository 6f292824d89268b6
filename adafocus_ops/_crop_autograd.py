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
    compute = torch.float64 if torch.float64 in (frames.dtype, boxes.dtype) else torch.float32
    affine = affine_of(mean, std, frames, compute)  # [2, C] or None
    boxes = boxes.to(compute).contiguous()  # sets the dtype of all arithmetic, [K, 4]
    if frame_index is not None:
        frame_index = frame_index.contiguous()
    if out_dtype.is_floating_point and differentiable(call.op, frames, boxes):
        return _Crop.apply(frames, boxes, frame_index, affine, call)
    if frames.requires_grad or boxes.requires_grad:  # integer output, or no_grad: nothing is differentiated
        frames, boxes = frames.detach(), boxes.detach()
    return call.fwd(frames, boxes, frame_index, affine)


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
