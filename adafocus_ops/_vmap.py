"""The vmap rule of the raw ops: the mapped dimension is folded into the batch."""

from math import prod
from typing import Any

import torch
from torch import Tensor

from . import _schema


def _front(value: Tensor, dim: int | None, batch: int) -> Tensor:
    """The mapped dimension first; what is not mapped is repeated (as a view)."""
    return value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)


def _fold_index(frame_index: Tensor | None, dim: int | None, batch: int, boxes: Tensor, frames: int) -> Tensor:
    """[batch * K] into the folded frames; an index out of range stays so. boxes is [batch, K, 4]."""
    if frame_index is None:
        frame_index, dim = torch.arange(boxes.shape[1], device=boxes.device), None
    index = _front(frame_index, dim, batch).long()  # [batch, K]
    start = torch.arange(batch, device=boxes.device)[:, None] * frames
    return torch.where((index >= 0) & (index < frames), index + start, -1).flatten()


def register(op: torch._ops.OpOverload) -> None:
    """Registers the rule of a raw op or of an overload of it; arguments are known by their names."""
    names = [argument.name for argument in op._schema.arguments]

    def rule(info: Any, in_dims: tuple, *args: Any) -> tuple[Tensor, int]:
        batch = info.batch_size
        given, dims = dict(zip(names, args, strict=True)), dict(zip(names, in_dims, strict=True))
        if dims["affine"] is not None:
            raise ValueError("mean and std must not be mapped by vmap")
        front = {name: _front(given[name], dims[name], batch) for name in ("frames", "boxes", "grad") if name in given}
        boxes = front["boxes"]
        frames = given["num_frames"] if "num_frames" in given else prod(front["frames"].shape[1:-3])
        folded = {name: value.flatten(0, 1) for name, value in front.items() if name != "frames"}
        for name, value in folded.items():
            if value.ndim == 2:  # boxes and gradients of means, which are small
                folded[name] = value.contiguous()
        folded["frame_index"] = _fold_index(given["frame_index"], dims["frame_index"], batch, boxes, frames)
        if "num_frames" in given:
            folded["num_frames"] = batch * frames
        else:
            folded["frames"] = front["frames"]  # [batch, ..., C, H, W]
            if front["frames"].ndim > _schema.MAX_FRAME_DIMS:
                folded["frames"] = front["frames"].flatten(0, 1)
        out = op(*(given | folded).values())
        return out.unflatten(0, (batch, frames if "num_frames" in given else boxes.shape[1])), 0

    torch.library.register_vmap(op, rule)


for _name in _schema.SCHEMAS:
    register(getattr(torch.ops.adafocus, _name).default)
