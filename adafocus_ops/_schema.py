"""Schemas of the raw ops, once for every backend. Raw ops are not differentiable by themselves.

Shapes, dtypes and meanings are those of the functions with the same names in `_reference/`. The extension
implements an op itself for CPU and CUDA tensors; a backend that is written in Python is an overload of it.
"""

from collections.abc import Callable
from importlib import import_module

import torch

library = torch.library.Library("adafocus", "DEF")

library.define("_build_info() -> str")

# Op -> part -> schema; a part's raw op is named _{op}_{part}.
SCHEMAS = {
    "crop_resize": {
        "fwd": "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h, SymInt out_w,"
        " str padding, bool antialias, ScalarType out_dtype, bool channels_last) -> Tensor",
        "bwd_boxes": "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, str padding,"
        " bool antialias) -> Tensor",
        "bwd_frames": "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames,"
        " SymInt height, SymInt width, str padding, bool antialias, ScalarType frames_dtype, bool channels_last)"
        " -> Tensor",
    },
    "crop_mean": {
        "fwd": "(Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h, SymInt out_w,"
        " str padding, ScalarType out_dtype) -> Tensor",
        "bwd_boxes": "(Tensor grad, Tensor frames, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt out_h,"
        " SymInt out_w, str padding) -> Tensor",
        "bwd_frames": "(Tensor grad, Tensor boxes, Tensor? frame_index, Tensor? affine, SymInt num_frames,"
        " SymInt height, SymInt width, SymInt out_h, SymInt out_w, str padding, ScalarType frames_dtype,"
        " bool channels_last) -> Tensor",
    },
    "weighted_sample": {
        "fwd": "(Tensor weights, SymInt k, SymInt num_samples, Tensor seed, Tensor? row_id) -> Tensor",
    },
    "expected_value": {
        "fwd": "(Tensor values, Tensor weights, SymInt k, SymInt num_samples, Tensor? seed, Tensor? row_id)"
        " -> (Tensor out, Tensor coefficients)",
        "bwd_values": "(Tensor grad, Tensor weights, Tensor coefficients, ScalarType dtype) -> Tensor",
        "bwd_weights": "(Tensor grad, Tensor values, Tensor weights, Tensor coefficients, SymInt k,"
        " SymInt num_samples, Tensor? seed, Tensor? row_id, bool normaliser_grad) -> Tensor",
    },
    "quantile_frames": {
        "fwd": "(Tensor weights, SymInt num_frames, SymInt k, Tensor? jitter, Tensor? seed, Tensor? row_id) -> Tensor",
    },
    "exit_gate": {
        "fwd": "(Tensor logits, Tensor? threshold, float bound, str criterion, Tensor? active, SymInt capacity)"
        " -> (Tensor score, Tensor exited, Tensor keep, Tensor leave, Tensor counts)",
    },
    "gather_rows": {
        "fwd": "(Tensor x, Tensor index, Tensor? count) -> Tensor",
    },
    "scatter_rows": {
        "fwd": "(Tensor(a!) out, Tensor index, Tensor rows, Tensor? count) -> ()",
    },
    "temporal_shift": {
        "fwd": "(Tensor x, SymInt num_frames, SymInt fold, bool inverse) -> Tensor",
    },
}

for _op, _parts in SCHEMAS.items():
    for _part, _schema in _parts.items():
        library.define(f"_{_op}_{_part}{_schema}")

MAX_FRAME_DIMS = 8  # of [..., C, H, W]


def compiled(op: str) -> tuple[Callable, ...]:
    """The raw ops of an op, which the extension implements."""
    return tuple(getattr(torch.ops.adafocus, f"_{op}_{part}").default for part in SCHEMAS[op])


def overloads(op: str, backend: str, functions: str | tuple[Callable, ...]) -> tuple[Callable, ...]:
    """Adds a backend's Python functions to the raw ops as overloads of its name, and returns these.

    Args:
        functions: the op's parts in their order, or the name of a module that has them, imported at the first call.
    """
    from . import _fake, _vmap  # they need the raw ops above

    made = []
    for at, (part, schema) in enumerate(SCHEMAS[op].items()):
        name, overload = f"_{op}_{part}", backend.replace("-", "_")
        library.define(f"{name}.{overload}{schema}")

        def run(*args, at=at, part=part):
            function = functions[at] if isinstance(functions, tuple) else getattr(import_module(functions), part)
            return function(*args)

        library.impl(f"{name}.{overload}", run, "CompositeExplicitAutograd")
        raw = getattr(getattr(torch.ops.adafocus, name), overload)
        _fake.register(raw)
        _vmap.register(raw)
        made.append(raw)
    return tuple(made)
