"""Compiles the Triton kernels for a GPU that is not here: python compile_triton.py 86 prints what came out, as JSON."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import triton
from raw_calls import raw_calls
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from adafocus_ops import backends
from adafocus_ops.examples import EXAMPLES


def cases() -> Iterator[tuple[str, Callable]]:
    """Every part of every op on the examples of real size: what is called, and what calls it."""
    seen = set()
    for op in backends.ops():
        kernels = import_module(f"adafocus_ops._triton.{op}")
        for example in EXAMPLES[op].real_size():
            first = {call.part: call for call in reversed(raw_calls(op, example))}
            for part, call in first.items():
                kind = (op, part, *map(described, call.arguments.values()))
                if kind not in seen:
                    seen.add(kind)
                    yield f"{op} {part}, {example.name}", partial(getattr(kernels, part), **call.arguments)


def described(value: Any) -> Any:
    """All that a compiled kernel depends on of an argument."""
    return (value.dtype, value.shape, value.stride()) if isinstance(value, Tensor) else value


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
    for name, run_case in cases():
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
