"""The kernels in a library, read from what cuobjdump prints."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.harness.environment import ROOT
from bench.harness.kernels import RESERVED_SHARED, Kernel

# From here on the compiler counts what is kept for each block as shared memory of a kernel that has any.
COUNTS_RESERVED_SHARED = 90

# Instruction -> its kind of access to global memory. LD and ST take any address, so a global one too.
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


class NoReportError(Exception):
    """The reason why there is nothing to report, as a sentence."""


# What `read_kernels` asks cuobjdump for, each of which may take a minute.
NUM_DUMPS = 3


def read_kernels(extension: Path, on_dump: Callable[[], None] = lambda: None) -> list[Kernel]:
    """Every kernel in a library, by architecture.

    Args:
        on_dump: called NUM_DUMPS times, after each of the dumps.

    Raises:
        NoReportError: there is no cuobjdump, or no machine code for a GPU in the library.
    """
    tool = find_cuobjdump()
    resources = parse_resources(_dump(tool, "--dump-resource-usage", extension))
    on_dump()
    if not resources:
        raise NoReportError(f"{extension.name} holds no CUDA kernel: it was built without nvcc, or without CUDA torch")
    blocks = parse_block_sizes(_dump(tool, "--dump-elf", extension))
    on_dump()
    code = parse_instructions(_dump(tool, "--dump-sass", extension))
    on_dump()
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


# --- parsing ---------------------------------------------------------------------------------------------------------


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
