"""Compiles the Triton kernels for a GPU that is not here: python compile_triton.py 86 prints what came out, as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from adafocus_ops._triton import (
    crop_mean,
    crop_resize,
    exit_gate,
    expected_value,
    gather_rows,
    quantile_frames,
    scatter_rows,
    temporal_shift,
    weighted_sample,
)

HALF, FLOAT, DOUBLE, BYTE, LONG = torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64


def empty(*shape: int, dtype=FLOAT, channels_last=False) -> torch.Tensor:
    """A tensor without memory, so that nothing but compiling happens."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=memory_format)


class Crops:
    """Shapes of one call, and what runs it."""

    def __init__(self, frames, dtype, channels_last, out, *, affine=False, index=False, **more):
        *lead, channels, height, width = frames
        count = torch.Size(lead).numel()
        self.frames = empty(count, channels, height, width, dtype=dtype, channels_last=channels_last).unflatten(0, lead)
        self.boxes = empty(count, 4, dtype=DOUBLE if dtype == DOUBLE else FLOAT)
        self.index = empty(count, dtype=torch.int64) if index else None
        self.affine = empty(2, channels, dtype=self.boxes.dtype) if affine else None
        self.grad_dtype = dtype if dtype.is_floating_point else torch.float16
        self.grad = empty(count, channels, *out, dtype=self.grad_dtype, channels_last=channels_last)
        self.means_grad = empty(count, channels, dtype=self.grad_dtype)
        self.size, self.out, self.channels_last = (count, height, width), out, channels_last
        self.padding, self.antialias = more.get("padding", "zeros"), more.get("antialias", False)

    def crop_resize(self, part: str) -> None:
        boxes, how = (self.boxes, self.index, self.affine), (self.padding, self.antialias)
        arguments = {
            "fwd": (self.frames, *boxes, *self.out, *how, self.grad_dtype, self.channels_last),
            "bwd_boxes": (self.grad, self.frames, *boxes, *how),
            "bwd_frames": (self.grad, *boxes, *self.size, *how, self.grad_dtype, self.channels_last),
        }
        getattr(crop_resize, part)(*arguments[part])

    def crop_mean(self, part: str) -> None:
        boxes, how = (self.boxes, self.index, self.affine), (*self.out, self.padding)
        arguments = {
            "fwd": (self.frames, *boxes, *how, self.grad_dtype),
            "bwd_boxes": (self.means_grad, self.frames, *boxes, *how),
            "bwd_frames": (self.means_grad, *boxes, *self.size, *how, self.grad_dtype, self.channels_last),
        }
        getattr(crop_mean, part)(*arguments[part])


PARTS = ("fwd", "bwd_boxes", "bwd_frames")
CROPS = {
    "crop_resize": {
        "planes": Crops((1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True),
        "pixels of four": Crops((1536, 4, 224, 224), BYTE, True, (96, 96), affine=True, index=True),
        "video in double precision": Crops((64, 8, 3, 224, 224), DOUBLE, False, (96, 96)),
        "feature map": Crops((128, 1280, 7, 7), HALF, True, (3, 3)),
        "planar feature map": Crops((128, 1280, 7, 7), FLOAT, False, (4, 4)),
        "antialiased": Crops(
            (1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True, padding="border", antialias=True
        ),
    },
    "crop_mean": {
        "planes": Crops((1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True),
        "feature map": Crops((128, 1280, 7, 7), HALF, True, (3, 3)),
    },
}


def crops() -> Iterator[tuple[str, Callable]]:
    for op, cases in CROPS.items():
        for name, case in cases.items():
            for part in PARTS:
                yield f"{op} {part}, {name}", partial(getattr(case, op), part)


def others() -> Iterator[tuple[str, Callable]]:
    """The other ops: what is called, and what calls it."""
    seed, row_id = empty(1, dtype=LONG), empty(128, dtype=LONG)
    sample = partial(weighted_sample.fwd, seed=seed, row_id=row_id)
    yield "weighted_sample fwd, short rows", partial(sample, empty(128, 64), 16, 128)
    yield "weighted_sample fwd, long rows", partial(sample, empty(128, 100_000, dtype=DOUBLE), 5000, 4)

    for name, dtype, items, depth, draws in (
        ("logits", HALF, 16, 200, (5, 128, seed, row_id)),
        ("losses in double precision", DOUBLE, 1024, 1, (340, 128, seed, row_id)),
        ("exact", FLOAT, 128, 200, (2, 0, None, None)),
    ):
        values, weights, grad = empty(128, items, depth, dtype=dtype), empty(128, items), empty(128, depth, dtype=dtype)
        coefficients = empty(128, items, dtype=DOUBLE if dtype == DOUBLE else FLOAT)
        yield f"expected_value fwd, {name}", partial(expected_value.fwd, values, weights, *draws)
        yield (
            f"expected_value bwd_values, {name}",
            partial(expected_value.bwd_values, grad, weights, coefficients, dtype),
        )
        for normaliser_grad in (False, True):
            arguments = (grad, values, weights, coefficients, *draws, normaliser_grad)
            yield f"expected_value bwd_weights, {name}", partial(expected_value.bwd_weights, *arguments)

    yield "quantile_frames fwd", partial(quantile_frames.fwd, empty(128, 8), 24, 8, None, seed, row_id)
    weights, jitter = empty(128, 8, dtype=DOUBLE), empty(128, 8, dtype=HALF)
    yield "quantile_frames fwd, jitter", partial(quantile_frames.fwd, weights, 24, 8, jitter, None, None)

    mask, rows = empty(4096, dtype=torch.bool), empty(128, dtype=LONG)
    yield "exit_gate fwd", partial(exit_gate.fwd, empty(4096, 400, dtype=HALF), None, 1.0, "entropy", mask, 4096)
    logits, threshold = empty(4096, 400, dtype=DOUBLE), empty(dtype=HALF)
    yield "exit_gate fwd, list", partial(exit_gate.fwd, logits, threshold, 0.0, "confidence", rows, 4096)

    for name, channels_last in (("planes", False), ("pixels", True)):
        images = empty(1024, 64, 56, 56, dtype=HALF, channels_last=channels_last)
        yield f"gather_rows fwd, {name}", partial(gather_rows.fwd, images, rows, seed)
        yield f"scatter_rows fwd, {name}", partial(scatter_rows.fwd, images, rows, images[:128], seed)
        yield f"temporal_shift fwd, {name}", partial(temporal_shift.fwd, images, 8, 8, False)
    yield "temporal_shift fwd, view", partial(temporal_shift.fwd, images[..., 1:, 1:], 8, 8, True)


def compile_cases(architecture: int) -> list[dict]:
    """Runs every case with a driver that knows the architecture and nothing else, and tells what was compiled."""

    class Driver:
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device: 0)
        get_current_target = staticmethod(lambda: GPUTarget("cuda", architecture, 32))

    class Operators(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operators.append(str(func))
            return func(*args, **(kwargs or {}))

    driver.set_active(Driver())
    run = JITFunction.run

    def compile_only(function, *args, grid, warmup, **kwargs):
        launches.append((grid, run(function, *args, grid=grid, warmup=True, **kwargs)))

    JITFunction.run = compile_only
    found = []
    for name, run_case in (*crops(), *others()):
        launches: list = []
        operators: list[str] = []
        with Operators():
            run_case()
        for grid, kernel in launches:
            about = {"case": name, "launches": len(launches), "grid": grid, "operators": operators}
            found.append({**about, **resources(kernel.asm["cubin"]), "ptx": instructions(kernel.asm["ptx"])})
    return found


def resources(cubin: bytes) -> dict[str, int]:
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([program, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", text.stdout).groups()
    return {"registers": int(registers), "stack": int(stack)}


def instructions(ptx: str) -> dict[str, int]:
    """How often the instructions occur that the tests ask about."""
    names = re.findall(r"\b((?:ld|st)\.global[.\w]*|(?:atom|red|div)\.[.\w]+)", ptx)
    return {name: names.count(name) for name in set(names)}


if __name__ == "__main__":
    print(json.dumps(compile_cases(int(sys.argv[1]))))
