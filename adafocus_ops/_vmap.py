"""The vmap rules of the raw ops: the mapped dimension is folded into the batch."""

from collections.abc import Callable
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


def _forbid(dims: dict[str, int | None], **names: str) -> None:
    for name, what in names.items():
        if dims.get(name) is not None:
            raise ValueError(f"{what} must not be mapped by vmap")


def _crop_rule(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    _forbid(dims, affine="mean and std")
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


# Tensors whose first dimension is the batch, in the ops that treat its rows alike.
_BATCHED = ("weights", "values", "grad", "coefficients", "jitter", "row_id", "x")


def _row_rule(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """Rows without a row_id are numbered anew in each mapped batch, as in a loop."""
    _forbid(dims, seed="seed")
    if given.get("seed") is not None and given["row_id"] is None:
        rows = _front(given["weights"], dims["weights"], batch).shape[1]
        given = given | {"row_id": torch.arange(rows, device=given["weights"].device)}
    folded = {
        name: _front(given[name], dims[name], batch).flatten(0, 1)
        for name in _BATCHED
        if isinstance(given.get(name), Tensor)
    }
    if "row_id" in folded:
        folded["row_id"] = folded["row_id"].contiguous()
    out = op(*(given | folded).values())
    if isinstance(out, tuple):
        return tuple(value.unflatten(0, (batch, -1)) for value in out), tuple(0 for _ in out)
    return out.unflatten(0, (batch, -1)), 0


# exit_gate, gather_rows and scatter_rows have none: how many rows there are depends on the values.
_RULES = {
    "crop_resize": _crop_rule,
    "crop_mean": _crop_rule,
    "weighted_sample": _row_rule,
    "expected_value": _row_rule,
    "quantile_frames": _row_rule,
    "temporal_shift": _row_rule,
}


def register(op: torch._ops.OpOverload) -> None:
    """Registers the rule of a raw op or of an overload of it; arguments are known by their names."""
    names = [argument.name for argument in op._schema.arguments]
    name = op._schema.name.removeprefix("adafocus::_")
    rule = next((rule for prefix, rule in _RULES.items() if name.startswith(prefix)), None)
    if rule is None:
        return

    def run(info: Any, in_dims: tuple, *args: Any) -> tuple[Any, Any]:
        given, dims = dict(zip(names, args, strict=True)), dict(zip(names, in_dims, strict=True))
        return rule(op, given, dims, info.batch_size)

    torch.library.register_vmap(op, run)


for _op in _RULES:
    for _raw in _schema.compiled(_op):
        register(_raw)
