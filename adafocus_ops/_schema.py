"""Schemas of the raw ops, once for every backend. Raw ops are not differentiable by themselves.

Shapes, dtypes and meanings are those of the functions with the same names in `_reference/`. The extension
implements an op itself for CPU and CUDA tensors; a backend that is written in Python is an overload of it.
"""

from collections.abc import Callable
from importlib import import_module

import torch

library = torch.library.Library("adafocus", "DEF")

library.define("_build_info() -> str")

SCHEMAS = {
    "_crop_resize_fwd": "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h,"
    " SymInt out_w, str padding, bool antialias, ScalarType out_dtype, bool channels_last) -> Tensor",
    "_crop_resize_bwd_boxes": "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine,"
    " str padding, bool antialias) -> Tensor",
    "_crop_resize_bwd_frames": "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames,"
    " SymInt height, SymInt width, str padding, bool antialias, ScalarType frames_dtype, bool channels_last)"
    " -> Tensor",
    "_crop_mean_fwd": "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h,"
    " SymInt out_w, str padding, ScalarType out_dtype) -> Tensor",
    "_crop_mean_bwd_boxes": "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine,"
    " SymInt out_h, SymInt out_w, str padding) -> Tensor",
    "_crop_mean_bwd_frames": "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames,"
    " SymInt height, SymInt width, SymInt out_h, SymInt out_w, str padding, ScalarType frames_dtype,"
    " bool channels_last) -> Tensor",
}

for _name, _schema in SCHEMAS.items():
    library.define(_name + _schema)

MAX_FRAME_DIMS = 8  # of [..., C, H, W]

PARTS = ("fwd", "bwd_boxes", "bwd_frames")


def compiled(op: str) -> tuple[Callable, ...]:
    """The raw ops of an op, which the extension implements."""
    return tuple(getattr(torch.ops.adafocus, f"_{op}_{part}").default for part in PARTS)


def overloads(op: str, backend: str, functions: str | tuple[Callable, ...]) -> tuple[Callable, ...]:
    """Adds a backend's Python functions to the raw ops as overloads of its name, and returns these.

    Args:
        functions: the op's parts in their order, or the name of a module that has them, imported at the first call.
    """
    from . import _fake, _vmap  # they need the raw ops above

    made = []
    for at, part in enumerate(PARTS):
        name, overload = f"_{op}_{part}", backend.replace("-", "_")
        library.define(f"{name}.{overload}{SCHEMAS[name]}")

        def run(*args, at=at, part=part):
            function = functions[at] if isinstance(functions, tuple) else getattr(import_module(functions), part)
            return function(*args)

        library.impl(f"{name}.{overload}", run, "CompositeExplicitAutograd")
        raw = getattr(getattr(torch.ops.adafocus, name), overload)
        _fake.register(raw)
        _vmap.register(raw)
        made.append(raw)
    return tuple(made)
