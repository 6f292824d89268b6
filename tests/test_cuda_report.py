"""The compiler's work on the CUDA kernels, and bench/cuda_report.py, which reports it."""

import json
import re
import sys
from pathlib import Path

import pytest

from bench import cuda_report
from bench.harness import cuobjdump
from bench.harness.cuobjdump import NoReportError
from bench.harness.kept_kernels import changes, keep, kept_path
from bench.harness.kernels import LAUNCH_SHARED, LIMITS, Kernel, occupancy
from made_once import made_once

# Part of a kernel's name -> what it must do 16 bytes at a time: its time is that of moving them.
MEMORY_BOUND = {
    "crop_resize_fwd_staged": ("copy", "store"),
    "crop_resize_bwd_boxes_staged": ("copy",),
    "crop_resize_bwd_frames_tiled": ("store",),
    "crop_resize_fwd_any": ("load", "store"),
    "crop_mean_fwd": ("load",),
}


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> list[Kernel]:
    """The kernels of the built extension."""
    try:
        extension = cuobjdump.find_extension()
        return made_once(tmp_path_factory, "kernels", lambda: cuobjdump.read_kernels(extension))
    except NoReportError as reason:
        pytest.skip(str(reason))


def name(kernel: Kernel) -> str:
    return f"{kernel.name} on sm_{kernel.arch}"


def test_no_kernel_spills_or_has_a_stack_frame(kernels):
    assert not {name(kernel): (kernel.stack, kernel.local) for kernel in kernels if kernel.stack or kernel.local}


def test_registers_are_those_that_were_kept(kernels):
    """More of them leave room for fewer threads: whoever changes a kernel sees it, and says so by keeping the new."""
    path = kept_path()
    if not path.exists():
        pytest.skip(f"there is no {path.name}: another toolkit makes other code")
    changed = changes(kernels, json.loads(path.read_text()))
    # Their instructions may change with every line.
    assert not [line for line in changed if not re.search(r": \d+ -> \d+ instructions$", line)]


def test_changes_of_kernels_are_told(tmp_path):
    def kernel(name: str, registers: int, instructions: int, arch: int = 86) -> Kernel:
        return Kernel(name, arch, 256, registers, 0, 0, 0, instructions, {})

    path = tmp_path / "kept.json"
    keep([kernel("a", 30, 100), kernel("b", 31, 90), kernel("c", 8, 7)], path)
    keep([kernel("a", 40, 100, 90)], path)
    kept = json.loads(path.read_text())
    assert kept == {"sm_86": {"a": [30, 100], "b": [31, 90], "c": [8, 7]}, "sm_90": {"a": [40, 100]}}
    now = [kernel("a", 32, 101), kernel("b", 31, 80), kernel("d", 1, 1), kernel("a", 9, 9, 120)]
    assert changes(now, kept) == [
        "sm_86 a: 30 -> 32 registers, 100 -> 101 instructions",
        "sm_86 b: 90 -> 80 instructions",
        "sm_86 c: gone",
        "sm_86 d: new",
    ]


def test_memory_bound_kernels_move_16_bytes_at_a_time(kernels):
    for part, accesses in MEMORY_BOUND.items():
        found = [kernel for kernel in kernels if part in kernel.name]
        assert found, f"there is no kernel {part}"
        for access in accesses:
            assert not [(name(kernel), access) for kernel in found if kernel.widest(access) < 16]


def test_no_result_comes_from_atomics(kernels):
    """The blocks of the exit gate count how many of them have finished, and its threads set the bits of rows that a
    list may have twice; nothing else is atomic."""
    atomic = {kernel.name.split("<")[0] for kernel in kernels if "atomic" in kernel.accesses}
    assert atomic == {"exit_gate_fwd_kernel", "exit_gate_flag_kernel"}


def test_every_kernel_has_launch_bounds(kernels):
    assert not [name(kernel) for kernel in kernels if kernel.threads is None]


def test_launches_that_ask_for_shared_memory_are_of_kernels(kernels):
    for part in LAUNCH_SHARED:
        assert [kernel for kernel in kernels if part in kernel.name], f"there is no kernel {part}"


# --- reading what cuobjdump prints -----------------------------------------------------------------------------------

COPY, SUM = "_ZN8adafocus12_GLOBAL__N_111copy_kernelIfLi3EEEvPKT_PS2_l", "_Z3sumPKhPf"

RESOURCES = f"""
Fatbin elf code:
================
arch = sm_86
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0

Fatbin elf code:
================
arch = sm_86
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function {COPY}:
  REG:10 STACK:0 SHARED:512 LOCAL:0 CONSTANT[0]:376 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function {SUM}:
  REG:56 STACK:256 SHARED:0 LOCAL:0 CONSTANT[0]:372 TEXTURE:0 SURFACE:0 SAMPLER:0

Fatbin ptx code:
================
arch = sm_90
code version = [9,0]

Fatbin elf code:
================
arch = sm_90
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function {COPY}:
  REG:12 STACK:0 SHARED:1536 LOCAL:0 CONSTANT[0]:552 TEXTURE:0 SURFACE:0 SAMPLER:0
"""

INFO = """\
.nv.info.{function}
\t<0x1>
\tAttribute:\tEIATTR_MAXREG_COUNT
\tFormat:\tEIFMT_HVAL
\tValue:\t0x80
{bound}

.text.{function}
"""
BOUND = """\
\t<0x12>
\tAttribute:\tEIATTR_MAX_THREADS
\tFormat:\tEIFMT_SVAL
\tValue:\t0x80 0x2 0x1"""

ELF = "\n".join(
    [
        "arch = sm_86",
        INFO.format(function=COPY, bound=BOUND),
        INFO.format(function=SUM, bound=""),
        "arch = sm_90",
        INFO.format(function=COPY, bound=BOUND),
    ]
)

SASS = f"""
arch = sm_86
\tcode for sm_86
\t\tFunction : {COPY}
\t.headerflags\t@"EF_CUDA_TEXMODE_UNIFIED"
        /*0000*/                   MOV R1, c[0x0][0x28] ;               /* 0x00000a0000017a02 */
                                                                        /* 0x000fe40000000f00 */
        /*0010*/              @!P0 LDG.E.128.CONSTANT R4, [R4.64] ;      /* 0x0000000404047981 */
        /*0020*/                   LDG.E.LTC128B.64 R4, [R4.64] ;        /* 0x0000000404047981 */
        /*0030*/                   LDGSTS.E.BYPASS.128 [R9], [R2.64] ;   /* 0x0000000002097fae */
        /*0040*/               @P1 STG.E [R4.64], R7 ;                   /* 0x0000000704007986 */
        /*0050*/                   EXIT ;                                /* 0x000000000000794d */
        /*0060*/                   NOP;                                  /* 0x0000000000007918 */
\t\tFunction : {SUM}
        /*0000*/                   LDG.E.U8 R8, [R8.64+0x40] ;           /* 0x0000000404047981 */
        /*0010*/                   LD.E.S16 R9, [R8.64] ;                /* 0x0000000404047981 */
        /*0020*/                   LDL.64 R2, [R1] ;                     /* 0x0000000404047981 */
        /*0030*/                   STL [R1+0x8], R2 ;                    /* 0x0000000404047981 */
        /*0040*/                   LDS.128 R4, [R0] ;                    /* 0x0000000404047981 */
        /*0050*/                   REDUX.MAX UR4, R4 ;                   /* 0x0000000404047981 */
        /*0060*/                   RED.E.ADD.F32.FTZ.RN.STRONG.GPU [R2.64], R15 ;  /* 0x0000000404047981 */
arch = sm_90
\t\tFunction : {COPY}
        /*0000*/             @!UP0 UBLKCP.S.G [UR6], [UR4], UR8 ;        /* 0x0000000404047981 */
        /*0010*/                   STG.E.EF.128 desc[UR10][R8.64], R4 ;  /* 0x0000000404047981 */
        /*0020*/                   LDC.64 R2, c[0x0][0x398] ;            /* 0x0000000404047981 */
"""

DUMPS = {"--dump-resource-usage": RESOURCES, "--dump-elf": ELF, "--dump-sass": SASS}


@pytest.fixture
def captured(monkeypatch):
    """cuobjdump prints what it printed once."""
    monkeypatch.setattr(cuobjdump, "find_cuobjdump", lambda: Path("cuobjdump"))
    monkeypatch.setattr(cuobjdump, "_dump", lambda tool, option, extension: DUMPS[option])
    monkeypatch.setattr(cuobjdump, "short_names", lambda functions: ["sum" if f == SUM else "copy" for f in functions])


def test_kernels_are_read_from_the_dumps(captured):
    copy_86, sum_86, copy_90 = cuobjdump.read_kernels(Path("extension.so"))
    assert copy_86 == Kernel(
        name="copy",
        arch=86,
        threads=256,
        registers=10,
        stack=0,
        local=0,
        shared=512,
        instructions=6,
        accesses={"copy": {16: 1}, "load": {8: 1, 16: 1}, "store": {4: 1}},
    )
    assert (sum_86.name, sum_86.threads, sum_86.stack, sum_86.local) == ("sum", None, 256, 2)
    assert sum_86.accesses == {"atomic": {4: 1}, "load": {1: 1, 2: 1}}
    assert (copy_90.arch, copy_90.registers, copy_90.shared) == (90, 12, 512)
    assert copy_90.accesses == {"bulk copy": {0: 1}, "store": {16: 1}}
    assert (copy_86.widest("load"), copy_86.widest("atomic")) == (16, 0)


def test_report_prints_a_table_for_each_architecture_and_writes_json(captured, tmp_path, capsys):
    path = tmp_path / "kernels.json"
    assert cuda_report.main(["--extension", "extension.so", "--json", str(path)]) == 0
    output = capsys.readouterr().out
    lines = [line.split() for line in output.splitlines()]
    assert ["copy", "10", "0", "+", "0", "512", "+", "0", "256", "100%", "6", "8:1", "16:1", "4:1", "16:1"] in lines
    assert ["sum", "56", "256", "+", "2", "0", "+", "0", "-", "-", "7", "1:1", "2:1", "-", "-"] in lines
    assert ["copy", "12", "0", "+", "0", "512", "+", "0", "256", "100%", "3", "-", "16:1", "bulk:1"] in lines
    assert output.index("sm_86") < output.index("sm_90")
    assert "3 kernels, 1 of them with a stack frame or spills" in output
    assert [kernel["arch"] for kernel in json.loads(path.read_text())] == [86, 86, 90]
    assert cuda_report.main(["--extension", "extension.so", "--kernels", "sum"]) == 0
    assert "copy " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arch", "threads", "registers", "shared", "expected"),
    [
        (86, 256, 64, 0, 2 / 3),  # registers: 32 warps
        (90, 256, 64, 0, 1 / 2),
        (90, 256, 32, 0, 1),
        (90, 256, 71, 0, 3 / 8),  # 28 warps, of which whole blocks take 24
        (86, 128, 16, 48 * 1024, 2 / 12),  # shared memory: 2 blocks
        (90, 128, 16, 48 * 1024, 4 / 16),
        (86, 32, 16, 0, 1 / 3),  # 16 blocks
        (89, 32, 16, 0, 1 / 2),  # 24 blocks
        (120, 1024, 16, 0, 2 / 3),  # 1 block of 1024
        (80, 1024, 33, 0, 1 / 2),  # registers in pieces of 8
    ],
)
def test_occupancy(arch, threads, registers, shared, expected):
    assert occupancy(LIMITS[arch], threads, registers, shared) == pytest.approx(expected)


def test_shared_memory_that_a_launch_asks_for_counts():
    kernel = Kernel("crop_resize_fwd_staged_kernel<float>", 86, 256, 32, 0, 0, 1024, 1, {})
    assert kernel.launch_shared == 24 * 1024
    assert kernel.occupancy == pytest.approx(3 * 256 / 1536)


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("void adafocus::(anonymous namespace)::copy<float, 3>(float const*, float*, long)", "copy<float, 3>"),
        ("adafocus::sum(unsigned char const*, float*)", "sum"),
        ("void a::k<(b::Kind)1, c::Sample<float> >(int)", "k<(Kind)1, Sample<float> >"),
    ],
)
def test_names_are_shortened(signature, name):
    assert cuobjdump.shorten(signature) == name


def test_without_kernels_or_tools_it_says_why(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ADAFOCUS_EXTENSION", str(tmp_path / "none.so"))
    assert cuda_report.main([]) == 2
    assert "no report: the extension is not built: run `make build`" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(cuobjdump, "find_spec", lambda name: None)
    assert cuda_report.main(["--extension", sys.executable]) == 2
    assert "no report: there is no cuobjdump" in capsys.readouterr().err


def test_a_library_without_kernels_is_named(capsys):
    try:
        cuobjdump.find_cuobjdump()
    except NoReportError as reason:
        pytest.skip(str(reason))
    assert cuda_report.main(["--extension", sys.executable]) == 2
    assert "holds no CUDA kernel" in capsys.readouterr().err
