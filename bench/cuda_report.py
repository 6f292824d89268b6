"""Reports what the compiler made of every CUDA kernel in the built extension: python bench/cuda_report.py

Registers, local memory, shared memory, occupancy and the widths of global accesses, for each architecture that
the extension holds machine code for. It needs no GPU.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # where `bench` and the library are

from bench.harness.console import print_table, progress, run_program
from bench.harness.cuobjdump import NUM_DUMPS, NoReportError, find_extension, read_kernels
from bench.harness.kept_kernels import changes, keep, kept_path
from bench.harness.kernels import Kernel

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


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extension", type=Path, help="library to look into (default: the one that is built)")
    parser.add_argument("--kernels", metavar="TEXT", default="", help="only the kernels whose name contains this")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all that is known of each kernel")
    parser.add_argument(
        "--keep", action="store_true", help="let these registers be what the tests compare with, in bench/results"
    )
    args = parser.parse_args(arguments)
    if args.keep and args.extension is not None:
        parser.error("--keep is of the extension that is built, and goes without --extension")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    try:
        with progress("reading machine code", NUM_DUMPS) as step:
            kernels = read_kernels(args.extension or find_extension(), on_dump=step)
    except NoReportError as reason:
        print(f"no report: {reason}", file=sys.stderr)
        return 2
    changed = []
    if args.extension is None:
        path = kept_path()
        changed = changes(kernels, json.loads(path.read_text())) if path.exists() else []
        changed = [line for line in changed if args.kernels in line]
        if args.keep:
            keep(kernels, path)
    kernels = [kernel for kernel in kernels if args.kernels in kernel.name]
    if args.json:
        args.json.write_text(json.dumps([dataclasses.asdict(kernel) for kernel in kernels], indent=1) + "\n")
    for arch in sorted({kernel.arch for kernel in kernels}):
        lines = [table_line(kernel) for kernel in kernels if kernel.arch == arch]
        print_table(f"sm_{arch}", COLUMNS, lines)
    print("stack: bytes; spills: instructions on local memory; shared: bytes, and the most that a launch adds")
    print("occupancy: at blocks of `threads`, the launch bound; loads, stores, copies: bytes a thread:instructions")
    if changed:
        print("since they were kept:", *changed, sep="\n  ")
    spilling = sum(bool(kernel.stack or kernel.local) for kernel in kernels)
    print(f"{len(kernels)} kernels, {spilling} of them with a stack frame or spills")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
