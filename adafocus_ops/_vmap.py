"""vmap rules of the raw ops: the mapped dimension is folded into the batch."""

from math import prod

import torch
from torch import Tensor

from . import _schema  # noqa: F401  (declares the ops named here)


def _front(value: Tensor | None, dim: int | None, batch: int) -> Tensor | None:
    """The mapped dimension first; what is not mapped is repeated (as a view)."""
    if value is None:
        return None
    return value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)


def _fold_index(
    frame_index: Tensor | None, dim: int | None, batch: int, boxes: int, frames: int, like: Tensor
) -> Tensor:
    """[batch * boxes] into the folded frames; an index out of range stays so."""
    if frame_index is None:
        frame_index = torch.arange(boxes, device=like.device)
        dim = None
    index = _front(frame_index, dim, batch).long()  # [batch, K]
    start = torch.arange(batch, device=like.device)[:, None] * frames
    return torch.where((index >= 0) & (index < frames), index + start, -1).flatten()


def _fold(value: Tensor, dim: int | None, batch: int) -> Tensor:
    return _front(value, dim, batch).flatten(0, 1)


def _shared_affine(affine_dim: int | None) -> None:
    if affine_dim is not None:
        raise ValueError("mean and std must not be mapped by vmap")


@torch.library.register_vmap("adafocus::_crop_resize_fwd")
def _(info, in_dims, frames, boxes, frame_index, affine, *rest):
    batch = info.batch_size
    _shared_affine(in_dims[3])
    frames = _front(frames, in_dims[0], batch)  # [batch, ..., C, H, W]
    per_map = prod(frames.shape[1:-3])
    count = boxes.shape[0 if in_dims[1] is None else (1 if in_dims[1] == 0 else 0)]
    index = _fold_index(frame_index, in_dims[2], batch, count, per_map, frames)
    boxes = _fold(boxes, in_dims[1], batch).contiguous()
    out = torch.ops.adafocus._crop_resize_fwd(frames, boxes, index, affine, *rest)
    return out.unflatten(0, (batch, count)), 0


@torch.library.register_vmap("adafocus::_crop_resize_bwd_boxes")
def _(info, in_dims, grad, frames, boxes, frame_index, affine, padding):
    batch = info.batch_size
    _shared_affine(in_dims[4])
    frames = _front(frames, in_dims[1], batch)
    grad = _front(grad, in_dims[0], batch)
    count = grad.shape[1]
    index = _fold_index(frame_index, in_dims[3], batch, count, prod(frames.shape[1:-3]), frames)
    boxes = _fold(boxes, in_dims[2], batch).contiguous()
    out = torch.ops.adafocus._crop_resize_bwd_boxes(grad.flatten(0, 1), frames, boxes, index, affine, padding)
    return out.unflatten(0, (batch, count)), 0


@torch.library.register_vmap("adafocus::_crop_resize_bwd_frames")
def _(info, in_dims, grad, boxes, frame_index, affine, num_frames, *rest):
    batch = info.batch_size
    _shared_affine(in_dims[3])
    grad = _front(grad, in_dims[0], batch)
    count = grad.shape[1]
    index = _fold_index(frame_index, in_dims[2], batch, count, num_frames, grad)
    boxes = _fold(boxes, in_dims[1], batch).contiguous()
    out = torch.ops.adafocus._crop_resize_bwd_frames(
        grad.flatten(0, 1), boxes, index, affine, num_frames * batch, *rest
    )
    return out.unflatten(0, (batch, num_frames)), 0
