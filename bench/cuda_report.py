"""What the compiler made of every CUDA kernel in the built extension: python bench/cuda_report.py

Registers, local memory, shared memory, occupancy and the widths of global accesses, for each architecture that
the extension holds machine code for. It needs no GPU.
"""

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from _console import print_table
from _environment import ROOT


class NoReportError(Exception):
    """Why there is nothing to report, as a sentence."""


@dataclass(frozen=True)
class Limits:
    """What one multiprocessor holds at a time."""

    threads: int
    blocks: int
    shared_kib: int


# sm_ -> limits; all of these have 65536 registers in four parts, and keep 1 KiB of shared memory for each block.
LIMITS = {
    80: Limits(2048, 32, 164),
    86: Limits(1536, 16, 100),
    89: Limits(1536, 24, 100),
    90: Limits(2048, 32, 228),
    120: Limits(1536, 24, 100),
}
RESERVED_SHARED = 1024

# From here on the compiler counts what is kept for each block as shared memory of a kernel that has any.
COUNTS_RESERVED_SHARED = 90

# Part of a kernel's name -> the most bytes of shared memory that its launches ask for in usual calls.
LAUNCH_SHARED = {"_staged_kernel": 24 * 1024, "_tiled_kernel": 20 * 1024}

# Instruction -> what it does to global memory. LD and ST take any address, so a global one too.
ACCESS = {
    "LDG": "load",
    "LD": "load",
    "STG": "store",
    "ST": "store",
    "LDGSTS": "copy",
    "UBLKCP": "bulk copy",
    "ATOM": "atomic",
    "ATOMG": "atomic",
    "RED": "atomic",
    "REDG": "atomic",
}
WIDTH = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}  # bytes; others are 4


@dataclass(frozen=True)
class Kernel:
    """One kernel on one architecture."""

    name: str  # demangled, without namespace and parameters
    arch: int  # 86 for sm_86
    threads: int | None  # largest block that it may be launched with; None: it has no launch bounds
    registers: int
    stack: int  # bytes of a thread's stack frame
    local: int  # instructions that access local memory: spills, and arrays indexed at run time
    shared: int  # bytes, beside those that a launch asks for
    instructions: int
    accesses: dict[str, dict[int, int]]  # "load", ... -> bytes a thread -> instructions

    @property
    def launch_shared(self) -> int:
        """The most bytes of shared memory that a launch asks for."""
        return next((size for part, size in LAUNCH_SHARED.items() if part in self.name), 0)

    @property
    def occupancy(self) -> float | None:
        """The share of a multiprocessor's threads that can be resident, at the largest block."""
        if self.threads is None or self.arch not in LIMITS:
            return None
        return occupancy(LIMITS[self.arch], self.threads, self.registers, self.shared + self.launch_shared)

    def widest(self, access: str) -> int:
        """Bytes of the widest accesses of a kind; 0 if there are none."""
        return max(self.accesses.get(access, {}), default=0)


def occupancy(limits: Limits, threads: int, registers: int, shared: int) -> float:
    """The share of a multiprocessor's threads that blocks of this many can fill."""
    warps = -(-threads // 32)
    registers_of_warp = _round_up(32 * registers, 256)
    blocks = min(
        limits.blocks,
        limits.threads // (32 * warps),
        4 * (65536 // 4 // registers_of_warp) // warps,
        limits.shared_kib * 1024 // _round_up(shared + RESERVED_SHARED, 128),
    )
    return blocks * 32 * warps / limits.threads


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


# --- reading what cuobjdump prints -----------------------------------------------------------------------------------


def by_architecture(text: str) -> Iterator[tuple[int, str]]:
    """The parts of a dump, (86, text) for sm_86."""
    parts = re.split(r"^arch = sm_(\d+).*$", text, flags=re.MULTILINE)[1:]
    yield from zip(map(int, parts[::2]), parts[1::2], strict=True)


def parse_resources(text: str) -> dict[tuple[int, str], dict[str, int]]:
    """(architecture, mangled name) -> {"REG": .., "STACK": .., "SHARED": ..} of --dump-resource-usage."""
    return {
        (arch, function): {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", usage)}
        for arch, part in by_architecture(text)
        for function, usage in re.findall(r"^ Function (\S+):\n(.*)$", part, re.MULTILINE)
    }


def parse_block_sizes(text: str) -> dict[tuple[int, str], int]:
    """(architecture, mangled name) -> most threads of a block, of --dump-elf."""
    sizes = {}
    for arch, part in by_architecture(text):
        for section in re.split(r"^\.nv\.info\.", part, flags=re.MULTILINE)[1:]:
            info = section.split("\n\n")[0]
            bound = re.search(r"EIATTR_(?:MAX_THREADS|REQNTID)\n.*\n\s*Value:\s*(\S+) (\S+) (\S+)", info)
            if bound:
                x, y, z = (int(size, 16) for size in bound.groups())
                sizes[arch, info.split()[0]] = x * y * z
    return sizes


def parse_instructions(text: str) -> dict[tuple[int, str], list[str]]:
    """(architecture, mangled name) -> instructions with their modifiers ("LDG.E.128"), of --dump-sass."""
    code = {}
    for arch, part in by_architecture(text):
        for function in part.split("Function : ")[1:]:
            opcodes = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", function, re.MULTILINE)
            code[arch, function.split()[0]] = [opcode for opcode in opcodes if opcode != "NOP"]
    return code


def count_accesses(instructions: Sequence[str]) -> dict[str, dict[int, int]]:
    """Kind of access -> bytes a thread -> instructions; a bulk copy's size is known at run time only: 0."""
    counts: dict[str, Counter] = {}
    for instruction in instructions:
        opcode, *modifiers = instruction.split(".")
        if opcode in ACCESS:
            width = next((WIDTH[modifier] for modifier in modifiers if modifier in WIDTH), 4)
            kind = ACCESS[opcode]
            counts.setdefault(kind, Counter())[0 if kind == "bulk copy" else width] += 1
    return {kind: dict(sorted(widths.items())) for kind, widths in sorted(counts.items())}


def short_names(mangled: Sequence[str]) -> list[str]:
    """Names without namespaces and parameters; as they are where nothing demangles them."""
    tool = shutil.which("c++filt") or shutil.which("cu++filt")
    if tool is None:
        return list(mangled)
    lines = subprocess.run([tool], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    return [shorten(line) for line in lines.splitlines()]


def shorten(signature: str) -> str:
    """`void adafocus::(anonymous namespace)::copy<float, 3>(float const*)` -> `copy<float, 3>`."""
    name = re.sub(r"\w+::|\(anonymous namespace\)::|^void ", "", signature)
    depth = 0
    for position, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            return name[:position]
    return name


# --- the report ------------------------------------------------------------------------------------------------------


def read_kernels(extension: Path) -> list[Kernel]:
    """Every kernel in a library, by architecture.

    Raises:
        NoReportError: there is no cuobjdump, or no machine code for a GPU in the library.
    """
    tool = find_cuobjdump()
    resources = parse_resources(_dump(tool, "--dump-resource-usage", extension))
    if not resources:
        raise NoReportError(f"{extension.name} holds no CUDA kernel: it was built without nvcc, or without CUDA torch")
    blocks = parse_block_sizes(_dump(tool, "--dump-elf", extension))
    code = parse_instructions(_dump(tool, "--dump-sass", extension))
    names = short_names([function for _, function in resources])
    kernels = []
    for (key, usage), name in zip(resources.items(), names, strict=True):
        arch, opcodes = key[0], [instruction.split(".")[0] for instruction in code[key]]
        kernels.append(
            Kernel(
                name=name,
                arch=arch,
                threads=blocks.get(key),
                registers=usage["REG"],
                stack=usage["STACK"],
                local=opcodes.count("LDL") + opcodes.count("STL"),
                shared=max(0, usage["SHARED"] - (RESERVED_SHARED if arch >= COUNTS_RESERVED_SHARED else 0)),
                instructions=len(opcodes),
                accesses=count_accesses(code[key]),
            )
        )
    return sorted(kernels, key=lambda kernel: (kernel.arch, kernel.name))


def find_extension() -> Path:
    """The library that adafocus_ops loads.

    Raises:
        NoReportError: it is not built.
    """
    named = os.environ.get("ADAFOCUS_EXTENSION")
    found = [Path(named)] if named else sorted((ROOT / "adafocus_ops").glob("_C.*so"))
    if not found or not found[0].exists():
        raise NoReportError("the extension is not built: run `make build`")
    return found[0]


def find_cuobjdump() -> Path:
    """cuobjdump of the CUDA toolkit, or the one that comes with Triton.

    Raises:
        NoReportError: there is neither.
    """
    folders = [os.environ.get("PATH", "")]
    if "CUDA_HOME" in os.environ:
        folders.append(f"{os.environ['CUDA_HOME']}/bin")
    triton = find_spec("triton")
    if triton is not None:
        folders.append(str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))
    tool = shutil.which("cuobjdump", path=os.pathsep.join(folders))
    if tool is None:
        raise NoReportError("there is no cuobjdump: put the CUDA toolkit's on PATH, or pip install triton")
    return Path(tool)


def _dump(tool: Path, option: str, extension: Path) -> str:
    result = subprocess.run([tool, option, extension], capture_output=True, text=True)
    # A library without CUDA code is refused with this sentence.
    if result.returncode and "does not contain device code" not in result.stderr:
        raise NoReportError(f"cuobjdump {option} failed: {result.stderr.strip()}")
    return result.stdout


def table_line(kernel: Kernel) -> list[str]:
    """A kernel as the cells of a table."""
    accesses = [
        " ".join(
            f"{width or 'bulk'}:{count}" for kind in kinds for width, count in kernel.accesses.get(kind, {}).items()
        )
        for kinds in (["load"], ["store"], ["copy", "bulk copy"])
    ]
    return [
        kernel.name,
        str(kernel.registers),
        f"{kernel.stack} + {kernel.local}",
        f"{kernel.shared} + {kernel.launch_shared}",
        str(kernel.threads or "-"),
        "-" if kernel.occupancy is None else f"{kernel.occupancy:.0%}",
        str(kernel.instructions),
        *(cell or "-" for cell in accesses),
    ]


COLUMNS = [
    "kernel",
    "registers",
    "stack + spills",
    "shared",
    "threads",
    "occupancy",
    "instructions",
    "loads",
    "stores",
    "copies",
]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extension", type=Path, help="library to look into (default: the one that is built)")
    parser.add_argument("--kernels", metavar="TEXT", default="", help="only the kernels whose name contains this")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all that is known of each kernel")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    try:
        kernels = read_kernels(args.extension or find_extension())
    except NoReportError as reason:
        print(f"no report: {reason}", file=sys.stderr)
        return 2
    kernels = [kernel for kernel in kernels if args.kernels in kernel.name]
    for arch in sorted({kernel.arch for kernel in kernels}):
        lines = [table_line(kernel) for kernel in kernels if kernel.arch == arch]
        print_table(f"sm_{arch}", COLUMNS, lines)
    print("stack: bytes; spills: instructions on local memory; shared: bytes, and the most that a launch adds")
    print("occupancy: at blocks of `threads`, the launch bound; loads, stores, copies: bytes a thread:instructions")
    spilling = sum(bool(kernel.stack or kernel.local) for kernel in kernels)
    print(f"{len(kernels)} kernels, {spilling} of them with a stack frame or spills")
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(kernel) for kernel in kernels], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
