"""Builds the extension library: C++ kernels always, CUDA kernels where nvcc and a CUDA build of torch are.

Environment:
    ADAFOCUS_BUILD=0           installs the Python alone: `python setup.py build_ext --inplace` comes afterwards.
    ADAFOCUS_CUDA=0 or 1       leaves the CUDA kernels out, or fails loudly if they cannot be built.
    ADAFOCUS_CUDA_ARCHS        architectures, such as "8.6 9.0+PTX" (default: all that nvcc knows of DEFAULT_ARCHS).
    ADAFOCUS_EXTRA_CFLAGS      further flags of the C++ compiler and linker (sanitizers, debugging).

Nothing here looks for a GPU or downloads anything.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from setuptools import setup


def find_cuda() -> None:
    """Sets CUDA_HOME to the toolkit of the nvcc on PATH, which may be a link or a wrapper script."""
    nvcc = shutil.which("nvcc")
    if nvcc and not os.environ.get("CUDA_HOME"):
        plan = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
        top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
        if top:
            os.environ["CUDA_HOME"] = os.path.realpath(top[1])


find_cuda()  # before the next import, which reads CUDA_HOME
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension  # noqa: E402

# The oldest torch whose stable ABI the library needs: a build against any newer torch runs on it.
TORCH_TARGET_VERSION = (2, 10)
DEFAULT_ARCHS = ("8.0", "8.6", "8.9", "9.0", "12.0")

CXX_FLAGS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-fopenmp-simd", "-Wall", "-Wno-psabi"]
# Neither changes a result: they only allow floor, rounding and comparisons to be vectorised.
CXX_FLAGS += ["-fno-math-errno", "-fno-trapping-math"]


def cuda_wanted() -> bool:
    """Whether to build the CUDA kernels; raises if they were asked for and cannot be built."""
    reasons = []
    if torch.version.cuda is None:
        reasons.append(f"torch {torch.__version__} is a CPU build")
    if not (CUDA_HOME and shutil.which("nvcc", path=os.path.join(CUDA_HOME, "bin"))):
        reasons.append("nvcc was not found (put it on PATH or set CUDA_HOME)")
    choice = os.environ.get("ADAFOCUS_CUDA", "")
    if choice not in ("", "0", "1"):
        raise SystemExit(f"ADAFOCUS_CUDA must be 0 or 1, got {choice!r}")
    if choice == "1" and reasons:
        raise SystemExit("ADAFOCUS_CUDA=1 asks for CUDA kernels, but " + " and ".join(reasons))
    if choice != "0" and reasons:
        print("building without CUDA kernels: " + " and ".join(reasons))
    return choice != "0" and not reasons


def cuda_architectures() -> tuple[list[str], bool]:
    """The architectures asked for, or those by default that this nvcc knows, oldest first, and whether to add PTX."""
    asked = os.environ.get("ADAFOCUS_CUDA_ARCHS", "").replace(";", " ").split()
    if not asked:
        nvcc = os.path.join(CUDA_HOME, "bin", "nvcc")
        listed = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
        known = set(re.findall(r"compute_(\d+)", listed))
        asked = [arch for arch in DEFAULT_ARCHS if arch.replace(".", "") in known]
        asked[-1] += "+PTX"
    numbers = [arch.removesuffix("+PTX").replace(".", "") for arch in asked]
    return sorted(numbers, key=int), any(arch.endswith("+PTX") for arch in asked)


def cuda_flags() -> list[str]:
    """Flags of nvcc. The sources know no architecture, so one PTX, of the oldest, is assembled for all of them: the
    machine code is as long as from a PTX of their own, and a build of two takes two thirds of the time."""
    numbers, with_ptx = cuda_architectures()
    names = [f"sm_{number}" for number in numbers]
    codes = [*names, f"compute_{numbers[0]}"] if with_ptx else names
    return [
        *("-std=c++17", "-O3", "-lineinfo"),
        f"-gencode=arch=compute_{numbers[0]},code=[{','.join(codes)}]",
        f'-DADAFOCUS_ARCHITECTURES="{" ".join(codes)}"',
    ]


def extensions() -> list:
    """The extension library, or nothing where it is not wanted or there is no C++ compiler."""
    if os.environ.get("ADAFOCUS_BUILD") == "0":
        return []
    compiler = os.environ.get("CXX", "c++").split()[0]
    if not shutil.which(compiler):
        if os.environ.get("ADAFOCUS_CUDA") == "1":
            raise SystemExit(f"ADAFOCUS_CUDA=1 asks for CUDA kernels, but there is no C++ compiler {compiler!r}")
        print(f"building without the extension: there is no C++ compiler {compiler!r} (set CXX)")
        return []
    root = Path(__file__).parent
    cuda = cuda_wanted()
    folders = ["csrc/cpu", "csrc/bindings"] + (["csrc/cuda"] if cuda else [])
    sources = [p for folder in folders for p in (root / folder).iterdir() if p.suffix in (".cpp", ".cu")]
    extra = os.environ.get("ADAFOCUS_EXTRA_CFLAGS", "").split()
    major, minor = TORCH_TARGET_VERSION
    defines = [f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000"] + (["-DUSE_CUDA"] if cuda else [])
    compile_args = {"cxx": CXX_FLAGS + defines + extra}
    if cuda:
        compile_args["nvcc"] = [*cuda_flags(), *defines]
    library = (CUDAExtension if cuda else CppExtension)(
        "adafocus_ops._C",
        sorted(str(p.relative_to(root)) for p in sources),
        include_dirs=[str(root / "csrc" / "include"), str(root / "csrc")],
        extra_compile_args=compile_args,
        extra_link_args=extra,
        py_limited_api=True,
    )
    return [library]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
