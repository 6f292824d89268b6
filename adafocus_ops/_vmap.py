"""The vmap rules of the raw ops: the mapped dimension is folded into the batch where it can be.

A rule takes a raw op, its arguments and their mapped dimensions by name, and the number of mapped entries; it returns
the result and where its mapped dimension is.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

from ._layouts import MAX_FRAME_DIMS


def _front(value: Tensor, dim: int | None, batch: int) -> Tensor:
    """The mapped dimension first; what is not mapped is repeated (as a view)."""
    return value.expand(batch, *value.shape) if dim is None else value.movedim(dim, 0)


def _fold_index(index: Tensor, rows: int) -> Tensor:
    """An index [batch, M] into the rows of each entry as one into those of all, [batch * M]; out of range it stays."""
    start = torch.arange(index.shape[0], device=index.device)[:, None] * rows
    return torch.where((index >= 0) & (index < rows), index + start, -1).flatten()


def _forbid(dims: dict[str, int | None], **names: str) -> None:
    for name, what in names.items():
        if dims.get(name) is not None:
            raise ValueError(f"{what} must not be mapped by vmap")


def fold_crops(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """Frames and boxes of all entries become those of one call, with the index of the frames moved along."""
    _forbid(dims, affine="mean and std")
    if "out" in given:  # its entries need not lie as the patches of one batch would
        return one_by_one(op, given, dims, batch)
    front = {name: _front(given[name], dims[name], batch) for name in ("frames", "boxes", "grad") if name in given}
    boxes = front["boxes"]
    frames = given["num_frames"] if "num_frames" in given else prod(front["frames"].shape[1:-3])
    folded = {name: value.flatten(0, 1) for name, value in front.items() if name != "frames"}
    for name, value in folded.items():
        if value.ndim == 2:  # boxes and gradients of means, which are small
            folded[name] = value.contiguous()
    index, dim = given["frame_index"], dims["frame_index"]
    if index is None:
        index = torch.arange(boxes.shape[1], device=boxes.device)
    folded["frame_index"] = _fold_index(_front(index, dim, batch).long(), frames)
    if "num_frames" in given:
        folded["num_frames"] = batch * frames
    else:
        folded["frames"] = front["frames"]  # [batch, ..., C, H, W]
        if front["frames"].ndim > MAX_FRAME_DIMS:
            folded["frames"] = front["frames"].flatten(0, 1)
    out = op(**(given | folded))
    return out.unflatten(0, (batch, frames if "num_frames" in given else boxes.shape[1])), 0


def fold_numbers(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """The rows of all entries become those of one call, with their numbers moved along; -1 stands for what a count
    leaves out."""
    index = _front(given["index"], dims["index"], batch).long()  # [batch, M]
    if given["count"] is not None:
        count = _front(given["count"], dims["count"], batch).reshape(batch, 1)
        index = torch.where(torch.arange(index.shape[1], device=index.device) < count, index, -1)
    x = given["x"]
    if dims["x"] is not None:
        x = x.movedim(dims["x"], 0)
        index = _fold_index(index, x.shape[1])
        x = x.flatten(0, 1)
    return op(x=x, index=index.flatten(), count=None).unflatten(0, (batch, -1)), 0


def one_by_one(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """A call for each entry."""
    if "out" in dims and dims["out"] is None:
        raise ValueError("out must be mapped by vmap where other arguments are: it is written to in place")
    mapped = {name: dim for name, dim in dims.items() if dim is not None}
    results = [op(**(given | {name: given[name].select(dim, i) for name, dim in mapped.items()})) for i in range(batch)]
    if results[0] is None:
        return None, None
    if isinstance(results[0], tuple):
        return tuple(map(torch.stack, zip(*results, strict=True))), tuple(0 for _ in results[0])
    return torch.stack(results), 0


# Names of the tensors whose first dimension is the batch, in the ops that treat its rows alike.
_BATCHED = ("weights", "values", "grad", "coefficients", "jitter", "row_id", "x")


def fold_rows(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """The rows of all entries become those of one call; without a row_id they are numbered anew in each entry, as in a
    loop. Entries with seeds of their own are drawn one after another."""
    if dims.get("seed") is not None:
        return one_by_one(op, given, dims, batch)
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
    out = op(**(given | folded))
    if isinstance(out, tuple):
        return tuple(value.unflatten(0, (batch, -1)) for value in out), tuple(0 for _ in out)
    return out.unflatten(0, (batch, -1)), 0


def fold_clips(op: Callable, given: dict[str, Any], dims: dict[str, int | None], batch: int) -> tuple[Any, Any]:
    """The clips of all entries become those of one call; entries with weights of their own, or with gradients of them,
    are taken one after another."""
    clips = "grad" if "grad" in given else "x"
    if any(dim is not None for name, dim in dims.items() if name != clips):
        return one_by_one(op, given, dims, batch)
    if "x" in given and "grad" in given:
        return one_by_one(op, given, dims, batch)
    folded = given[clips].movedim(dims[clips], 0).flatten(0, 1)
    return op(**(given | {clips: folded})).unflatten(0, (batch, -1)), 0
