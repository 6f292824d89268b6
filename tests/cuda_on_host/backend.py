"""The backend "cuda-host": the source of the CUDA kernels, run on the host for CPU tensors."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adafocus_ops import backends

from . import build
from .harness import Harness, memory

NAME = "cuda-host"

# op -> part -> the arguments of the raw op that its launcher in tests/cuda_on_host/{op}.cpp takes, after the results.
_CROP = ("frames", "boxes", "frame_index", "affine")
_DRAWS = ("k", "num_samples", "seed", "row_id")
_STEPS = ("stride_t", "stride_h", "stride_w", "padding_t", "padding_h", "padding_w")
LAUNCHERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "crop_resize": {
        "fwd": (*_CROP, "padding", "antialias"),
        "fwd_out": (*_CROP, "padding", "antialias"),
        "bwd_boxes": ("grad", *_CROP, "padding", "antialias"),
        "bwd_frames": ("grad", *_CROP[1:], "padding", "antialias"),
    },
    "crop_mean": {
        "fwd": (*_CROP, "out_h", "out_w", "padding"),
        "bwd_boxes": ("grad", *_CROP, "out_h", "out_w", "padding"),
        "bwd_frames": ("grad", *_CROP[1:], "out_h", "out_w", "padding"),
    },
    "weighted_sample": {"fwd": ("weights", "seed", "row_id")},
    "expected_value": {
        "fwd": ("values", "weights", *_DRAWS),
        "bwd_values": ("grad", "weights", "coefficients"),
        "bwd_weights": ("grad", "values", "weights", "coefficients", *_DRAWS, "normaliser_grad"),
    },
    "quantile_frames": {"fwd": ("weights", "num_frames", "jitter", "seed", "row_id")},
    "exit_gate": {"fwd": ("logits", "threshold", "bound", "criterion", "active")},
    "gather_rows": {"fwd": ("x", "index", "count", "element_size")},
    "scatter_rows": {"fwd": ("index", "rows", "count", "element_size")},
    "depthwise_conv3d": {
        "fwd": ("x", "weight", "bias", *_STEPS),
        "bwd_x": ("grad", "weight", *_STEPS),
        "bwd_weight": ("grad", "x", *_STEPS),
    },
    "temporal_shift": {"fwd": ("x", "num_frames", "fold", "inverse")},
}


def _on_meta(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _untouched(fake: Tensor) -> Tensor:
    """A result like a tensor without memory: an element that no kernel has written shows. It is filled with the bytes
    0xff, NaN in the floating-point types, but in those of integers with 0x81: -1 is what pads a list."""
    result = torch.empty_strided(fake.shape, fake.stride(), dtype=fake.dtype)
    memory(result).fill_(0xFF if fake.is_floating_point() else 0x81)
    return result


class HostOp:
    """The kernels of an op, with the signatures of its raw ops.

    Args:
        edits: files of csrc/cuda and texts to compile in place of theirs.
        mode: how they are compiled, one of build.MODES.
    """

    def __init__(self, op: str, edits: Mapping[Path, str] | None = None, mode: str = "sanitized"):
        self.op = op
        self.harness = Harness(op, edits, mode)

    def kernel(self, part: str) -> Callable:
        names = backends.kernel(self.op, part, "cpu").names

        return lambda *args: self._run(part, dict(zip(names, args, strict=True)))

    def _run(self, part: str, arguments: dict[str, Any]) -> Any:
        """Calls the launcher with results of the shapes, dtypes and strides that the fake kernel tells."""
        fake = backends.kernel(self.op, part, "cpu")(*map(_on_meta, arguments.values()))
        if fake is None:
            results = arguments["out"]
        else:
            results = tuple(map(_untouched, fake)) if isinstance(fake, tuple) else _untouched(fake)
        known = arguments | {"element_size": next(iter(arguments.values())).element_size()}
        self.harness.call(f"{self.op}_{part}", results, *(known[name] for name in LAUNCHERS[self.op][part]))
        return None if fake is None else results


def install() -> None:
    """Adds the backend, its kernels compiled as ADAFOCUS_CUDA_HOST_MODE says."""
    mode = os.environ.get("ADAFOCUS_CUDA_HOST_MODE") or "sanitized"
    ops = {op: HostOp(op, mode=mode) for op in LAUNCHERS}
    kernels = {op: {part: host.kernel(part) for part in LAUNCHERS[op]} for op, host in ops.items()}
    backends.extend(NAME, "cpu", kernels, build.why_not())
