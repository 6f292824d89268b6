"""Compiles the Triton kernels for a GPU that is not here: python compile_triton.py 86 prints what came out, as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from adafocus_ops._triton import crop_mean, crop_resize

HALF, FLOAT, DOUBLE, BYTE = torch.float16, torch.float32, torch.float64, torch.uint8


class Case:
    """Shapes of one call, and what runs it: tensors without memory, so that nothing but compiling happens."""

    def __init__(self, frames, dtype, channels_last, out, *, affine=False, index=False, **more):
        def empty(*shape, dtype=FLOAT):
            last = channels_last and len(shape) == 4
            return torch.empty(shape, dtype=dtype, device="meta").to(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )

        *lead, channels, height, width = frames
        count = torch.Size(lead).numel()
        self.frames = empty(count, channels, height, width, dtype=dtype).unflatten(0, lead)
        self.boxes = empty(count, 4, dtype=DOUBLE if dtype == DOUBLE else FLOAT)
        self.index = empty(count, dtype=torch.int64) if index else None
        self.affine = empty(2, channels, dtype=self.boxes.dtype) if affine else None
        self.grad_dtype = dtype if dtype.is_floating_point else torch.float16
        self.grad = empty(count, channels, *out, dtype=self.grad_dtype)
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
CASES = {
    "crop_resize": {
        "planes": Case((1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True),
        "pixels of four": Case((1536, 4, 224, 224), BYTE, True, (96, 96), affine=True, index=True),
        "video in double precision": Case((64, 8, 3, 224, 224), DOUBLE, False, (96, 96)),
        "feature map": Case((128, 1280, 7, 7), HALF, True, (3, 3)),
        "planar feature map": Case((128, 1280, 7, 7), FLOAT, False, (4, 4)),
        "antialiased": Case(
            (1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True, padding="border", antialias=True
        ),
    },
    "crop_mean": {
        "planes": Case((1536, 3, 224, 224), BYTE, False, (96, 96), affine=True, index=True),
        "feature map": Case((128, 1280, 7, 7), HALF, True, (3, 3)),
    },
}


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
    for op, cases in CASES.items():
        for name, case in cases.items():
            for part in PARTS:
                launches: list = []
                operators: list[str] = []
                with Operators():
                    getattr(case, op)(part)
                ((grid, kernel),) = launches  # one launch
                about = {"case": f"{op} {part}, {name}", "grid": grid, "operators": operators}
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
